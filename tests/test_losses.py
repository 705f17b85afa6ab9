"""Terminal losses: values by hand, derivatives by differences, extreme outputs."""

import numpy as np
import pytest
from helpers import in_file_order, local, relative, width_space
from mpi4py import MPI

from fem_dnn.losses import (
    POINTWISE,
    L2Loss,
    OutputLayer,
    OutputLoss,
    logistic,
    mse,
    softmax_cross_entropy,
)

pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF
S = 4


def targets_of(kind: str, rng) -> np.ndarray:
    return {
        "mse": rng.standard_normal((3, S)),
        "logistic": rng.choice([-1.0, 1.0], (1, S)),
        "softmax": np.eye(3)[:, rng.integers(0, 3, S)],
    }[kind]


@pytest.mark.parametrize("kind", POINTWISE)
def test_pointwise_derivatives(kind: str) -> None:
    """Central differences of value and gradient."""
    rng = np.random.default_rng(0)
    y = targets_of(kind, rng)
    z, dz, e = rng.standard_normal(y.shape), rng.standard_normal(y.shape), 1e-5
    loss = POINTWISE[kind]
    up, down = loss(z + e * dz, y), loss(z - e * dz, y)
    values, gradient, hessian = loss(z, y)
    assert values.shape == (S,)
    assert np.allclose((up[0] - down[0]) / (2 * e), np.sum(gradient * dz, axis=0), atol=1e-8)
    assert np.allclose((up[1] - down[1]) / (2 * e), hessian(dz), atol=1e-8)


def test_pointwise_values() -> None:
    z = np.array([[1.0, -2.0], [0.5, 3.0]])
    y = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert np.allclose(mse(z, y)[0], [0.125, 4.0])
    assert np.allclose(softmax_cross_entropy(z, y)[0], np.log1p(np.exp([-0.5, -5.0])))
    assert np.allclose(logistic(z[:1], np.array([[1.0, -1.0]]))[0], np.log1p(np.exp([-1.0, -2.0])))


@pytest.mark.parametrize("size", [50.0, 1e4])
def test_extreme_outputs_overflow_nowhere(size: float) -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        values, gradient, hessian = logistic(np.array([[size, -size]]), np.array([[1.0, 1.0]]))
        assert np.allclose(values, [0, size]) and np.allclose(gradient, [[0, -1]])
        assert np.allclose(hessian(np.ones((1, 2))), 0)
        z = np.array([[size, -size], [0.0, 0.0]])
        values, gradient, hessian = softmax_cross_entropy(z, np.array([[1.0, 1.0], [0, 0]]))
        assert np.allclose(values, [0, size])
        assert np.allclose(gradient, [[0, -1], [0, 1]])
        assert np.allclose(hessian(np.array([[1.0, 1.0], [0, 0]])), 0)


def test_softmax_of_two_classes_is_logistic() -> None:
    z = np.linspace(-3, 3, 7)
    two = softmax_cross_entropy(np.stack([z, np.zeros(7)]), np.stack([np.ones(7), np.zeros(7)]))[0]
    assert np.allclose(two, logistic(z[None], np.ones((1, 7)))[0], rtol=1e-14)


def setting(comm, kind: str, degree: int = 1):
    space = width_space(comm, 4, degree)
    rng = np.random.default_rng(1)
    f, df = rng.standard_normal((2, S, space.n_nodes))
    y = targets_of(kind, rng)
    W, dW = rng.standard_normal((2, len(y), space.n_nodes))
    m, dm = rng.standard_normal((2, len(y)))
    w = rng.uniform(0.5, 1.5, S)
    loss = OutputLoss(space, POINTWISE[kind], y, w, 1.7)
    layer = OutputLayer(space.from_file_order(W), m)
    return space, loss, local(space, f), local(space, df), layer, (space.from_file_order(dW), dm)


@pytest.mark.parametrize("kind", POINTWISE)
def test_output_loss_derivatives(kind: str) -> None:
    """Gradient and its derivative by state, functions and offsets, in L2."""
    space, loss, f, df, layer, (dW, dm) = setting(WORLD, kind)
    h, w = space.local_weights, loss.sample_weights
    change = OutputLayer(dW, dm)

    def moved(e: float):
        return loss.at(f + e * df, OutputLayer(layer.functions + e * dW, layer.offsets + e * dm))

    e = 1e-5
    up, down, point = moved(e), moved(-e), loss.at(f, layer)
    by_differences = w @ (up.values - down.values) / (2 * e)
    by_gradient = (
        float(space.sum(np.einsum("n,s,ns,ns->", h, w, point.terminal, df)))
        + float(space.sum(np.einsum("n,kn,kn->", h, point.functions, dW)))
        + point.offsets @ dm
    )
    assert abs(by_differences - by_gradient) < 1e-7 * max(1.0, abs(by_gradient))
    tangent = point.tangent(df, change)
    for name in ("terminal", "functions", "offsets"):
        difference = (getattr(up, name) - getattr(down, name)) / (2 * e)
        assert np.allclose(getattr(tangent, name), difference, rtol=0, atol=1e-7)
    fixed = point.tangent(df, None)
    assert fixed.functions is None and fixed.offsets is None


@pytest.mark.parametrize("kind", POINTWISE)
def test_output_loss_is_the_same_on_any_number_of_ranks(kind: str) -> None:
    (a_space, a_loss, a_f, _, a_layer, _), (b_space, b_loss, b_f, _, b_layer, _) = (
        setting(comm, kind) for comm in (WORLD, SELF)
    )
    a, b = a_loss.at(a_f, a_layer), b_loss.at(b_f, b_layer)
    assert relative(a.values, b.values) < 1e-14
    assert relative(a.outputs, b.outputs) < 1e-14
    assert relative(a.offsets, b.offsets) < 1e-13
    assert relative(in_file_order(a_space, a.terminal), in_file_order(b_space, b.terminal)) < 1e-13
    assert relative(a_space.to_file_order(a.functions), b_space.to_file_order(b.functions)) < 1e-13


def test_l2_loss() -> None:
    """f - g = x^2 on (0, 1): the loss is half of 1/5, exactly for nodal quadrature of degree 2."""
    space = width_space(WORLD, 3, 2)
    x = space.nodes[:, 0]
    loss = L2Loss(space, local(space, np.stack([x, 1 + x])), 3.0)
    point = loss.at(local(space, np.stack([x + x**2, 1 + x])))
    assert np.allclose(point.values, [3 / 10, 0], rtol=0, atol=1e-14)
    assert np.allclose(in_file_order(space, point.terminal), [3 * x**2, 0 * x], atol=1e-14)
    df = np.ones((space.n_local, 2))
    assert np.array_equal(point.tangent(df, None).terminal, 3 * df)
    assert point.functions is None and point.offsets is None


def test_output_loss_needs_an_output_layer() -> None:
    _, loss, f, _, _, _ = setting(WORLD, "mse")
    with pytest.raises(ValueError, match="output layer"):
        loss.at(f, None)
