"""Marking and refinement of depth and width meshes."""

import numpy as np
import pytest
from mpi4py import MPI

from fem_dnn.mesh import MeshArrays, interval, rectangle
from fem_dnn.refinement import bisect, mark, refine
from fem_dnn.width import WidthSpace

SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.55, 0.45]])


def cell_sizes(mesh: MeshArrays) -> np.ndarray:
    space = WidthSpace(mesh.mesh(MPI.COMM_SELF), 0)
    return space.node_weights[space.cell_nodes[:, 0]]


def test_the_fewest_that_make_up_half() -> None:
    assert mark(np.array([1.0, -6.0, 2.0, 3.0])).tolist() == [False, True, False, False]
    assert mark(np.array([1.0, -4.0, 2.0, 3.0])).tolist() == [False, True, False, True]


def test_cells_alike_by_symmetry_are_marked_together() -> None:
    assert mark(np.array([2.0, 1.0, 2.0 * (1 + 1e-9)])).tolist() == [True, False, True]


def test_bisected_points() -> None:
    points = bisect(np.array([0.0, 0.5, 2.0]), np.array([False, True]))
    assert points.tolist() == [0.0, 0.5, 1.25, 2.0]


def test_marked_intervals_are_bisected() -> None:
    mesh = MeshArrays.of(interval(MPI.COMM_SELF, 3, start=1.0, length=3.0))
    finer = refine(mesh, np.array([0.1, 0.1, 5.0]))
    assert np.allclose(finer.points[:, 0], [1.0, 2.0, 3.0, 3.5, 4.0], rtol=0, atol=1e-14)
    assert finer.cells.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]


def test_rectangles_are_graded_by_columns_and_rows() -> None:
    mesh = MeshArrays.of(rectangle(MPI.COMM_SELF, (3, 2), length=(3.0, 2.0)))
    # Cells with the first coordinate fastest: the column 2 < x < 3 and the row 0 < y < 1.
    finer = refine(mesh, np.array([0.0, 0.0, 9.0, 0.0, 0.0, 1.0]))
    assert np.allclose(np.unique(finer.points[:, 0]), [0, 1, 2, 2.5, 3])
    assert np.allclose(np.unique(finer.points[:, 1]), [0, 0.5, 1, 2])
    sizes = cell_sizes(finer)
    assert len(sizes) == 12 and np.isclose(sizes.sum(), 6) and np.isclose(sizes.min(), 0.25)


def test_marked_triangles_are_cut() -> None:
    triangles = np.array([[0, 1, 4], [1, 3, 4], [3, 2, 4], [2, 0, 4]])
    mesh = MeshArrays.sorted("triangle", SQUARE, triangles)
    before = cell_sizes(mesh)
    which = int(np.argmax(before))
    finer = refine(mesh, np.eye(4)[which])
    after = cell_sizes(finer)
    assert np.isclose(after.sum(), 1) and 4 < len(after) < 16
    # Nothing as large is left where it was marked.
    inside = mesh.points[mesh.cells[which]].mean(axis=0)
    centres = finer.points[finer.cells].mean(axis=1)
    nearest = np.argmin(np.linalg.norm(centres - inside, axis=1))
    assert after[nearest] < 0.6 * before[which]


@pytest.mark.parametrize("cell", ["quadrilateral", "hexahedron"])
def test_other_cells_are_all_split(cell: str) -> None:
    corners = np.array([[x, y] for y in (0.0, 1.0, 2.0) for x in (0.0, 1.0)])
    corners[3, 0] = 1.3  # no grid
    cells = np.array([[0, 1, 2, 3], [2, 3, 4, 5]])
    if cell == "hexahedron":
        corners = np.concatenate([np.c_[corners, np.full(6, z)] for z in (0.0, 1.0)])
        cells = np.concatenate([cells, cells + 6], axis=1)
    mesh = MeshArrays.sorted(cell, corners, cells)
    finer = refine(mesh, np.ones(2))
    before, after = cell_sizes(mesh), cell_sizes(finer)
    assert len(after) == 2 * 2 ** corners.shape[1]
    assert np.isclose(after.sum(), before.sum())
    # Every point belongs to the mesh once.
    assert len(np.unique(np.round(finer.points, 9), axis=0)) == len(finer.points)
