"""The state equation: invariants of theory.md section 1, tangents, tracking points, ranks."""

import numpy as np
import pytest
from helpers import (
    GRADED,
    in_file_order,
    layer_weights,
    local,
    make_network,
    random_weights,
    relative,
    width_space,
)
from mpi4py import MPI

from fem_dnn.activations import ACTIVATIONS
from fem_dnn.depth import SCHEMES
from fem_dnn.network import LayerWeights
from fem_dnn.state import solve_state, solve_tangent

pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF


def inputs_of(space, samples: int = 3, seed: int = 0):
    return local(space, np.random.default_rng(seed).standard_normal((samples, space.n_nodes)))


def solve(comm, scheme, activation="tanh", cells=5, degree=0, **options):
    space = width_space(comm, cells, degree)
    network = make_network(space, scheme, activation)
    weights = random_weights(network, 2)
    return network, weights, solve_state(network, weights, inputs_of(space), **options)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_invariants(scheme: str, activation: str) -> None:
    """tanh: |f - f_I| < t; sigmoid: 0 < f - f_I < t; ReLU: f never falls."""
    _, _, state = solve(WORLD, scheme, activation)
    change = state.ends[1:] - state.ends[0]
    t = GRADED[1:, None, None]
    if activation == "tanh":
        assert np.all(np.abs(change) < t)
    elif activation == "sigmoid":
        assert np.all((change > 0) & (change < t))
    else:
        assert np.all(change >= -1e-14)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_gronwall_bound(scheme: str) -> None:
    """|f(t)| <= (|f_I| + int |b|) exp(int |a|) for tanh, in L2 with Hilbert-Schmidt kernels."""
    network, weights, state = solve(WORLD, scheme)
    space, omega = network.space, network.levels.weights
    norms = np.sqrt(space.sum(np.einsum("n,kns->ks", space.local_weights, state.ends**2)))
    b = np.sqrt(space.sum(space.local_weights @ weights.bias[:, :, 0].T ** 2))
    # Coefficients carry the root of omega.
    a = np.sqrt(space.sum(np.sum(weights.operator.coefficients**2, axis=(1, 2))) / omega)
    bound = (norms[0] + omega @ b) * np.exp(omega @ a)
    assert np.all(norms <= bound)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_identical_samples_stay_identical(scheme: str) -> None:
    space = width_space(WORLD, 5, 0)
    network = make_network(space, scheme)
    inputs = inputs_of(space)
    inputs[:, 2] = inputs[:, 0]
    ends = solve_state(network, random_weights(network, 2), inputs).ends
    assert np.allclose(ends[:, :, 2], ends[:, :, 0], rtol=0, atol=1e-14)
    assert np.max(np.abs(ends[:, :, 1] - ends[:, :, 0]), initial=0) > 1e-2


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("cells", [5, (2, 3)])
def test_same_on_any_number_of_ranks(scheme: str, cells) -> None:
    shared, alone = (solve(comm, scheme, cells=cells, tracked=True) for comm in (WORLD, SELF))
    for name in ("ends", "u", "slope", "tracked"):
        a = in_file_order(shared[0].space, getattr(shared[2], name))
        b = in_file_order(alone[0].space, getattr(alone[2], name))
        assert relative(a, b) < 1e-13
    rows = shared[2].gathered[:, shared[0].space.file_order]
    assert relative(rows, alone[2].gathered[:, alone[0].space.file_order]) < 1e-13


@pytest.mark.parametrize("scheme", SCHEMES)
def test_tracking_points(scheme: str) -> None:
    """With a constant bias alone the state is linear in t, and read where theory.md says."""
    space = width_space(WORLD, 3, 0)
    network = make_network(space, scheme, "linear")
    levels = network.levels
    bias = np.tile([1.0, -2.0, 0.5], (levels.count, 1))
    inputs = inputs_of(space)
    state = solve_state(network, layer_weights(network, bias=bias), inputs, tracked=True)
    assert state.gathered is None
    slope = local(space, bias[:1])
    # dg0: a piecewise constant takes its outgoing value throughout the slab.
    t = GRADED[1:] if scheme == "dg0" else levels.tracking_t
    assert np.allclose(state.tracked, inputs + t[:, None, None] * slope, rtol=0, atol=1e-14)
    assert np.allclose(state.ends, inputs + GRADED[:, None, None] * slope, rtol=0, atol=1e-14)


def test_resnet_is_tracked_along_the_interpolant_of_the_slab_ends() -> None:
    _, _, state = solve(WORLD, "resnet", tracked=True)
    assert np.allclose(state.tracked, (state.ends[1:] + state.ends[:-1]) / 2, rtol=0, atol=1e-15)


@pytest.mark.parametrize("degree", [1, 2])
def test_dg_is_tracked_at_its_levels(degree: int) -> None:
    network, _, state = solve(WORLD, f"dg{degree}", tracked=True)
    space = network.space
    at_levels = state.gathered[:, space.owned] / space.sqrt_weights[space.owned, None]
    assert np.allclose(state.tracked, at_levels, rtol=0, atol=1e-13)


@pytest.mark.parametrize("parts", ["kernel", "bias", "both"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_tangent_is_the_derivative(scheme: str, parts: str) -> None:
    """Central differences of the state: their error is of order e^2 = 1e-8."""
    network, weights, state = solve(WORLD, scheme, tracked=True)
    change = random_weights(network, 9)
    if parts != "both":
        change = LayerWeights(
            change.operator if parts == "kernel" else None,
            change.bias if parts == "bias" else None,
        )
    tangent = solve_tangent(network, weights, state, change)

    def moved(e: float):
        K = type(weights.operator)(
            network.space, network.levels.weights, weights.operator.coefficients.copy()
        )
        b = weights.bias.copy()
        if change.operator is not None:
            K.coefficients += e * change.operator.coefficients
        if change.bias is not None:
            b += e * change.bias
        return solve_state(network, LayerWeights(K, b), state.ends[0], tracked=True)

    e = 1e-4
    up, down = moved(e), moved(-e)
    for name in ("ends", "u", "tracked", "gathered"):
        difference = (getattr(up, name) - getattr(down, name)) / (2 * e)
        assert np.allclose(getattr(tangent, name), difference, rtol=0, atol=1e-6)
    assert not tangent.ends[0].any()


def test_no_controls_at_all() -> None:
    """u = 0: the state moves with sigma(0)."""
    space = width_space(WORLD, 3, 0)
    network = make_network(space, "dg1", "sigmoid")
    inputs = inputs_of(space)
    state = solve_state(network, LayerWeights(None, None), inputs)
    half = ACTIVATIONS["sigmoid"](np.zeros(1))[0]
    assert np.allclose(state.ends[-1], inputs + half * GRADED[-1], rtol=0, atol=1e-14)
