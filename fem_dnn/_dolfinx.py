"""What differs between dolfinx 0.9 and 0.11, and nothing else.

Every other module is written against one interface; when a release is dropped, this file shrinks.
"""

from __future__ import annotations

from typing import Any

import dolfinx
import dolfinx.jit
import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

# Processes that need the same form wait for the one that compiles it. The usual 10 seconds are
# short on a busy machine, where the compiler alone may take as long.
dolfinx.jit.DOLFINX_DEFAULT_JIT_OPTIONS["timeout"] = (90, "Timeout for JIT compilation")


def _keep_cells(comm: MPI.Comm, nparts: int, cell_types: Any, cells: Any) -> Any:
    """Partitioner: every rank keeps exactly the cells that it contributed."""
    n_cells = len(cells[0]) // dolfinx.cpp.mesh.cell_num_vertices(cell_types[0])
    destinations = np.full((n_cells, 1), comm.rank, dtype=np.int32)
    adjacency = dolfinx.graph.adjacencylist(destinations)
    return getattr(adjacency, "_cpp_object", adjacency)


def create_mesh_in_place(
    comm: MPI.Comm, cells: NDArray[np.int64], points: NDArray[np.float64], element: Any
) -> dolfinx.mesh.Mesh:
    """Create a mesh whose cells stay on the ranks that hand them in.

    Args:
        comm: Communicator.
        cells: Global vertex numbers of this rank's cells, shape (cells, vertices).
        points: This rank's share of the coordinates, shape (points, gdim); global vertex
            numbers count through the ranks' shares in rank order.
        element: Coordinate element (UFL).
    """
    return dolfinx.mesh.create_mesh(comm, cells=cells, x=points, e=element, partitioner=_keep_cells)


def geometry_cells(mesh: dolfinx.mesh.Mesh) -> NDArray[np.int32]:
    """Local geometry node numbers of this rank's cells, shape (cells, nodes per cell)."""
    geometry = mesh.geometry
    return geometry.dofmaps[0] if hasattr(geometry, "dofmaps") else geometry.dofmap


def refine_marked(mesh: dolfinx.mesh.Mesh, marks: NDArray[np.bool_]) -> dolfinx.mesh.Mesh:
    """Cut the marked cells of a mesh of simplices on one process, and others to close it.

    Args:
        mesh: Triangles or tetrahedra, on one process.
        marks: One per cell that was handed in.
    """
    dim = mesh.topology.dim
    mesh.topology.create_entities(1)
    mesh.topology.create_connectivity(dim, 1)
    mine = np.flatnonzero(marks[np.asarray(mesh.topology.original_cell_index)]).astype(np.int32)
    edges = dolfinx.mesh.compute_incident_entities(mesh.topology, mine, dim, 1)
    return dolfinx.mesh.refine(mesh, edges)[0]
