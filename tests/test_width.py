"""The width space: nodes, weights, file order, gather and scatter, on any partition."""

import basix.ufl
import numpy as np
import pytest
import ufl
from dolfinx import fem
from helpers import in_file_order, local, width_space
from mpi4py import MPI

from fem_dnn._dolfinx import create_mesh_in_place
from fem_dnn.width import WidthSpace

pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF
SPACES = [(7, 0), (5, 1), (4, 3), ((3, 4), 0), ((2, 3), 2)]


def shuffled_interval(cells: int, seed: int):
    """An interval whose cells are dealt out at random, in random order and orientation."""
    rng = np.random.default_rng(seed)
    owner = rng.integers(0, WORLD.size, cells)
    owner[: WORLD.size] = np.arange(WORLD.size)  # dolfinx wants a cell on every rank
    order = rng.permutation(cells)
    mine = order[owner[order] == WORLD.rank]
    ends = np.stack([mine, mine + 1], axis=1).astype(np.int64)
    vertices = np.linspace(0, 1, cells + 1)[:, None]
    share = np.array_split(vertices, WORLD.size)[WORLD.rank]
    element = basix.ufl.element("Lagrange", "interval", 1, shape=(1,))
    return create_mesh_in_place(WORLD, ends, share, element)


@pytest.mark.parametrize("degree", [0, 2])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_file_order_does_not_depend_on_the_partition(seed: int, degree: int) -> None:
    shuffled = WidthSpace(shuffled_interval(9, seed), degree)
    plain = width_space(SELF, 9, degree)
    assert np.allclose(shuffled.nodes, plain.nodes, rtol=0, atol=1e-14)
    assert np.allclose(shuffled.node_weights, plain.node_weights, rtol=0, atol=1e-15)
    values = np.random.default_rng(3).standard_normal((2, plain.n_nodes))
    mine = shuffled.from_file_order(values)
    assert np.array_equal(shuffled.to_file_order(mine), values)


@pytest.mark.parametrize(("cells", "degree"), SPACES)
def test_file_order_is_by_coordinate_last_slowest(cells, degree: int) -> None:
    space = width_space(WORLD, cells, degree)
    nodes = space.nodes
    keys = np.round(nodes[:, ::-1], 9).tolist()
    assert keys == sorted(keys)
    assert len({tuple(k) for k in keys}) == space.n_nodes
    assert np.array_equal(space.file_order[space.file_position], np.arange(space.n_nodes))
    # What a rank takes from an array in file order belongs to its own nodes.
    assert np.array_equal(space.from_file_order(nodes, axis=0), space.local_nodes)


def test_cells_of_an_interval_from_left_to_right() -> None:
    space = width_space(WORLD, 6, 0, start=2.0, length=3.0)
    assert np.allclose(space.nodes[:, 0], 2 + 3 * (np.arange(6) + 0.5) / 6, rtol=0, atol=1e-14)
    assert np.allclose(space.node_weights, 0.5, rtol=0, atol=1e-14)
    assert space.dimension == 1


@pytest.mark.parametrize(("cells", "degree"), SPACES)
def test_weights_integrate_polynomials(cells, degree: int) -> None:
    """Gauss-Legendre nodes: exact to degree 2r + 1, so the mass matrix is diagonal."""
    space = width_space(WORLD, cells, degree)
    x = space.nodes
    for power in range(2 * degree + 2):
        integral = space.node_weights @ x[:, -1] ** power
        assert abs(integral - 1 / (power + 1)) < 1e-14
    assert np.all(space.node_weights > 0)
    assert np.allclose(space.sqrt_weights**2, space.weights)


@pytest.mark.parametrize(("cells", "degree"), SPACES)
def test_mass_matrix_is_the_diagonal_of_the_weights(cells, degree: int) -> None:
    space = width_space(WORLD, cells, degree)
    u, v = ufl.TrialFunction(space.function_space), ufl.TestFunction(space.function_space)
    matrix = fem.assemble_matrix(fem.form(u * v * ufl.dx)).to_scipy().toarray()
    n = space.n_local
    # Discontinuous: no entry couples cells, so the rank's own block is all there is.
    assert np.allclose(matrix[:n, :n], np.diag(space.local_weights), rtol=0, atol=1e-15)
    assert np.all(matrix[:n, n:] == 0)


@pytest.mark.parametrize(("cells", "degree"), SPACES)
def test_gather_and_scatter_are_transposes(cells, degree: int) -> None:
    space = width_space(WORLD, cells, degree)
    rng = np.random.default_rng(WORLD.rank)
    f = rng.standard_normal((space.n_local, 3))
    g = rng.standard_normal((space.n_nodes, 3))  # different on every rank
    left = WORLD.allreduce(np.sum(space.gather(f) * g))
    right = WORLD.allreduce(np.sum(f * space.scatter_sum(g)))
    assert abs(left - right) < 1e-13 * abs(left)
    assert np.array_equal(space.gather(f)[space.owned], f)
    assert int(space.counts.sum()) == space.n_nodes
    assert space.sum(np.array(space.n_local)) == space.n_nodes


def test_any_axis_of_an_array() -> None:
    space = width_space(WORLD, 5, 1)
    values = np.random.default_rng(0).standard_normal((2, space.n_nodes, 3))
    mine = space.from_file_order(values, axis=1)
    assert mine.shape == (2, space.n_local, 3)
    assert np.array_equal(space.to_file_order(mine, axis=1), values)
    assert np.array_equal(in_file_order(space, local(space, values[0].T)), values[0].T)
