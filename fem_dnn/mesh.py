"""Meshes: the width domain Y, the depth interval (0, T), and their product.

The width mesh is an ordinary dolfinx mesh. The depth mesh is a list of points. Their product, the
depth-width cylinder Y x (0, T), is again a genuine dolfinx mesh (quadrilaterals over an interval,
hexahedra over quadrilaterals), built on demand by extruding the width mesh: every rank extrudes
the width cells it owns, so columns are never split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import basix
import basix.ufl
import dolfinx
import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn._dolfinx import create_mesh_in_place, geometry_cells

EXTRUDED = {"interval": "quadrilateral", "quadrilateral": "hexahedron"}
"""Cell of the depth-width cylinder over each width cell that dolfinx can extrude."""

DIMENSIONS = {"interval": 1, "triangle": 2, "quadrilateral": 2, "tetrahedron": 3, "hexahedron": 3}
"""Width cells and their dimensions."""


def _share(n: int, comm: MPI.Comm) -> slice:
    """Rank's contiguous, balanced part of range(n)."""
    bounds = np.arange(comm.size + 1) * n // comm.size
    return slice(int(bounds[comm.rank]), int(bounds[comm.rank + 1]))


def interval(
    comm: MPI.Comm, cells: int, *, start: float = 0.0, length: float = 1.0
) -> dolfinx.mesh.Mesh:
    """Width mesh of the interval (start, start + length) with equal cells, left to right."""
    vertices = start + length * np.arange(cells + 1) / cells
    mine = np.arange(cells, dtype=np.int64)[_share(cells, comm)]
    element = basix.ufl.element("Lagrange", "interval", 1, shape=(1,))
    points = vertices[_share(cells + 1, comm), None]
    return create_mesh_in_place(comm, np.stack([mine, mine + 1], axis=1), points, element)


def rectangle(
    comm: MPI.Comm,
    cells: Sequence[int],
    *,
    start: Sequence[float] = (0.0, 0.0),
    length: Sequence[float] = (1.0, 1.0),
) -> dolfinx.mesh.Mesh:
    """Width mesh of a rectangle, cells[0] x cells[1] quadrilaterals, first coordinate fastest."""
    nx, ny = cells
    mine = np.arange(nx * ny, dtype=np.int64)[_share(nx * ny, comm)]
    corner = mine % nx + (nx + 1) * (mine // nx)
    quads = np.stack([corner, corner + 1, corner + nx + 1, corner + nx + 2], axis=1)
    vertex = np.arange((nx + 1) * (ny + 1))[_share((nx + 1) * (ny + 1), comm)]
    steps = np.array(length) / (nx, ny)
    points = np.array(start) + steps * np.stack([vertex % (nx + 1), vertex // (nx + 1)], axis=1)
    element = basix.ufl.element("Lagrange", "quadrilateral", 1, shape=(2,))
    return create_mesh_in_place(comm, quads, points, element)


def box(
    comm: MPI.Comm,
    cells: Sequence[int],
    *,
    start: Sequence[float] = (0.0, 0.0, 0.0),
    length: Sequence[float] = (1.0, 1.0, 1.0),
) -> dolfinx.mesh.Mesh:
    """Width mesh of a box, cells[0] x cells[1] x cells[2] hexahedra."""
    counts = np.array(cells)
    corner = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), -1).reshape(-1, 1, 3)
    vertex = np.stack(np.meshgrid(*map(np.arange, counts + 1), indexing="ij"), -1).reshape(-1, 3)
    offsets = basix.geometry(basix.CellType.hexahedron).astype(np.int64)
    strides = np.array([(counts[1] + 1) * (counts[2] + 1), counts[2] + 1, 1])
    numbers = (corner + offsets) @ strides
    points = np.array(start) + vertex * (np.array(length) / counts)
    return MeshArrays.sorted("hexahedron", points, numbers).mesh(comm)


@dataclass(frozen=True, eq=False)
class MeshArrays:
    """A width mesh as plain arrays, whole, the same whatever the number of ranks.

    Points are sorted by coordinate and cells by their centre, last coordinate slowest; positions
    are compared after rounding to 1e-10 of the domain's size.

    Attributes:
        cell: interval | triangle | quadrilateral | tetrahedron | hexahedron.
        points: Coordinates, shape (points, d).
        cells: Points of each cell in dolfinx's order, shape (cells, points per cell).
        degree: Degree of the cells' geometry.
    """

    cell: str
    points: NDArray[np.float64]
    cells: NDArray[np.int64]
    degree: int = 1

    @classmethod
    def sorted(
        cls, cell: str, points: NDArray[np.float64], cells: NDArray[np.int64], degree: int = 1
    ) -> MeshArrays:
        """The arrays in their standard order; points of no cell are left out."""
        used, cells = np.unique(cells, return_inverse=True)
        points, cells = points[used], cells.reshape(-1, cells.shape[-1])
        order = by_coordinate(points)
        position = np.empty_like(order)
        position[order] = np.arange(len(order))
        points, cells = points[order], position[cells]
        cells = cells[by_coordinate(points[cells].mean(axis=1))]
        return cls(cell, points, cells, degree)

    @classmethod
    def of(cls, mesh: dolfinx.mesh.Mesh) -> MeshArrays:
        """The arrays of a distributed mesh (collective)."""
        geometry, topology = mesh.geometry, mesh.topology
        n_cells = topology.index_map(topology.dim).size_local
        mine = geometry_cells(mesh)[:n_cells]
        index_map = geometry.index_map()
        owned = geometry.x[: index_map.size_local, : geometry.dim]
        cells = index_map.local_to_global(mine.ravel()).reshape(mine.shape)
        return cls.sorted(
            topology.cell_name(),
            np.concatenate(mesh.comm.allgather(owned)),
            np.concatenate(mesh.comm.allgather(cells)),
            mesh.ufl_domain().ufl_coordinate_element().embedded_superdegree
            if topology.cell_name() in ("interval", "triangle", "tetrahedron")
            else round(mine.shape[1] ** (1 / topology.dim)) - 1,
        )

    def mesh(self, comm: MPI.Comm) -> dolfinx.mesh.Mesh:
        """The dolfinx mesh, its cells dealt out evenly and in order (collective)."""
        shape = (self.points.shape[1],)
        element = basix.ufl.element("Lagrange", self.cell, self.degree, shape=shape)
        return create_mesh_in_place(
            comm,
            self.cells[_share(len(self.cells), comm)],
            self.points[_share(len(self.points), comm)],
            element,
        )


def by_coordinate(points: NDArray[np.float64], extent: float | None = None) -> NDArray[np.int64]:
    """Numbers of the points from first to last: by coordinate, the last one slowest.

    Coordinates are compared after rounding to 1e-10 of the extent.

    Args:
        points: Shape (points, d).
        extent: The domain's size; default: the points' own extent.
    """
    low = points.min(axis=0)
    extent = extent or float(np.max(points.max(axis=0) - low)) or 1.0
    return np.lexsort(np.round((points - low) / extent, 10).T)


@dataclass(frozen=True, eq=False)
class DepthWidthMesh:
    """The depth-width cylinder Y x (0, T).

    Attributes:
        width: dolfinx mesh of Y.
        depth_points: The slab ends 0 = t_0 < t_1 < ... < t_layers = T, shape (layers + 1,).
    """

    width: dolfinx.mesh.Mesh
    depth_points: NDArray[np.float64]

    def __post_init__(self) -> None:
        points = np.array(self.depth_points, dtype=np.float64)
        if points.ndim != 1 or len(points) < 2 or points[0] != 0 or not np.all(np.diff(points) > 0):
            raise ValueError("depth points must increase strictly from 0 and be at least two")
        points.flags.writeable = False
        object.__setattr__(self, "depth_points", points)

    @classmethod
    def uniform(cls, width: dolfinx.mesh.Mesh, *, depth: float, layers: int) -> DepthWidthMesh:
        """The cylinder with `layers` equal slabs over a depth T = `depth`."""
        return cls(width, depth * np.arange(layers + 1) / layers)

    @property
    def comm(self) -> MPI.Comm:
        """Communicator over which the width is distributed."""
        return self.width.comm

    @property
    def layers(self) -> int:
        """Number of slabs."""
        return len(self.depth_points) - 1

    @property
    def depth(self) -> float:
        """T."""
        return float(self.depth_points[-1])

    @property
    def steps(self) -> NDArray[np.float64]:
        """Slab thicknesses tau_n = t_{n+1} - t_n, shape (layers,)."""
        return np.diff(self.depth_points)

    @property
    def extrudable(self) -> bool:
        """Whether dolfinx has a cell for the product of the width cell and an interval."""
        straight = geometry_cells(self.width).shape[1] == 2**self.width.topology.dim
        return self.width.topology.cell_name() in EXTRUDED and straight

    @cached_property
    def cylinder(self) -> dolfinx.mesh.Mesh:
        """The cylinder as one dolfinx mesh in (x, t), last coordinate t.

        Raises:
            ValueError: The width cells (triangles, hexahedra, curved ones) have no extrusion here.
        """
        name = self.width.topology.cell_name()
        if not self.extrudable:
            curved = "curved " if name in EXTRUDED else ""
            raise ValueError(f"dolfinx cannot extrude {curved}{name} cells")
        geometry = self.width.geometry
        n_cells = self.width.topology.index_map(self.width.topology.dim).size_local
        nodes = geometry.index_map().local_to_global(geometry_cells(self.width)[:n_cells].ravel())
        base = nodes.reshape(n_cells, -1)[:, None, :] * (self.layers + 1)
        bottom = base + np.arange(self.layers)[None, :, None]
        cells = np.concatenate([bottom, bottom + 1], axis=2).reshape(n_cells * self.layers, -1)

        owned = geometry.x[: geometry.index_map().size_local, : geometry.dim]
        points = np.concatenate(
            [
                np.repeat(owned, self.layers + 1, axis=0),
                np.tile(self.depth_points, len(owned))[:, None],
            ],
            axis=1,
        )
        element = basix.ufl.element("Lagrange", EXTRUDED[name], 1, shape=(geometry.dim + 1,))
        return create_mesh_in_place(self.comm, cells.astype(np.int64), points, element)

    @cached_property
    def columns(self) -> NDArray[np.int32]:
        """Local cylinder cell over each owned width cell and slab, shape (width cells, layers)."""
        n_cells = self.width.topology.index_map(self.width.topology.dim).size_local
        cylinder = self.cylinder
        original = cylinder.topology.original_cell_index
        first = sum(self.comm.allgather(n_cells * self.layers)[: self.comm.rank])
        local = np.empty(n_cells * self.layers, dtype=np.int32)
        local[np.asarray(original) - first] = np.arange(len(original), dtype=np.int32)
        return local.reshape(n_cells, self.layers)
