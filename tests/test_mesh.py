"""Width meshes, and the depth-width cylinder over them."""

import dolfinx
import numpy as np
import pytest
import ufl
from dolfinx import fem
from mpi4py import MPI

from fem_dnn.mesh import DepthWidthMesh, interval, rectangle

pytestmark = pytest.mark.mpi

WORLD = MPI.COMM_WORLD
POINTS = np.array([0.0, 0.2, 0.5, 1.3])
WIDTHS = {
    "interval": lambda: interval(WORLD, 7, start=-1.0, length=2.5),
    "rectangle": lambda: rectangle(WORLD, (3, 4), start=(1.0, 0.0), length=(1.5, 2.0)),
}
VOLUMES = {"interval": 2.5, "rectangle": 3.0}


def integrate(mesh: dolfinx.mesh.Mesh, expression) -> float:
    return WORLD.allreduce(fem.assemble_scalar(fem.form(expression * ufl.dx(domain=mesh))))


def centroids(mesh: dolfinx.mesh.Mesh, cells: np.ndarray) -> np.ndarray:
    return dolfinx.mesh.compute_midpoints(mesh, mesh.topology.dim, cells.astype(np.int32))


@pytest.mark.parametrize("width", WIDTHS)
def test_width_mesh_fills_its_domain(width: str) -> None:
    mesh = WIDTHS[width]()
    x = ufl.SpatialCoordinate(mesh)
    assert abs(integrate(mesh, 1 + 0 * x[0]) - VOLUMES[width]) < 1e-13
    low = {"interval": -1.0, "rectangle": 1.0}[width]
    length = {"interval": 2.5, "rectangle": 1.5}[width]
    first_moment = VOLUMES[width] * (low + length / 2)
    assert abs(integrate(mesh, x[0]) - first_moment) < 1e-13


def test_cells_are_dealt_out_evenly_and_in_order() -> None:
    mesh = interval(WORLD, 11)
    n = mesh.topology.index_map(1).size_local
    middles = centroids(mesh, np.arange(n))[:, 0]
    counts, everything = WORLD.allgather(n), np.concatenate(WORLD.allgather(np.sort(middles)))
    assert max(counts) - min(counts) <= 1
    assert np.allclose(everything, (np.arange(11) + 0.5) / 11)


@pytest.mark.parametrize("width", WIDTHS)
def test_cylinder_is_the_product(width: str) -> None:
    """Volume, and moments in depth, of Y x (0, T)."""
    mesh = DepthWidthMesh(WIDTHS[width](), POINTS)
    cylinder = mesh.cylinder
    x = ufl.SpatialCoordinate(cylinder)
    t = x[len(x) - 1]
    assert cylinder.topology.dim == mesh.width.topology.dim + 1
    assert abs(integrate(cylinder, 1 + 0 * t) - VOLUMES[width] * 1.3) < 1e-13
    assert abs(integrate(cylinder, t) - VOLUMES[width] * 1.3**2 / 2) < 1e-13
    total = cylinder.topology.index_map(cylinder.topology.dim).size_global
    base = mesh.width.topology.index_map(mesh.width.topology.dim).size_global
    assert total == base * mesh.layers


@pytest.mark.parametrize("width", WIDTHS)
def test_columns_are_whole(width: str) -> None:
    """Every rank has all slabs over its width cells, and knows which cell is which."""
    mesh = DepthWidthMesh(WIDTHS[width](), POINTS)
    d = mesh.width.geometry.dim
    n_cells = mesh.width.topology.index_map(d).size_local
    assert mesh.columns.shape == (n_cells, mesh.layers)
    owned = mesh.cylinder.topology.index_map(d + 1).size_local
    assert np.array_equal(np.sort(mesh.columns.ravel()), np.arange(owned))
    middles = centroids(mesh.cylinder, mesh.columns.ravel()).reshape(n_cells, mesh.layers, 3)
    base = centroids(mesh.width, np.arange(n_cells))
    assert np.allclose(middles[:, :, :d], base[:, None, :d], rtol=0, atol=1e-14)
    assert np.allclose(middles[:, :, d], (POINTS[:-1] + POINTS[1:]) / 2, rtol=0, atol=1e-14)


def test_uniform_depth() -> None:
    mesh = DepthWidthMesh.uniform(interval(WORLD, 4), depth=0.7, layers=7)
    assert (mesh.layers, mesh.depth) == (7, 0.7)
    assert np.allclose(mesh.steps, 0.1)
    assert mesh.comm.size == WORLD.size
    with pytest.raises(ValueError, match="read-only"):
        mesh.depth_points[0] = 1.0


@pytest.mark.parametrize(
    "points", [[0.0], [0.1, 1.0], [0.0, 0.5, 0.5], [0.0, 1.0, 0.5], [[0.0, 1.0]], [0.0, np.nan]]
)
def test_refuses_bad_depth_points(points: list) -> None:
    with pytest.raises(ValueError, match="increase strictly from 0"):
        DepthWidthMesh(interval(WORLD, 2), np.array(points))


def test_triangles_have_no_cylinder() -> None:
    mesh = DepthWidthMesh(dolfinx.mesh.create_unit_square(WORLD, 2, 2), POINTS)
    assert not mesh.extrudable
    with pytest.raises(ValueError, match="cannot extrude triangle"):
        mesh.cylinder  # noqa: B018
