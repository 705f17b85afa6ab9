"""The discontinuous width space: nodes, quadrature weights, ownership, and the order of files.

No derivative in x occurs in the model, so states live in a discontinuous subspace of L2(Y). The
nodes of its elements (`width_element`) are a quadrature rule on every cell, and
(f, g) = sum over nodes of node_weights f g, exactly where the mass matrix is diagonal.

Rank r owns a contiguous block of the *mesh order* of the nodes. People and files see the *file
order*: by coordinate, last coordinate slowest, whatever the number of ranks.
"""

from __future__ import annotations

from functools import cached_property

import dolfinx
import numpy as np
import ufl
from dolfinx import fem
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn._dolfinx import geometry_cells
from fem_dnn.errors import BadInput
from fem_dnn.exchange import gathered, summed
from fem_dnn.mesh import MeshArrays, by_coordinate
from fem_dnn.width_element import width_element

Array = NDArray[np.float64]


class WidthSpace:
    """Nodal discontinuous finite elements on the width mesh, distributed by cells.

    Args:
        mesh: dolfinx mesh of Y.
        degree: Polynomial degree.
    """

    def __init__(self, mesh: dolfinx.mesh.Mesh, degree: int = 0) -> None:
        self.mesh = mesh
        self.degree = degree
        self.function_space = fem.functionspace(
            mesh, width_element(mesh.topology.cell_name(), degree)
        )
        index_map = self.function_space.dofmap.index_map
        self.comm: MPI.Comm = mesh.comm
        self.n_local: int = index_map.size_local
        self.n_nodes: int = index_map.size_global
        first, last = index_map.local_range
        self.owned = slice(int(first), int(last))
        """This rank's part of the mesh order."""

    @property
    def dimension(self) -> int:
        """Dimension d of Y."""
        return self.mesh.geometry.dim

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Nodes per rank, shape (ranks,)."""
        return np.array(self.comm.allgather(self.n_local))

    @cached_property
    def local_nodes(self) -> Array:
        """Coordinates of this rank's nodes, shape (n_local, d)."""
        coordinates = self.function_space.tabulate_dof_coordinates()
        return np.ascontiguousarray(coordinates[: self.n_local, : self.dimension])

    @cached_property
    def local_weights(self) -> Array:
        """Integrals of this rank's nodal basis functions, shape (n_local,).

        UFL's estimate of the degree counts the Jacobian of cells that are not affine.
        """
        v = ufl.TestFunction(self.function_space)
        vector = fem.assemble_vector(fem.form(v * ufl.dx))
        return vector.array[: self.n_local].copy()

    def require_positive_weights(self) -> None:
        """Refuse a mesh on which the nodes are no quadrature rule with positive weights.

        Raises:
            BadInput: A weight is not positive, as on cells too curved or too skew; on all ranks.
        """
        wrong = np.flatnonzero(~(self.node_weights > 0))
        if len(wrong):
            at = ", ".join(f"{c:.6g}" for c in self.nodes[wrong[0]])
            raise BadInput(
                None,
                "network.width_degree",
                f"{self.degree} gives {len(wrong)} nodes without a positive weight on this mesh, "
                f"the first at ({at})",
                "0, or a mesh of less distorted cells",
            )

    @cached_property
    def weights(self) -> Array:
        """Integrals of all nodal basis functions in mesh order, shape (n_nodes,)."""
        return self.gather(self.local_weights)

    @cached_property
    def sqrt_weights(self) -> Array:
        """Square roots of `weights`: they make nodal values L2-orthonormal coordinates."""
        return np.sqrt(self.weights)

    @cached_property
    def bounds(self) -> tuple[Array, Array]:
        """Lowest and highest corner of the width mesh's bounding box, each of shape (d,)."""
        x = self.mesh.geometry.x[:, : self.dimension]
        low, high = x.min(axis=0), x.max(axis=0)
        self.comm.Allreduce(MPI.IN_PLACE, low, op=MPI.MIN)
        self.comm.Allreduce(MPI.IN_PLACE, high, op=MPI.MAX)
        return low, high

    @cached_property
    def file_order(self) -> NDArray[np.int64]:
        """Mesh-order number of each node of the file order, shape (n_nodes,).

        Sorted by coordinate, last coordinate slowest, after rounding to 1e-10 of the domain's size.
        """
        low, high = self.bounds
        return by_coordinate(self.gather(self.local_nodes), float(np.max(high - low)))

    @cached_property
    def file_position(self) -> NDArray[np.int64]:
        """File-order number of each node of the mesh order: the inverse of `file_order`."""
        position = np.empty_like(self.file_order)
        position[self.file_order] = np.arange(self.n_nodes)
        return position

    @cached_property
    def mesh_arrays(self) -> MeshArrays:
        """The whole width mesh as arrays (collective)."""
        return MeshArrays.of(self.mesh)

    @cached_property
    def cell_nodes(self) -> NDArray[np.int64]:
        """File-order numbers of each cell's nodes, in the element's order (collective).

        Shape (cells, nodes per cell); cells as in `mesh_arrays`.
        """
        n_cells = self.mesh.topology.index_map(self.mesh.topology.dim).size_local
        mine = self.function_space.dofmap.list[:n_cells]
        mine = self.file_position[mine + self.owned.start]
        centres = self.mesh.geometry.x[geometry_cells(self.mesh)[:n_cells], : self.dimension]
        everything = np.concatenate(self.comm.allgather(mine))
        order = by_coordinate(np.concatenate(self.comm.allgather(centres.mean(axis=1))))
        return everything[order]

    @cached_property
    def nodes(self) -> Array:
        """Coordinates of all nodes in file order, shape (n_nodes, d)."""
        return self.gather(self.local_nodes)[self.file_order]

    @cached_property
    def node_weights(self) -> Array:
        """Quadrature weights of all nodes in file order, shape (n_nodes,)."""
        return self.weights[self.file_order]

    def gather(self, local: Array, out: Array | None = None) -> Array:
        """All ranks' blocks of rows, in mesh order: (n_local, ...) -> (n_nodes, ...).

        With several ranks they are received in `out`, a contiguous array, where it is given.
        """
        if self.comm.size == 1:
            return local
        row = int(np.prod(local.shape[1:], dtype=np.int64))
        everything = np.empty((self.n_nodes, *local.shape[1:])) if out is None else out
        return gathered(self.comm, local, self.counts * row, everything)

    def scatter_sum(self, everywhere: Array) -> Array:
        """Sum over ranks, each keeping its rows: the transpose of `gather`."""
        if self.comm.size == 1:
            return everywhere
        row = int(np.prod(everywhere.shape[1:], dtype=np.int64))
        local = np.empty((self.n_local, *everywhere.shape[1:]))
        return summed(self.comm, everywhere, self.counts * row, local)

    def from_file_order(self, values: Array, axis: int = -1) -> Array:
        """This rank's part of an array that has all nodes in file order along `axis`."""
        return np.take(values, self.file_position[self.owned], axis=axis)

    def to_file_order(self, local: Array, axis: int = -1) -> Array:
        """The whole array in file order from this rank's part along `axis` (collective)."""
        everything = self.gather(np.moveaxis(local, axis, 0))
        return np.moveaxis(everything[self.file_order], 0, axis)

    def sum(self, local: Array) -> Array:
        """Sum over ranks of small arrays."""
        if self.comm.size == 1:
            return np.asarray(local)
        total = np.array(local)
        self.comm.Allreduce(MPI.IN_PLACE, total)  # pickling allreduce costs ten times as much
        return total
