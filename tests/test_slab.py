"""Implicit slabs: solved to round-off in few applications, or a clear failure on all ranks."""

import numpy as np
import pytest
from helpers import make_network, random_weights, width_space
from mpi4py import MPI

from fem_dnn.depth import SCHEMES
from fem_dnn.slab import MAX_ITERATIONS, SlabFailure, combine, solve_stages
from fem_dnn.state import solve_state

pytestmark = pytest.mark.mpi

WORLD = MPI.COMM_WORLD
DG = ["dg0", "dg1", "dg2"]


def total(x):
    return WORLD.allreduce(x)


def test_combine_is_the_tensor_product() -> None:
    rng = np.random.default_rng(0)
    levels = rng.standard_normal((3, 4, 2))
    for coefficients in (rng.standard_normal(3), rng.standard_normal((5, 3))):
        expected = np.tensordot(coefficients, levels, axes=1)
        assert np.allclose(combine(coefficients, levels), expected, rtol=1e-14)


@pytest.mark.parametrize("size", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", DG)
def test_linear_slab_in_few_iterations(name: str, size: float) -> None:
    """tau |a| = size < 1, the same matrix on every rank: compared with a direct solution."""
    rng = np.random.default_rng(1)
    n, samples, tau = 6, 4, 0.5
    a = rng.standard_normal((n, n))
    a *= size / tau / np.linalg.norm(a, 2)
    A = SCHEMES[name].stages
    start = np.broadcast_to(rng.standard_normal((n, samples)), (len(A), n, samples))
    calls = 0

    def slopes(Y):
        nonlocal calls
        calls += 1
        return a @ Y

    Y, z = solve_stages(A, (1.0, 1.0 + tau), start, slopes, np.zeros(start.shape), total)
    system = np.eye(len(A) * n) - tau * np.kron(A, a)
    exact = np.linalg.solve(system, start.reshape(-1, samples)).reshape(start.shape)
    assert np.max(np.abs(Y - exact)) < 1e-13
    assert np.max(np.abs(z - a @ exact)) < 1e-13
    assert calls <= {0.1: 14, 0.5: 25, 0.9: 35}[size]


def test_explicit_slab_needs_one_evaluation() -> None:
    start = np.ones((1, 3, 2))
    calls = []
    Y, z = solve_stages(
        SCHEMES["resnet"].stages,
        (0.0, 1.0),
        start,
        lambda Y: calls.append(1) or 2 * Y,
        np.zeros(start.shape),
        total,
    )
    assert len(calls) == 1
    assert np.array_equal(Y, start) and np.array_equal(z, 2 * start)


@pytest.mark.parametrize("name", DG)
def test_stages_satisfy_their_equation(name: str) -> None:
    """On the nonlinear network: F = f_n + tau A sigma(U), to round-off, on every slab."""
    space = width_space(WORLD, 6, 0)
    network = make_network(space, name, "tanh")
    weights = random_weights(network, 2)
    inputs = space.from_file_order(np.random.default_rng(0).standard_normal((6, 3)), axis=0)
    state = solve_state(network, weights, inputs)
    scheme = network.levels.scheme
    for n, tau in enumerate(network.levels.steps):
        slab = network.levels.of_slab(n)
        z = np.tanh(state.u[slab.start : slab.stop])
        F = state.ends[n] + tau * np.tensordot(scheme.stages, z, axes=1)
        for i, level in enumerate(slab):
            u = weights.operator.apply(level, weights.operator.gather(F[i])) + weights.bias[level]
            assert np.allclose(u, state.u[level], rtol=0, atol=1e-13)
        end = state.ends[n] + tau * np.tensordot(scheme.weights, z, axes=1)
        assert np.allclose(end, state.ends[n + 1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", DG)
def test_zero_is_a_solution(name: str) -> None:
    """No division by a norm that vanishes."""
    start = np.zeros((SCHEMES[name].levels, 3, 2))
    Y, _ = solve_stages(
        SCHEMES[name].stages, (0.0, 1.0), start, lambda Y: 0.5 * Y, np.zeros(start.shape), total
    )
    assert not Y.any()


@pytest.mark.parametrize("name", DG)
def test_hopeless_slab_fails_alike_on_all_ranks(name: str) -> None:
    space = width_space(WORLD, 6, 0)
    network = make_network(space, name, "softplus", points=[0.0, 0.25, 1.0])
    weights = random_weights(network, 2)
    # A kernel that is huge in the second slab only, the same in file order on any ranks.
    weights.operator.coefficients[network.levels.of_slab(1).start :] *= 1e4
    inputs = space.from_file_order(np.random.default_rng(0).standard_normal((6, 3)), axis=0)
    with pytest.raises(SlabFailure) as failure:
        solve_state(network, weights, inputs)
    text = str(failure.value)
    assert "from depth 0.25 to 1 " in text
    assert "use more layers (mesh.depth.cells)" in text
    assert (failure.value.start, failure.value.end) == (0.25, 1.0)
    assert failure.value.residual > 1e-12
    assert len(set(WORLD.allgather(text))) == 1
    WORLD.barrier()  # and nobody is left waiting inside the sweep


def test_blow_up_fails_at_once() -> None:
    """Slopes that are not finite end the iteration, they are not iterated on."""
    calls = []

    def slopes(Y):
        calls.append(1)
        return np.full_like(Y, np.nan)

    start = np.ones((2, 3, 1))
    with pytest.raises(SlabFailure):
        solve_stages(SCHEMES["dg1"].stages, (0.0, 1.0), start, slopes, np.zeros(start.shape), total)
    assert len(calls) < MAX_ITERATIONS
