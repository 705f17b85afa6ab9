"""Builders shared by the tests: small learning problems put together by hand.

All data are drawn in file order, so that a problem is the same on any communicator. The tests'
great pattern: build it on `MPI.COMM_WORLD` and, on every rank, on `MPI.COMM_SELF`, and compare.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.activations import ACTIVATIONS, Activation
from fem_dnn.controls import ControlSpace, ControlValues
from fem_dnn.coordinates import Coordinates, CurvatureCoordinates
from fem_dnn.depth import SCHEMES, DepthLevels, gauss_legendre, lagrange_basis
from fem_dnn.losses import POINTWISE, L2Loss, OutputLayer, OutputLoss, TerminalLoss
from fem_dnn.mesh import interval, rectangle
from fem_dnn.network import LayerWeights, Network
from fem_dnn.nonlocal_operator import NonlocalOperator, kernel_coefficients
from fem_dnn.problem import LearningProblem
from fem_dnn.regularization import Regularization
from fem_dnn.tracking import Tracking
from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]

GRADED = np.array([0.0, 0.3, 0.5, 1.1])
"""Slab ends of unequal thickness: what holds on equal slabs only fails here."""

SMOOTH = ["tanh", "sigmoid", "softplus", "gelu", "linear"]
LOSSES = ["l2", *POINTWISE]


def width_space(
    comm: MPI.Comm, cells: int | tuple[int, int] = 4, degree: int = 0, **mesh: object
) -> WidthSpace:
    """Interval for one number of cells, rectangle for two."""
    make = interval if isinstance(cells, int) else rectangle
    return WidthSpace(make(comm, cells, **mesh), degree)  # type: ignore[arg-type, operator]


def make_network(
    space: WidthSpace,
    scheme: str,
    activation: str | Activation = "tanh",
    *,
    points: Sequence[float] | Array = GRADED,
) -> Network:
    if isinstance(activation, str):
        activation = ACTIVATIONS[activation]
    return Network(space, DepthLevels(SCHEMES[scheme], np.asarray(points, dtype=float)), activation)


@contextmanager
def sweeps_in_numpy() -> Iterator[None]:
    """Networks made or used for the first time in the meantime have no compiled sweeps."""
    with patch("fem_dnn.network.compiled_sweeps", lambda *_: None):
        yield


def uniform(depth: float, layers: int) -> Array:
    return depth * np.arange(layers + 1) / layers


def local(space: WidthSpace, values: Array) -> Array:
    """(samples, nodes) in file order, as people write them -> (n_local, samples)."""
    return np.ascontiguousarray(space.from_file_order(np.atleast_2d(values)).T)


def in_file_order(space: WidthSpace, values: Array) -> Array:
    """(..., n_local, samples) -> (..., samples, n_nodes): the whole array, on every rank."""
    return np.swapaxes(space.to_file_order(values, axis=-2), -1, -2)


def layer_weights(
    network: Network, *, kernel: Array | None = None, bias: Array | None = None
) -> LayerWeights:
    """Given weights from nodal values in file order, (levels, nodes, nodes) and (levels, nodes)."""
    space, omega = network.space, network.levels.weights
    operator = None
    if kernel is not None:
        operator = NonlocalOperator(space, omega, kernel_coefficients(space, omega, kernel))
    if bias is not None:
        bias = space.from_file_order(bias)[:, :, None].copy()
    return LayerWeights(operator, bias)


def random_weights(network: Network, seed: int, scale: float = 0.7) -> LayerWeights:
    rng = np.random.default_rng(seed)
    count, N = network.levels.count, network.space.n_nodes
    kernel = scale * rng.standard_normal((count, N, N))
    return layer_weights(network, kernel=kernel, bias=scale * rng.standard_normal((count, N)))


def random_problem(
    comm: MPI.Comm,
    *,
    scheme: str = "dg1",
    activation: str | Activation = "tanh",
    loss: str = "l2",
    cells: int | tuple[int, int] = 4,
    degree: int = 0,
    points: Sequence[float] | Array = GRADED,
    samples: int = 3,
    outputs: int = 2,
    learn_outputs: bool = False,
    tracking: bool = False,
    mask: bool = False,
    kernel: bool = True,
    bias: bool = True,
    given: bool = False,
    regularization: tuple[float, float, float] = (0.01, 0.02, 0.03),
    bounds: Mapping[str, tuple[float, float]] | None = None,
    seed: int = 3,
) -> LearningProblem:
    """A learning problem with random data and unequal sample weights.

    `given` supplies a random kernel or bias where that is no control.
    """
    rng = np.random.default_rng(seed)
    space = width_space(comm, cells, degree)
    network = make_network(space, scheme, activation, points=points)
    N, levels = space.n_nodes, network.levels

    inputs = local(space, rng.standard_normal((samples, N)))
    sample_weights = rng.uniform(0.5, 1.5, samples)
    K = {"l2": 0, "logistic": 1}.get(loss, outputs)
    terminal: TerminalLoss
    layer = None
    if loss == "l2":
        terminal = L2Loss(space, local(space, rng.standard_normal((samples, N))), 1.3)
    else:
        targets = {
            "mse": rng.standard_normal((K, samples)),
            "logistic": rng.choice([-1.0, 1.0], (K, samples)),
            "softmax": np.eye(max(K, 1))[:, rng.integers(0, max(K, 1), samples)],
        }[loss]
        terminal = OutputLoss(space, POINTWISE[loss], targets, sample_weights, 1.3)
        if not learn_outputs:
            layer = OutputLayer(
                space.from_file_order(rng.standard_normal((K, N))), rng.standard_normal(K)
            )
    followed = None
    if tracking:
        values = rng.standard_normal((len(levels.tracking_t), samples, N))
        followed = Tracking(0.7, space.from_file_order(values).transpose(0, 2, 1).copy())
    controls = ControlSpace(
        space,
        levels,
        kernel=kernel,
        bias=bias,
        outputs=K if learn_outputs else 0,
        mask=rng.integers(0, 2, (N, N)).astype(float) if mask else None,
        bounds=bounds,
    )
    fixed = LayerWeights(None, None)
    if given:
        everything = random_weights(network, seed + 1)
        fixed = LayerWeights(
            None if kernel else everything.operator, None if bias else everything.bias
        )
    return LearningProblem(
        network,
        controls,
        inputs,
        sample_weights,
        terminal,
        Regularization(controls, *regularization),
        followed,
        given=fixed,
        given_outputs=layer,
    )


def random_control(problem: LearningProblem, seed: int = 5, scale: float = 0.7) -> Array:
    """Random controls of all kinds, learned outputs too; `ControlSpace.random` leaves these out."""
    controls = problem.controls
    rng = np.random.default_rng(seed)
    outer = ControlValues(
        outputs=rng.standard_normal((controls.outputs, problem.network.space.n_nodes)),
        offsets=rng.standard_normal(controls.outputs),
    )
    return controls.random(seed, scale) + controls.coordinates(outer)


def l2_problem(
    network: Network,
    inputs: Array,
    targets: Array,
    *,
    sample_weights: Array | None = None,
    kernel: float | None = None,
    bias: float | None = None,
    weight: float = 1.0,
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> LearningProblem:
    """The l2 problem with data (samples, nodes) in file order; None switches a control off."""
    space = network.space
    inputs = np.atleast_2d(inputs)
    S = len(inputs)
    controls = ControlSpace(
        space, network.levels, kernel=kernel is not None, bias=bias is not None, bounds=bounds
    )
    return LearningProblem(
        network,
        controls,
        local(space, inputs),
        np.full(S, 1 / S) if sample_weights is None else sample_weights,
        L2Loss(space, local(space, np.atleast_2d(targets)), weight),
        Regularization(controls, kernel or 0.0, bias or 0.0),
    )


def flat(values: ControlValues) -> Array:
    """All controls in file order as one vector, the same on every rank."""
    parts = (values.kernel, values.bias, values.outputs, values.offsets)
    return np.concatenate([part.ravel() for part in parts if part is not None])


def everywhere(problem: LearningProblem, control: Array) -> Array:
    """A distributed control vector as nodal values in file order, whole on every rank."""
    return flat(problem.controls.values(control))


def relative(a: Array | float, b: Array | float) -> float:
    """|a - b| / |b| in the Euclidean norm."""
    a, b = np.asarray(a), np.asarray(b)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def fitted_order(cells: Sequence[int], errors: Sequence[float]) -> float:
    """Order p of errors ~ cells^-p, by least squares on the logarithms."""
    assert min(errors) > 0, "an error vanished: there is no slope to fit"
    return float(-np.polyfit(np.log(np.asarray(cells, float)), np.log(errors), 1)[0])


def l2_error(
    space: WidthSpace, values: Array, exact: Callable[[Array], Array], points: int = 8
) -> float:
    """|f_h - f| in L2 of an interval, at quadrature points much finer than the nodes.

    At the nodes themselves a discontinuous interpolant may be exact: its error is between them.

    Args:
        space: Space on an interval with equal cells.
        values: Nodal values in file order, shape (n_nodes,).
        exact: f, of coordinates.
        points: Quadrature points per cell.
    """
    per_cell = space.degree + 1
    low, high = (float(corner[0]) for corner in space.bounds)
    cells = space.n_nodes // per_cell
    h = (high - low) / cells
    z, w = gauss_legendre(points)
    basis = np.stack([phi(z) for phi in lagrange_basis(gauss_legendre(per_cell)[0])])
    x = low + h * (np.arange(cells)[:, None] + z)
    difference = values.reshape(cells, per_cell) @ basis - exact(x)
    return float(np.sqrt(h * np.sum(difference**2 @ w)))


def assert_transposes(metric: Coordinates, controls: ControlSpace) -> None:
    """<T z, g> = <z, T' g>, and arguments stay as they are."""
    z, g = (controls.random_direction(seed) for seed in (1, 2))
    kept = z.copy(), g.copy()
    there, back = controls.dot(metric.apply(z), g), controls.dot(z, metric.apply_transpose(g))
    assert abs(there - back) < 1e-13 * max(abs(there), 1e-2)
    assert np.array_equal(z, kept[0]) and np.array_equal(g, kept[1])


def assert_is_its_inverse(metric: CurvatureCoordinates) -> None:
    """What is called the inverse of the Hessian's model is T T' / s; its argument is kept."""
    controls = metric.controls
    g = controls.random_direction(4)
    kept, found = g.copy(), metric.inverse(g)
    expected = metric.apply(metric.apply_transpose(g)) / metric.weight
    # Of a masked kernel Q is orthonormal to what a nearly dependent Psi leaves of round-off.
    tolerance = 1e-12 if controls.mask is None else 1e-9
    assert controls.norm(found - expected) < tolerance * controls.norm(expected)
    assert np.array_equal(g, kept)
    single = metric.inverse(g.astype(np.float32))
    assert single.dtype == np.float32
    tolerance = 1e-5 if controls.mask is None else 1e-3
    assert controls.norm(single - expected) < tolerance * controls.norm(expected)


def assert_same_inverses(metrics: Sequence[tuple[Coordinates, ControlSpace]]) -> None:
    """T depends on the choice of a basis; T T', the inverse of the Hessian's model, does not."""
    ours, alone = (
        controls.values(metric.apply(metric.apply_transpose(controls.random_direction(3))))
        for metric, controls in metrics
    )
    for name in ("kernel", "bias", "outputs", "offsets"):
        found, expected = getattr(ours, name), getattr(alone, name)
        if found is not None:
            tolerance = 1e-10 * max(np.max(np.abs(expected)), 1e-3)
            assert np.allclose(found, expected, rtol=0, atol=tolerance)
