"""Where errors are measured: quadratures in width and depth, and refinement families of domains.

A discontinuous function with its nodes at Gauss points may be exact there to a higher order than it
is in L2: errors are measured between the nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import basix
import basix.ufl
import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.depth import DepthLevels, gauss_legendre, lagrange_basis
from fem_dnn.mesh import MeshArrays, interval, rectangle
from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Quadrature:
    """A quadrature on Y and the width space's functions at its points.

    Attributes:
        points: Shape (points, d).
        weights: Shape (points,).
        cell_nodes: File-order numbers of each cell's nodes, shape (cells, nodes per cell).
        basis: Basis functions of a cell at its points, shape (points per cell, nodes per cell).
    """

    points: Array
    weights: Array
    cell_nodes: NDArray[np.int64]
    basis: Array

    @classmethod
    def nodal(cls, space: WidthSpace) -> Quadrature:
        """The space's own: in this measure the discretisation in width is exact."""
        every = np.arange(space.n_nodes)[:, None]
        return cls(space.nodes, space.node_weights, every, np.ones((1, 1)))

    @classmethod
    def fine(cls, space: WidthSpace, degree: int | None = None) -> Quadrature:
        """On the cells, exact for the given degree (default: twice that of the space, plus 3).

        By default its own error is two orders smaller than the smallest one that is measured.
        """
        mesh = space.mesh_arrays
        cell = getattr(basix.CellType, mesh.cell)
        x, w = basix.make_quadrature(cell, degree or 2 * space.degree + 3)
        geometry = basix.ufl.element("Lagrange", mesh.cell, mesh.degree)
        values, *slopes = geometry.tabulate(1, x)
        corners = mesh.points[mesh.cells]
        J = np.einsum("kqi,cid->cqdk", np.stack(slopes), corners)
        weights = w * np.abs(np.linalg.det(J))
        basis = space.function_space.ufl_element().tabulate(0, x)[0]
        points = np.einsum("qi,cid->cqd", values, corners)
        flat = points.reshape(-1, points.shape[-1])
        return cls(flat, weights.ravel(), space.cell_nodes, basis)

    def values(self, nodal: Array, axis: int = -1) -> Array:
        """At the points, from nodal values in file order along `axis`."""
        in_cells = np.moveaxis(nodal, axis, -1)[..., self.cell_nodes] @ self.basis.T
        return np.moveaxis(in_cells.reshape(*in_cells.shape[:-2], -1), -1, axis)

    def norm(self, f: Array) -> Array:
        """L2(Y) norms of functions along the last axis."""
        return np.sqrt(f**2 @ self.weights)

    def kernel_norm(self, a: Array) -> float:
        """L2(Y x Y) norm of a kernel, shape (points, points)."""
        return float(np.sqrt(self.weights @ a**2 @ self.weights))


@dataclass(frozen=True, eq=False)
class DepthPoints:
    """Depths with weights, and the schemes' functions there.

    Attributes:
        t, weights: Shape (points,).
        from_levels: Values of the polynomial through what stands at the levels.
        from_ends: Values of what resnet interpolates between the slab ends.
    """

    t: Array
    weights: Array
    from_levels: Callable[[Array], Array]
    from_ends: Callable[[Array], Array]

    @classmethod
    def between(cls, levels: DepthLevels, points: int = 6) -> DepthPoints:
        """Gauss points of every slab, many more than the levels."""
        z, w = gauss_legendre(points)
        t = levels.points[:-1, None] + levels.steps[:, None] * z
        nodes = gauss_legendre(levels.scheme.levels)[0]
        basis = np.stack([phi(z) for phi in lagrange_basis(nodes)], axis=1)

        def from_levels(values: Array) -> Array:
            slabs = values.reshape(levels.layers, len(nodes), *values.shape[1:])
            inside = np.einsum("qi,ni...->nq...", basis, slabs)
            return inside.reshape(-1, *values.shape[1:])

        def from_ends(ends: Array) -> Array:
            share = z.reshape(1, -1, *[1] * (ends.ndim - 1))
            inside = (1 - share) * ends[:-1, None] + share * ends[1:, None]
            return inside.reshape(-1, *ends.shape[1:])

        return cls(t.ravel(), np.outer(levels.steps, w).ravel(), from_levels, from_ends)

    @classmethod
    def at_levels(cls, levels: DepthLevels) -> DepthPoints:
        """The control levels."""
        return cls(levels.t, levels.weights, np.array, np.array)


def disc(rings: int, radius: float = 1.0) -> MeshArrays:
    """The disc's polygon of 6 `rings` corners, triangles in rings, their corners on circles.

    The polygon grows with the number of rings; its area differs from the disc's by O(1/rings^2).
    """
    first = [0, *(1 + 3 * k * (k - 1) for k in range(1, rings + 2))]
    points = [np.zeros((1, 2))]
    triangles = []
    for k in range(1, rings + 1):
        angle = 2 * np.pi * np.arange(6 * k) / (6 * k)
        points.append(radius * k / rings * np.stack([np.cos(angle), np.sin(angle)], axis=1))
        for sector in range(6):
            outer = [first[k] + (sector * k + j) % (6 * k) for j in range(k + 1)]
            inner = [first[k - 1] + (sector * (k - 1) + j) % max(6 * (k - 1), 1) for j in range(k)]
            triangles += [[outer[j], outer[j + 1], inner[j]] for j in range(k)]
            triangles += [[inner[j], outer[j + 1], inner[j + 1]] for j in range(k - 1)]
    return MeshArrays.sorted("triangle", np.concatenate(points), np.array(triangles))


DOMAINS = {
    "interval": lambda comm, n: interval(comm, n, start=-0.3, length=1.2),
    "square": lambda comm, n: rectangle(comm, (n, n)),
    "disc": lambda comm, n: disc(n).mesh(comm),
}
"""Refinement families: a mesh of size proportional to 1/n."""


def width_space(domain: str, n: int, degree: int, comm: MPI.Comm = MPI.COMM_WORLD) -> WidthSpace:
    """The width space of a degree on member n of a family."""
    return WidthSpace(DOMAINS[domain](comm, n), degree)


def slope(sizes: Sequence[int], errors: Sequence[float]) -> float:
    """Order p of errors ~ sizes^-p, by least squares on the logarithms.

    Raises:
        ValueError: An error vanished: there is no slope to fit.
    """
    if not min(errors) > 0:
        raise ValueError(f"no slope to fit: {errors}")
    return float(-np.polyfit(np.log(np.asarray(sizes, float)), np.log(errors), 1)[0])
