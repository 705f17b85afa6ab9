"""L2 projection of functions on Y from one width space onto another.

    (P f, v) = (f, v)  for all v of the target space,    P = M^{-1} C,
    C_ij = int phi_i psi_j dx,   M_ik = int phi_i phi_k dx   (phi: target, psi: source)

One rule serves for C and M, so constants, and all polynomials of the target's degree that the
source holds, are kept to round-off on any pair of meshes.

- Cells that are boxes along the axes (intervals, rectangle grids): the rule lives on the
  intersections of cells and is exact, for any two meshes.
- Other cells: the rule lives on the cells of the finer mesh (the one with more cells), and its
  points are looked for in the other one. Exact where the finer mesh refines the coarser one with
  affine cells. Else a cell that faces of the other mesh cross is integrated up to the jump there,
  which is small for what resembles a smooth function: the error of the projection stays of order
  degree + 1. Points that the other mesh does not cover (curved boundaries) take its nearest cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import basix
import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from fem_dnn.cell_maps import CellMaps
from fem_dnn.mesh import MeshArrays
from fem_dnn.width import width_element

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


class WidthNodes(Protocol):
    """What a projection needs of a width space: `WidthSpace`, or one read from a file."""

    @property
    def mesh_arrays(self) -> MeshArrays:
        """The whole mesh."""

    @property
    def cell_nodes(self) -> Integers:
        """File-order numbers of every cell's nodes, shape (cells, nodes per cell)."""

    @property
    def degree(self) -> int:
        """Polynomial degree."""


@dataclass(frozen=True, eq=False)
class StoredWidth:
    """A width space as result files hold it; attributes as in `WidthNodes`."""

    mesh_arrays: MeshArrays
    cell_nodes: Integers
    degree: int


def width_projection(source: WidthNodes, target: WidthNodes) -> sparse.csr_array:
    """The matrix of the L2 projection from one width space onto another.

    Nodal values in file order go in and come out; the same on every rank and any number of
    ranks (collective only where a `WidthSpace` has not gathered its mesh before).

    Args:
        source: Where functions come from.
        target: Where they go.

    Returns:
        Shape (target nodes, source nodes); rows sum to 1.

    Raises:
        ValueError: The two meshes are not of the same domain.
    """
    _require_same_domain(source.mesh_arrays, target.mesh_arrays)
    places = (CellMaps(source.mesh_arrays), CellMaps(target.mesh_arrays))
    degree = 2 * max(source.degree, target.degree)  # exact for M and C, and for the adjoint's
    if places[0].boxes and places[1].boxes:
        points = _on_intersections(*places, degree)
    else:
        points = _on_the_finer(*places, degree)
    mass, coupling = _moments(source, target, *places, points)
    if not (places[0].boxes and places[1].boxes):
        poor = _poorly_integrated(mass, target, places[1])
        if len(poor):
            # The finer mesh is locally the coarser one: there the target's own cells serve.
            kept = points.keep(~np.isin(points.target_cell, poor))
            points = kept.and_also(_on_target_cells(*places, degree, poor))
            mass, coupling = _moments(source, target, *places, points)
    return _solve(mass, coupling, target)


@dataclass(frozen=True, eq=False)
class _Points:
    """Quadrature points with their cell in either mesh."""

    x: Array
    weights: Array
    source_cell: Integers
    target_cell: Integers

    def keep(self, which: NDArray[np.bool_]) -> _Points:
        return _Points(
            self.x[which], self.weights[which], self.source_cell[which], self.target_cell[which]
        )

    def and_also(self, other: _Points) -> _Points:
        return _Points(
            np.concatenate([self.x, other.x]),
            np.concatenate([self.weights, other.weights]),
            np.concatenate([self.source_cell, other.source_cell]),
            np.concatenate([self.target_cell, other.target_cell]),
        )


def _require_same_domain(source: MeshArrays, target: MeshArrays) -> None:
    """Compare the bounding boxes; curved boundaries are met to a mesh's own accuracy only."""
    if source.points.shape[1] != target.points.shape[1]:
        raise ValueError("the widths differ in dimension")
    straight = all(CellMaps(mesh).boxes for mesh in (source, target))
    size = np.ptp(target.points, axis=0).max()
    tolerance = (1e-8 if straight else 0.1) * size
    low = np.abs(source.points.min(axis=0) - target.points.min(axis=0)).max()
    high = np.abs(source.points.max(axis=0) - target.points.max(axis=0)).max()
    if max(low, high) > tolerance:
        raise ValueError("the widths are different domains")


def _on_intersections(source: CellMaps, target: CellMaps, degree: int) -> _Points:
    """A rule on every intersection of two boxes, exact for the degree in each coordinate."""
    s, t = _overlapping(source, target)
    low = np.maximum(source.low[s], target.low[t])
    sides = np.minimum(source.high[s], target.high[t]) - low
    d = low.shape[1]
    kind = (basix.CellType.interval, basix.CellType.quadrilateral, basix.CellType.hexahedron)[d - 1]
    X, w = basix.make_quadrature(kind, degree)
    x = (low[:, None] + sides[:, None] * X).reshape(-1, d)
    weights = (sides.prod(axis=1)[:, None] * w).ravel()
    covered = np.bincount(t, sides.prod(axis=1), len(target.low))
    if not np.allclose(covered, (target.high - target.low).prod(axis=1), rtol=1e-8, atol=0):
        raise ValueError("the widths are different domains")
    return _Points(x, weights, np.repeat(s, len(w)), np.repeat(t, len(w)))


def _overlapping(source: CellMaps, target: CellMaps) -> tuple[Integers, Integers]:
    """All pairs of boxes, one of either mesh, whose intersection has a volume."""
    order = np.argsort(source.low[:, 0], kind="stable")
    starts = source.low[order, 0]
    widest = (source.high - source.low)[:, 0].max()
    # Boxes that begin within a target's first coordinates, or so little before that they reach it.
    first = np.searchsorted(starts, target.low[:, 0] - widest, side="left")
    count = np.searchsorted(starts, target.high[:, 0], side="left") - first
    t = np.repeat(np.arange(len(first)), count)
    offset = np.arange(len(t)) - np.repeat(np.cumsum(count) - count, count)
    s = order[np.repeat(first, count) + offset]
    sides = np.minimum(source.high[s], target.high[t]) - np.maximum(source.low[s], target.low[t])
    real = (sides > 1e-12 * target.extent).all(axis=1)
    return s[real], t[real]


def _on_the_finer(source: CellMaps, target: CellMaps, degree: int) -> _Points:
    """A rule on the cells of the mesh with more cells."""
    if len(source.low) <= len(target.low):
        return _on_target_cells(source, target, degree, np.arange(len(target.low)))
    x, weights, cell = source.quadrature(degree, np.arange(len(source.low)))
    return _Points(x, weights, cell, target.locate(x))


def _on_target_cells(source: CellMaps, target: CellMaps, degree: int, cells: Integers) -> _Points:
    """A rule on given cells of the target."""
    x, weights, cell = target.quadrature(degree, cells)
    return _Points(x, weights, source.locate(x), cell)


def _moments(
    source: WidthNodes,
    target: WidthNodes,
    of_source: CellMaps,
    of_target: CellMaps,
    points: _Points,
) -> tuple[Array, sparse.csr_array]:
    """M in blocks, shape (cells, nodes per cell, nodes per cell), and C, both by the rule."""
    there = _basis(source, of_source, points.source_cell, points.x)
    here = _basis(target, of_target, points.target_cell, points.x)
    weighted = points.weights[:, None] * here
    mass = np.zeros((len(target.cell_nodes), here.shape[1], here.shape[1]))
    np.add.at(mass, points.target_cell, weighted[:, :, None] * here[:, None])
    entries = weighted[:, :, None] * there[:, None]
    rows = target.cell_nodes[points.target_cell][:, :, None]
    columns = source.cell_nodes[points.source_cell][:, None]
    rows, columns = np.broadcast_arrays(rows, columns)
    shape = (target.cell_nodes.size, source.cell_nodes.size)
    coupling = sparse.coo_array((entries.ravel(), (rows.ravel(), columns.ravel())), shape=shape)
    return mass, coupling.tocsr()


def _basis(space: WidthNodes, maps: CellMaps, cells: Integers, x: Array) -> Array:
    """Nodal basis functions of each point's cell there, shape (points, nodes per cell)."""
    element = width_element(space.mesh_arrays.cell, space.degree)
    values: Array = element.tabulate(0, maps.pull_back(cells, x))[0]
    return values


def _poorly_integrated(mass: Array, target: WidthNodes, maps: CellMaps) -> Integers:
    """Target cells whose mass matrix the rule gets wrong by more than a factor of two."""
    n_cells, per_cell = len(target.cell_nodes), target.cell_nodes.shape[1]
    x, weights, cell = maps.quadrature(2 * target.degree, np.arange(n_cells))
    basis = _basis(target, maps, cell, x)
    exact = np.zeros((n_cells, per_cell, per_cell))
    np.add.at(exact, cell, (weights[:, None] * basis)[:, :, None] * basis[:, None])
    root = np.linalg.inv(np.linalg.cholesky(exact))
    eigenvalues = np.linalg.eigvalsh(root @ mass @ root.transpose(0, 2, 1))
    return np.flatnonzero((eigenvalues[:, 0] < 0.5) | (eigenvalues[:, -1] > 2))


def _solve(mass: Array, coupling: sparse.csr_array, target: WidthNodes) -> sparse.csr_array:
    """M^{-1} C, without entries that are round-off."""
    nodes = target.cell_nodes
    rows, columns = np.broadcast_arrays(nodes[:, :, None], nodes[:, None])
    inverse = sparse.coo_array(
        (np.linalg.inv(mass).ravel(), (rows.ravel(), columns.ravel())), shape=(nodes.size,) * 2
    )
    projection = (inverse.tocsr() @ coupling).tocsr()
    projection.data[np.abs(projection.data) < 1e-14] = 0
    projection.eliminate_zeros()
    return projection
