"""The sweeps in C find what those in NumPy find, to round-off."""

from typing import Any

import numpy as np
import pytest
from helpers import (
    GRADED,
    make_network,
    random_problem,
    random_weights,
    sweeps_in_numpy,
    uniform,
    width_space,
)
from mpi4py import MPI

from fem_dnn.activations import ACTIVATIONS
from fem_dnn.adjoint import solve_adjoint
from fem_dnn.native.library import why_not
from fem_dnn.native.sweeps import pointer
from fem_dnn.network import LayerWeights, Network
from fem_dnn.problem import LearningProblem
from fem_dnn.state import solve_state, solve_tangent
from fem_dnn.team import team

pytestmark = pytest.mark.skipif(why_not() is not None, reason=f"no sweeps in C: {why_not()}")

KINDS: list[dict[str, Any]] = [
    {},
    {"mask": True},
    {"tracking": True},
    {"kernel": False},
    {"kernel": False, "tracking": True, "given": True},
    {"bias": False},
    {"bias": False, "given": True},
    {"loss": "softmax", "learn_outputs": True},
    {"degree": 2},  # nodes of different weights
    {"degree": 2, "tracking": True, "mask": True},
    *({"activation": name} for name in ACTIVATIONS),
]
# Nodes and samples: one, vectors and what is left of them, several panels, and the BLAS' own.
SIZES = [(1, 1), (4, 3), (7, 8), (5, 13), (33, 12), (34, 37), (64, 32), (190, 11), (20, 600)]


def problem(**options: Any) -> LearningProblem:
    return random_problem(MPI.COMM_SELF, **{"scheme": "resnet", **options})


def everything(of: LearningProblem) -> dict[str, Any]:
    control, direction = (of.controls.random_direction(seed) for seed in (1, 2))
    at = of.linearise(4 * control)
    return {
        "objective": np.array(at.objective),
        "f": at.state.ends,
        "slope": at.state.slope,
        "tracked": at.state.tracked,
        "p": at.adjoint.ends,
        "P": at.adjoint.levels,
        "gradient": at.gradient,
        "curvature": at.curvature,
        "product": at.hessian_action(direction),
        "by inputs": at.gradient_by_inputs(np.ones_like(of.inputs)),
    }


def agree(found: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.linalg.norm(found - expected) <= 1e-13 * np.linalg.norm(expected))


def assert_as_in_numpy(**options: Any) -> None:
    of = problem(**options)
    assert of.network.compiled is not None
    found = everything(of)
    with sweeps_in_numpy():
        expected = everything(problem(**options))
    for name, values in expected.items():
        assert found[name].shape == values.shape
        assert agree(found[name], values), name


@pytest.mark.parametrize("options", KINDS)
def test_kinds_of_problems(options: dict[str, Any]) -> None:
    assert_as_in_numpy(**options)


@pytest.mark.parametrize(("nodes", "samples"), SIZES)
def test_sizes(nodes: int, samples: int) -> None:
    assert_as_in_numpy(cells=nodes, samples=samples)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("options", [{"cells": 34, "samples": 37}, {"degree": 2, "tracking": True}])
def test_a_team(options: dict[str, Any], size: int) -> None:
    """Threads take parts of the samples, which do not lie next to each other from node to node."""
    with team(size):
        assert_as_in_numpy(**options)


@pytest.mark.parametrize("degree", [0, 2])
@pytest.mark.parametrize("following", [False, True])
def test_sources_and_arrays_of_any_layout(degree: int, following: bool) -> None:
    def found(network: Network, weights: LayerWeights) -> list[np.ndarray]:
        rng = np.random.default_rng(1)
        levels, nodes = network.levels.count, network.space.n_nodes
        inputs, df, p = rng.standard_normal((3, 4, nodes)).transpose(0, 2, 1)
        source = rng.standard_normal((4, nodes, levels)).T[:, :, ::2]
        r = rng.standard_normal((levels if following else 0, nodes, 2))
        state = solve_state(network, weights, inputs[:, ::2], tracked=following)
        change = random_weights(network, 7)
        tangent = solve_tangent(network, weights, state, change, source, df[:, 1:3])
        adjoint = solve_adjoint(network, weights, state.slope, p[:, :2], r, source)
        return [state.ends, tangent.ends, tangent.u, tangent.tracked, adjoint.ends, adjoint.levels]

    space = width_space(MPI.COMM_SELF, 5, degree)
    network = make_network(space, "resnet")
    assert network.compiled is not None
    ours = found(network, random_weights(network, 2))
    with sweeps_in_numpy():
        network = make_network(space, "resnet")
        theirs = found(network, random_weights(network, 2))
    for mine, expected in zip(ours, theirs, strict=True):
        assert agree(mine, expected)


def test_what_overflows_does_so_in_silence() -> None:
    """As in NumPy: infinities and what is not a number reach the state's end, and no warning."""
    for activation in ("relu", "tanh"):
        of = problem(activation=activation, cells=6, samples=5, points=uniform(1.0, 9))
        at = of.linearise(of.controls.constant(1e200, 1.0))
        with sweeps_in_numpy():
            again = problem(activation=activation, cells=6, samples=5, points=uniform(1.0, 9))
            expected = again.linearise(again.controls.constant(1e200, 1.0)).state.ends
        assert np.array_equal(np.isfinite(at.state.ends), np.isfinite(expected))
        assert np.isfinite(expected).all() == (activation == "tanh")


def values(activation: str, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """sigma and sigma' as the state's sweep computes them: f_1 = 0 + 1 sigma(0 + b)."""
    space = width_space(MPI.COMM_SELF, 1)
    network = make_network(space, "resnet", activation, points=[0.0, 1.0])
    found, slopes = [], []
    for part in u.reshape(-1, 1):  # one number: also what is left of a vector has to be right
        sweeps = network.compiled
        assert sweeps is not None
        f, slope = np.zeros((2, 1, len(part))), np.empty((1, 1, len(part)))
        number = ACTIVATIONS[activation].compiled
        assert number is not None
        sweeps.state(number, (None, part[None, None, :1]), f, slope, f[:0])
        found.append(f[1, 0])
        slopes.append(slope[0, 0])
    return np.concatenate(found), np.concatenate(slopes)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_error_is_a_few_units_in_the_last_place(activation: str) -> None:
    if np.finfo(np.longdouble).eps > 1e-18:
        pytest.skip("no extended precision here")
    rng = np.random.default_rng(0)
    small = 10 ** rng.uniform(-300, 1.2, 1000)
    u = np.concatenate([small, rng.uniform(-3, 3, 2000), rng.uniform(-600, 40, 500)])
    x = u.astype(np.longdouble)
    exact = np.tanh(x) if activation == "tanh" else 1 / (1 + np.exp(-x))
    found, slope = values(activation, u)
    assert np.max(np.abs(found - exact) / np.spacing(np.abs(found))) < 3.5
    assert np.max(np.abs(slope - ACTIVATIONS[activation].evaluate(u, 1)[1])) < 1e-15
    assert np.max(np.abs(found)) <= 1


def curvature(activation: str, u: np.ndarray) -> np.ndarray:
    """sigma'' as the sweep that multiplies by it computes it, u being the bias."""
    network = make_network(width_space(MPI.COMM_SELF, 1), "resnet", activation, points=[0.0, 1.0])
    number, sweeps = ACTIVATIONS[activation].compiled, network.compiled
    assert number is not None and sweeps is not None
    p, out = np.ones((1, 1, 1)), np.empty((len(u), 1, 1))
    for part, to in zip(u.reshape(-1, 1, 1), out, strict=True):
        sweeps.curvature(slice(0, 1), number, (None, part), np.zeros((2, 1, 1)), p, to[None])
    return out[:, 0, 0]


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu", "linear"])
def test_extremes(activation: str) -> None:
    u = np.array([0.0, -0.0, np.inf, -np.inf, 1e300, -1e300, 5e-324, np.nan])
    value, slope, bend = ACTIVATIONS[activation].evaluate(u, 2)
    found = values(activation, u)
    assert np.allclose(found[0], value, rtol=1e-15, atol=1e-300, equal_nan=True)
    finite = ~np.isnan(u)
    assert np.allclose(found[1][finite], slope[finite], rtol=0, atol=1e-300)
    assert np.allclose(curvature(activation, u), bend, rtol=1e-15, atol=1e-300, equal_nan=True)


def test_arrays_that_c_would_misread_are_refused() -> None:
    """By an exception that `python -O` keeps."""
    sweeps = make_network(width_space(MPI.COMM_SELF, 2), "resnet", points=[0.0, 1.0]).compiled
    assert sweeps is not None
    good = [np.zeros((2, 2, 3)), np.zeros((1, 2, 3)), np.zeros((0, 2, 3))]
    sweeps.state(0, (None, None), *good)
    for k, shape in enumerate([(2, 2, 3), (1, 2, 3)]):
        for bad in (np.zeros(shape, np.float32), np.zeros(shape[::-1]).T):
            with pytest.raises(ValueError, match="next to each other"):
                sweeps.state(0, (None, None), *[*good[:k], bad, *good[k + 1 :]])
    for bad in (np.zeros((1, 4), np.float32), np.zeros((1, 8))[:, ::2]):
        with pytest.raises(ValueError, match="contiguous numbers in double precision"):
            pointer(bad)


def test_other_schemes_and_ranks_are_served_by_numpy() -> None:
    assert make_network(width_space(MPI.COMM_SELF), "dg0").compiled is None
    assert make_network(width_space(MPI.COMM_SELF), "resnet", points=GRADED).compiled is not None


@pytest.mark.mpi
def test_several_ranks_are_served_by_numpy() -> None:
    compiled = make_network(width_space(MPI.COMM_WORLD), "resnet").compiled
    assert (compiled is None) == (MPI.COMM_WORLD.size > 1)
