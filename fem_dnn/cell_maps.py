"""The cells of a width mesh, all at once: maps to the reference cell, quadrature, location.

Works on `MeshArrays`, so every rank computes the same without communication.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import basix
import basix.ufl
import numpy as np
from dolfinx import geometry
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.mesh import MeshArrays

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

SIMPLICES = ("triangle", "tetrahedron")
NEWTON_STEPS = 30


@dataclass(frozen=True, eq=False)
class CellMaps:
    """x = F_c(X) for every cell c of a mesh.

    Attributes:
        mesh: The mesh.
    """

    mesh: MeshArrays

    @cached_property
    def corners(self) -> Array:
        """Coordinates of every cell's points, shape (cells, points per cell, d)."""
        return self.mesh.points[self.mesh.cells]

    @cached_property
    def extent(self) -> float:
        """Largest side of the mesh's bounding box."""
        return float(np.ptp(self.mesh.points, axis=0).max())

    @cached_property
    def low(self) -> Array:
        """Lowest corner of every cell's bounding box, shape (cells, d)."""
        return self.corners.min(axis=1)

    @cached_property
    def high(self) -> Array:
        """Highest corner of every cell's bounding box, shape (cells, d)."""
        return self.corners.max(axis=1)

    @cached_property
    def _element(self) -> basix.ufl._ElementBase:
        return basix.ufl.element("Lagrange", self.mesh.cell, self.mesh.degree)

    @cached_property
    def affine(self) -> bool:
        """Whether every F_c is affine: straight simplices, parallelepipeds."""
        if self.mesh.degree > 1:
            return False
        reference = basix.geometry(basix.CellType[self.mesh.cell])
        edges = self.corners[:, [1 << i for i in range(self.mesh.points.shape[1])]]
        if self.mesh.cell in SIMPLICES:
            return True
        first = self.corners[:, :1]
        flat = first + np.einsum("vi,cid->cvd", reference, edges - first)
        return bool(np.abs(flat - self.corners).max() <= 1e-12 * self.extent)

    @cached_property
    def boxes(self) -> bool:
        """Whether every cell is a box with sides along the axes."""
        if self.mesh.cell in SIMPLICES or not self.affine:
            return False
        low, high = self.low[:, None], self.high[:, None]
        off = np.minimum(self.corners - low, high - self.corners)
        return bool(off.max() <= 1e-12 * self.extent)

    def push_forward(self, cells: Integers, reference: Array) -> tuple[Array, Array]:
        """x = F_c(X) and the derivative of F_c, for one cell per point.

        Args:
            cells: Shape (points,).
            reference: X, shape (points, d).

        Returns:
            x, shape (points, d), and DF_c(X), shape (points, d, d).
        """
        table = self._element.tabulate(1, reference)
        corners = self.corners[cells]
        x = np.einsum("pv,pvd->pd", table[0], corners)
        return x, np.einsum("ipv,pvd->pdi", table[1:], corners)

    def pull_back(self, cells: Integers, x: Array) -> Array:
        """X with F_c(X) = x, by Newton's method (one step where F_c is affine)."""
        d = x.shape[1]
        middle = np.full(d, 1 / (d + 1) if self.mesh.cell in SIMPLICES else 0.5)
        X = np.tile(middle, (len(x), 1))
        for _ in range(NEWTON_STEPS):
            at, derivative = self.push_forward(cells, X)
            step = np.linalg.solve(derivative, (x - at)[:, :, None])[:, :, 0]
            X = X + step
            if self.affine or not len(X) or np.abs(step).max() < 1e-14:
                break
        return X

    def outside(self, reference: Array) -> Array:
        """How far X is out of the reference cell; at most 0 inside. Shape (points,)."""
        if self.mesh.cell in SIMPLICES:
            return np.maximum(-reference.min(axis=1), reference.sum(axis=1) - 1)
        return np.maximum(-reference, reference - 1).max(axis=1)

    def quadrature(self, degree: int, cells: Integers) -> tuple[Array, Array, Integers]:
        """A rule on cells that is exact for polynomials of the given degree in X.

        Returns:
            Points (points, d), weights (points,), and the cell of each point (points,).
        """
        # The Jacobian's determinant is a polynomial too.
        d = self.mesh.points.shape[1]
        degree += 0 if self.affine else d * self.mesh.degree
        X, w = basix.make_quadrature(basix.CellType[self.mesh.cell], degree)
        owner = np.repeat(cells, len(w))
        x, derivative = self.push_forward(owner, np.tile(X, (len(cells), 1)))
        return x, np.tile(w, len(cells)) * np.abs(np.linalg.det(derivative)), owner

    def locate(self, x: Array) -> Integers:
        """The cell that holds each point; outside of the mesh (curved boundaries) the nearest.

        Args:
            x: Points, shape (points, d).
        """
        serial = self.mesh.mesh(MPI.COMM_SELF)
        dimension = serial.topology.dim
        points = np.zeros((len(x), 3))
        points[:, : x.shape[1]] = x
        tree = geometry.bb_tree(serial, dimension, padding=1e-10 * self.extent)
        collisions = geometry.compute_collisions_points(tree, points)
        numbers = np.asarray(serial.topology.original_cell_index, dtype=np.int64)
        found = np.full(len(x), -1)
        point = np.repeat(np.arange(len(x)), np.diff(collisions.offsets))
        cell = numbers[collisions.array]
        if len(point):
            out = self.outside(self.pull_back(cell, x[point]))
            order = np.lexsort((cell, np.round(out, 9), point))
            first = order[np.unique(point[order], return_index=True)[1]]
            inside = first[out[first] <= 1e-8]
            found[point[inside]] = cell[inside]
        lost = np.flatnonzero(found < 0)
        if len(lost):
            entities = np.arange(len(self.mesh.cells), dtype=np.int32)
            middles = geometry.create_midpoint_tree(serial, dimension, entities)
            nearest = geometry.compute_closest_entity(tree, middles, serial, points[lost])
            found[lost] = numbers[nearest]
        return found
