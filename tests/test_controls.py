"""The control vector: L2-orthonormal, the same on any number of ranks, masks left out."""

import numpy as np
import pytest
from helpers import everywhere, make_network, random_control, random_problem, relative, width_space
from mpi4py import MPI

from fem_dnn.controls import ControlSpace, ControlValues

pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF


def control_space(comm=WORLD, cells=4, degree=1, scheme="dg1", **options) -> ControlSpace:
    network = make_network(width_space(comm, cells, degree), scheme)
    return ControlSpace(network.space, network.levels, **options)


def some_values(controls: ControlSpace, seed: int = 0) -> ControlValues:
    rng = np.random.default_rng(seed)
    count, N, K = controls.levels.count, controls.space.n_nodes, controls.outputs
    return ControlValues(
        rng.standard_normal((count, N, N)),
        rng.standard_normal((count, N)),
        rng.standard_normal((K, N)),
        rng.standard_normal(K),
    )


@pytest.mark.parametrize("cells", [4, (2, 3)])
def test_values_and_coordinates_are_inverse(cells) -> None:
    controls = control_space(cells=cells, outputs=2)
    values = some_values(controls)
    back = controls.values(controls.coordinates(values))
    for name in ("kernel", "bias", "outputs", "offsets"):
        assert relative(getattr(back, name), getattr(values, name)) < 1e-14


def test_euclidean_means_l2() -> None:
    controls = control_space(outputs=2)
    v, w = some_values(controls, 0), some_values(controls, 1)
    h, omega = controls.space.node_weights, controls.levels.weights
    expected = (
        np.einsum("k,x,y,kxy,kxy->", omega, h, h, v.kernel, w.kernel)
        + np.einsum("k,x,kx,kx->", omega, h, v.bias, w.bias)
        + np.einsum("x,kx,kx->", h, v.outputs, w.outputs)
        + v.offsets @ w.offsets
    )
    a, b = controls.coordinates(v), controls.coordinates(w)
    assert abs(controls.dot(a, b) - expected) < 1e-13 * controls.norm(a) * controls.norm(b)
    assert abs(controls.norm(a) - np.sqrt(controls.dot(a, a))) < 1e-14


def test_sizes_and_absent_parts() -> None:
    controls = control_space(kernel=False, outputs=0)
    assert controls.n_global == controls.levels.count * controls.space.n_nodes
    values = controls.values(controls.constant(kernel=3.0, bias=2.0))
    assert values.kernel is None and values.outputs is None and values.offsets is None
    assert np.allclose(values.bias, 2.0, rtol=0, atol=1e-14)
    only_kernel = control_space(bias=False)
    values = only_kernel.values(only_kernel.constant(kernel=3.0))
    assert values.bias is None
    assert np.allclose(values.kernel, 3.0, rtol=0, atol=1e-13)
    assert control_space(outputs=2).n_global == (
        controls.n_global + only_kernel.n_global + 2 * controls.space.n_nodes + 2
    )


def test_split_shares_memory_and_join_is_its_inverse() -> None:
    controls = control_space(outputs=2)
    vector = controls.coordinates(some_values(controls))
    parts = controls.split(vector)
    assert np.shares_memory(parts.kernel, vector)  # kernels are big: no copy
    assert np.shares_memory(parts.bias, vector)
    assert np.array_equal(controls.join(parts), vector)
    # Every rank knows the offsets, though one holds them.
    assert len({tuple(o) for o in WORLD.allgather(parts.offsets)}) == 1


def test_masked_entries_are_no_unknowns() -> None:
    N = 8
    mask = np.random.default_rng(1).integers(0, 2, (N, N))
    controls = control_space(mask=mask)
    count = controls.levels.count
    assert controls.n_global == count * (mask.sum() + N)
    kernel = controls.values(controls.random(0)).kernel
    assert np.all((kernel != 0) == (mask == 1))
    free = control_space().values(control_space().random(0)).kernel
    assert np.array_equal(kernel, np.where(mask, kernel, 0))
    assert np.allclose(kernel, np.where(mask, free, 0), rtol=1e-14)
    vector = controls.random(0)
    assert np.array_equal(controls.join(controls.split(vector)), vector)


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_random_is_what_the_contract_says(scale: float) -> None:
    """scale * default_rng(seed).standard_normal: kernel [level, x, y], then bias, file order."""
    controls = control_space()
    rng = np.random.default_rng(42)
    count, N = controls.levels.count, controls.space.n_nodes
    values = controls.values(controls.random(42, scale))
    assert relative(values.kernel, scale * rng.standard_normal((count, N, N))) < 1e-14
    assert relative(values.bias, scale * rng.standard_normal((count, N))) < 1e-14


def test_same_on_any_number_of_ranks() -> None:
    shared, alone = (
        random_problem(comm, loss="mse", learn_outputs=True, mask=True) for comm in (WORLD, SELF)
    )
    assert shared.controls.n_global == alone.controls.n_global
    for make in (
        random_control,
        lambda p: p.controls.random_direction(7),
        lambda p: p.controls.constant(0.3, -0.2),
    ):
        a, b = make(shared), make(alone)
        assert relative(everywhere(shared, a), everywhere(alone, b)) < 1e-14
        assert abs(shared.controls.norm(a) - alone.controls.norm(b)) < 1e-13
    direction = shared.controls.random_direction(7)
    assert abs(shared.controls.norm(direction) - 1) < 1e-14


def test_any_rank() -> None:
    controls = control_space()
    last = WORLD.rank == WORLD.size - 1
    assert controls.any_rank(last)
    assert not controls.any_rank(False)
