"""Refinement of depth and width meshes: where indicators are large, cells are cut.

Marking is that of W. Doerfler, SIAM J. Numer. Anal. 33 (1996): the fewest cells whose indicators
make up a given part of their sum. All functions are of one process and plain arrays.
"""

from __future__ import annotations

from itertools import product

import basix
import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn._dolfinx import refine_marked
from fem_dnn.mesh import MeshArrays

Array = NDArray[np.float64]
Marks = NDArray[np.bool_]

PART = 0.5
"""Part of the sum of indicators that marked cells make up."""


def mark(indicators: Array, part: float = PART) -> Marks:
    """The fewest entries whose moduli sum up to a part of the whole; all those alike together."""
    size = np.abs(indicators)
    order = np.argsort(-size, kind="stable")
    needed = int(np.searchsorted(np.cumsum(size[order]), part * size.sum())) + 1
    # Round-off must not decide between cells that are equal by symmetry.
    return np.asarray(size >= (1 - 1e-6) * size[order[min(needed, len(size)) - 1]])


def bisect(points: Array, marks: Marks) -> Array:
    """Points with the middles of marked intervals added, shape (intervals + marked + 1,)."""
    middles = 0.5 * (points[:-1] + points[1:])
    return np.sort(np.concatenate([points, middles[marks]]))


def refine(mesh: MeshArrays, indicators: Array) -> MeshArrays:
    """A finer mesh whose cells lie in the mesh's cells.

    Intervals: marked cells are bisected. Rectangular grids: marked columns and rows. Triangles and
    tetrahedra: marked cells are cut, with what is needed to close the mesh. Others: all cells.

    Args:
        mesh: A mesh of degree 1.
        indicators: One per cell.
    """
    if mesh.cell == "interval":
        grid = np.sort(mesh.points[:, 0])
        return _grid(mesh.cell, [bisect(grid, mark(indicators))])
    if mesh.cell in ("triangle", "tetrahedron"):
        return MeshArrays.of(refine_marked(mesh.mesh(MPI.COMM_SELF), mark(indicators)))
    axes = [_distinct(mesh.points[:, k]) for k in range(mesh.points.shape[1])]
    if np.prod([len(axis) - 1 for axis in axes]) == len(mesh.cells):
        # The cells of a grid are ordered by centre, the first coordinate fastest.
        size = np.abs(indicators).reshape([len(axis) - 1 for axis in axes[::-1]])
        dimension = len(axes)
        return _grid(
            mesh.cell,
            [
                bisect(
                    axis, mark(size.sum(axis=tuple(set(range(dimension)) - {dimension - 1 - k})))
                )
                for k, axis in enumerate(axes)
            ],
        )
    return _split_all(mesh)


def _distinct(values: Array) -> Array:
    values = np.sort(values)
    return values[np.r_[True, np.diff(values) > 1e-10 * (values[-1] - values[0])]]


def _grid(cell: str, axes: list[Array]) -> MeshArrays:
    """The grid with the given points along each axis."""
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
    numbers = np.arange(len(points)).reshape([len(axis) for axis in axes])
    corners = _corners(len(axes))
    cells = [
        numbers[tuple(slice(c, c + n - 1) for c, n in zip(corner, numbers.shape, strict=True))]
        for corner in corners
    ]
    return MeshArrays.sorted(cell, points, np.stack([c.ravel() for c in cells], axis=1))


def _corners(dimension: int) -> list[tuple[int, ...]]:
    """Vertices of the reference interval, quadrilateral or hexahedron in dolfinx's order."""
    return [corner[::-1] for corner in product((0, 1), repeat=dimension)]


def _split_all(mesh: MeshArrays) -> MeshArrays:
    """Every quadrilateral or hexahedron in 2^d, by its own map."""
    dimension = mesh.points.shape[1]
    corners = np.array(_corners(dimension), dtype=float)
    cell_type = getattr(basix.CellType, mesh.cell)
    element = basix.create_element(
        basix.ElementFamily.P, cell_type, 1, basix.LagrangeVariant.gll_warped
    )
    pieces = []
    for corner in corners:
        values = element.tabulate(0, 0.5 * (corners + corner))[0, :, :, 0]
        pieces.append(np.einsum("vp,cpd->cvd", values, mesh.points[mesh.cells]))
    vertices = np.stack(pieces, axis=1).reshape(-1, dimension)
    extent = np.ptp(vertices, axis=0).max()
    _, first, inverse = np.unique(
        np.round(vertices / extent, 10) + 0.0, axis=0, return_index=True, return_inverse=True
    )
    cells = inverse.reshape(-1, 2**dimension).astype(np.int64)
    return MeshArrays.sorted(mesh.cell, vertices[first], cells)
