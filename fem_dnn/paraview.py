"""The hidden state as files for ParaView.

The format is VTK's own XML (`.pvd`), written by dolfinx: it needs no optional library, every
ParaView, VisIt and PyVista reads it, all samples become arrays of one data set, and discontinuous
fields of any degree are stored as they are. (XDMF holds continuous fields only, and hides
one function behind another; `.bp` is not read by every ParaView.)
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import basix
import basix.ufl
import dolfinx
import numpy as np
from dolfinx import fem
from dolfinx.io import VTKFile
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.collective import on_root
from fem_dnn.depth import DepthLevels
from fem_dnn.mesh import DepthWidthMesh
from fem_dnn.width import WidthSpace
from fem_dnn.width_element import width_element

Array = NDArray[np.float64]


def write_state(
    path_stem: Path | str,
    mesh: DepthWidthMesh,
    space: WidthSpace,
    levels: DepthLevels,
    ends: Array,
    samples: Sequence[int],
) -> Path:
    """Write f_s of a few samples on the depth-width cylinder (collective).

    Between the slab ends the state is drawn linear in depth. In width it is what it is: constant
    on every cell for degree 0, a discontinuous polynomial otherwise. Where dolfinx cannot extrude
    the width's cells (triangles), the file is a time series on the width mesh, with depth as time.

    Args:
        path_stem: The files are this name with endings; `.pvd` is the one to open.
        mesh: The depth-width mesh.
        space: Width space on `mesh.width`.
        levels: Depth levels on `mesh.depth_points`.
        ends: f(t_n^-) at this rank's nodes, shape (layers + 1, n_local, samples).
        samples: The samples to write; sample s becomes the array `f_s`, e.g. `f_0`.

    Returns:
        The `.pvd` file.

    Raises:
        OSError: The files cannot be written.
    """
    path = Path(path_stem)
    write = _write_cylinder if mesh.extrudable else _write_series
    with _appearing_together(mesh.comm, path) as stem:
        write(stem.with_name(stem.name + ".pvd"), mesh, space, levels, ends, samples)
    return path.with_name(path.name + ".pvd")


def _write_cylinder(
    file: Path,
    mesh: DepthWidthMesh,
    space: WidthSpace,
    levels: DepthLevels,
    ends: Array,
    samples: Sequence[int],
) -> None:
    element = _element(mesh.cylinder, max(space.degree, 1))
    V = fem.functionspace(mesh.cylinder, basix.ufl.wrap_element(element))
    cell_dofs = V.dofmap.list[mesh.columns]
    # The last reference coordinate of an extruded cell is depth.
    ahead = element.points[:, -1]
    functions = []
    for s in samples:
        at_ends = _values_at(space, element.points[:, :-1], ends[:, :, s])
        f = fem.Function(V, name=f"f_{s}")
        f.x.array[cell_dofs] = np.moveaxis((1 - ahead) * at_ends[:-1] + ahead * at_ends[1:], 0, 1)
        functions.append(f)
    with VTKFile(mesh.comm, file, "w") as output:
        output.write_function(functions, 0.0)


def _write_series(
    file: Path,
    mesh: DepthWidthMesh,
    space: WidthSpace,
    levels: DepthLevels,
    ends: Array,
    samples: Sequence[int],
) -> None:
    if space.degree:
        element = _element(mesh.width, space.degree)
        V, points = fem.functionspace(mesh.width, basix.ufl.wrap_element(element)), element.points
    else:
        V, points = space.function_space, np.full((1, space.dimension), 1 / 3)
    functions = [fem.Function(V, name=f"f_{s}") for s in samples]
    owned = V.dofmap.list[: _owned_cells(space)]
    with VTKFile(mesh.comm, file, "w") as output:
        for n, t in enumerate(levels.points):
            for f, s in zip(functions, samples, strict=True):
                f.x.array[owned] = _values_at(space, points, ends[n : n + 1, :, s])[0]
                f.x.scatter_forward()
            output.write_function(functions, float(t))


def _element(mesh: dolfinx.mesh.Mesh, degree: int) -> basix.finite_element.FiniteElement:
    """Discontinuous element with the equally spaced nodes that VTK knows."""
    return basix.create_element(
        basix.ElementFamily.P,
        getattr(basix.CellType, mesh.topology.cell_name()),
        degree,
        basix.LagrangeVariant.equispaced,
        discontinuous=True,
    )


def _owned_cells(space: WidthSpace) -> int:
    return int(space.mesh.topology.index_map(space.mesh.topology.dim).size_local)


def _values_at(space: WidthSpace, points: Array, nodal: Array) -> Array:
    """Values of functions on Y at reference points of every owned cell.

    Args:
        space: Width space.
        points: Shape (points, d).
        nodal: This rank's nodal values, shape (functions, n_local).

    Returns:
        Shape (functions, owned cells, points).
    """
    element = width_element(space.mesh.topology.cell_name(), space.degree).basix_element
    basis = element.tabulate(0, np.ascontiguousarray(points))[0, :, :, 0]
    return nodal[:, space.function_space.dofmap.list[: _owned_cells(space)]] @ basis.T


@contextmanager
def _appearing_together(comm: MPI.Comm, path: Path) -> Iterator[Path]:
    """A path in a scratch folder whose files move beside `path` at the end, `.pvd` last."""

    def make() -> Path:
        return Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))

    def move() -> None:
        for file in sorted(scratch.iterdir(), key=lambda file: file.suffix == ".pvd"):
            os.replace(file, path.parent / file.name)

    scratch = on_root(comm, make)
    try:
        yield scratch / path.name
        comm.Barrier()
        on_root(comm, move)
    finally:
        if comm.rank == 0:
            shutil.rmtree(scratch, ignore_errors=True)
