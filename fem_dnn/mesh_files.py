"""Width meshes from files: Gmsh (.msh) and XDMF, read as plain arrays by one process.

The caller runs this on rank 0 (`collective.on_root`) and deals the arrays out with
`MeshArrays.mesh`, so that a mesh is the same, and a broken file one error, on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import basix
import dolfinx
import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.errors import BadInput, shown
from fem_dnn.mesh import DIMENSIONS, MeshArrays

Array = NDArray[np.float64]

ALLOWED = "a mesh of one kind of cells: a Gmsh (.msh) or XDMF (.xdmf) file"

_GMSH_CELLS = {
    "Line": "interval",
    "Triangle": "triangle",
    "Quadrilateral": "quadrilateral",
    "Tetrahedron": "tetrahedron",
    "Hexahedron": "hexahedron",
}
_FLAT = 1e-10
"""Extent of a coordinate, relative to the mesh's, below which it is constant."""
_DEGENERATE = 1e-12
"""Jacobian determinant, relative to size^d, below which a cell is degenerate."""


def read_width_mesh(path: Path) -> MeshArrays:
    """Read a width mesh (one process).

    A mesh on a line or in a plane of a space of more dimensions loses the last coordinates if
    they are constant: Gmsh always writes three.

    Args:
        path: A file ending in .msh (Gmsh, format 2 or 4) or .xdmf.

    Returns:
        The mesh in its standard order.

    Raises:
        BadInput: The file is missing, is no such mesh, mixes cell types, holds a curve or surface
            in a space of more dimensions, or has a cell without volume.
    """
    readers = {".msh": _read_gmsh, ".xdmf": _read_xdmf}
    name = shown(path.name)
    if path.suffix.lower() not in readers:
        raise BadInput(None, None, f"{name} ends in {shown(path.suffix)}", ALLOWED)
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as problem:
        wrong = f"{shown(str(path))} cannot be read ({problem.strerror})"
        raise BadInput(None, None, wrong, ALLOWED) from None
    try:
        arrays = readers[path.suffix.lower()](path)
        arrays = _without_constant_coordinates(arrays)
        _require_volume(arrays)
    except BadInput as problem:
        raise BadInput(
            problem.file, problem.key, f"{name} {problem.wrong}", problem.allowed or ALLOWED
        ) from None
    return arrays


def _read_gmsh(path: Path) -> MeshArrays:
    with path.open("rb") as file:
        # Anything else Gmsh would take for a script and run.
        if not file.read(11).startswith(b"$MeshFormat"):
            raise BadInput(None, None, "is not a Gmsh mesh (no $MeshFormat at its start)")
    with _gmsh_model() as gmsh:
        try:
            gmsh.merge(str(path))
            tags, coordinates, _ = gmsh.model.mesh.getNodes()
            blocks: Any = ([], [], [])
            for dimension in (3, 2, 1):
                blocks = gmsh.model.mesh.getElements(dimension)
                if len(blocks[0]):
                    break
            kinds = [gmsh.model.mesh.getElementProperties(kind) for kind in blocks[0]]
        except Exception as problem:  # Gmsh raises nothing more precise
            raise BadInput(None, None, f"is not a mesh that Gmsh can read ({problem})") from None
    if not kinds:
        raise BadInput(None, None, "has no cells")
    if len(kinds) > 1:
        names = ", ".join(kind[0] for kind in kinds)
        raise BadInput(None, None, f"mixes cells: {names}")
    [(name, _, degree, points_per_cell, *_)] = kinds
    cell = _GMSH_CELLS.get(name.split()[0])
    if cell is None or points_per_cell != _points_per_cell(cell, degree):
        wrong = f"has cells of kind {shown(name)}"
        raise BadInput(None, None, wrong, ", ".join(_GMSH_CELLS.values()))
    tags = np.asarray(tags, dtype=np.int64)
    order = np.argsort(tags)
    wanted = np.asarray(blocks[2][0], dtype=np.int64)
    found = np.minimum(np.searchsorted(tags[order], wanted), len(tags) - 1)
    if not np.array_equal(tags[order][found], wanted):
        raise BadInput(None, None, "has cells with points that are not in the file")
    cells = order[found].reshape(-1, points_per_cell)
    kind = dolfinx.cpp.mesh.to_type(cell)
    cells = cells[:, dolfinx.cpp.io.perm_gmsh(kind, points_per_cell)]
    points = np.asarray(coordinates, dtype=np.float64).reshape(-1, 3)
    return MeshArrays.sorted(cell, points, cells, int(degree))


def _points_per_cell(cell: str, degree: int) -> int:
    kind = getattr(basix.CellType, cell)
    return int(basix.create_element(basix.ElementFamily.P, kind, max(degree, 1)).dim)


@contextmanager
def _gmsh_model() -> Iterator[Any]:
    """The gmsh module with an empty model of our own, silent; a user's session is left alone."""
    try:
        import gmsh
    except (ImportError, OSError) as problem:  # OSError: a system library that it needs is missing
        raise BadInput(
            None,
            None,
            f"needs the Python module gmsh ({problem})",
            "python-gmsh installed (conda), python3-gmsh (Debian), gmsh (pip), or an XDMF file",
        ) from None
    ours = not gmsh.isInitialized()
    if ours:
        gmsh.initialize(["gmsh", "-v", "0"], readConfigFiles=False, interruptible=False)
    spoke = gmsh.option.getNumber("General.Terminal")
    current = gmsh.model.getCurrent()
    gmsh.option.setNumber("General.Terminal", 0)
    gmsh.model.add("fem-dnn width")
    try:
        yield gmsh
    finally:
        gmsh.model.remove()
        if ours:
            gmsh.finalize()
        else:
            gmsh.option.setNumber("General.Terminal", spoke)
            gmsh.model.setCurrent(current)


def _read_xdmf(path: Path) -> MeshArrays:
    try:
        grids = list(ElementTree.parse(path).iter("Grid"))
    except ElementTree.ParseError as problem:
        raise BadInput(None, None, f"is not XDMF ({problem})") from None
    grid = next((g for g in grids if g.find("Topology") is not None), None)
    if grid is None:
        raise BadInput(None, None, "has no cells")
    if str(grid.find("Topology").get("TopologyType", "")).lower() == "mixed":  # type: ignore[union-attr]
        raise BadInput(None, None, "mixes cells")
    for item in grid.iter("DataItem"):
        data, in_hdf5, _ = (item.text or "").strip().partition(":")
        # HDF5 would print pages about a missing file.
        if in_hdf5 and not (path.parent / data).is_file():
            raise BadInput(None, None, f"refers to {shown(data)}, which is not there")
    try:
        with dolfinx.io.XDMFFile(MPI.COMM_SELF, str(path), "r") as file:
            mesh = file.read_mesh(name=grid.get("Name", "mesh"))
    except Exception as problem:  # whatever dolfinx, pugixml or HDF5 say
        raise BadInput(None, None, f"is not a mesh that dolfinx can read ({problem})") from None
    return MeshArrays.of(mesh)


def _without_constant_coordinates(arrays: MeshArrays) -> MeshArrays:
    points, wanted = arrays.points, DIMENSIONS[arrays.cell]
    if not np.all(np.isfinite(points)):
        raise BadInput(None, None, "has coordinates that are not finite")
    extent = np.ptp(points, axis=0)
    if np.any(extent[wanted:] > _FLAT * extent.max()):
        what = "curve" if wanted == 1 else "surface"
        raise BadInput(
            None,
            None,
            f"is a {what} in {points.shape[1]} dimensions",
            f"a mesh in the first {wanted} coordinates, the others constant",
        )
    return MeshArrays(arrays.cell, points[:, :wanted], arrays.cells, arrays.degree)


def _require_volume(arrays: MeshArrays) -> None:
    """det J keeps one sign on every cell, at the vertices and inside."""
    kind = getattr(basix.CellType, arrays.cell)
    element = basix.create_element(
        basix.ElementFamily.P, kind, arrays.degree, basix.LagrangeVariant.gll_warped
    )
    inside = basix.make_quadrature(kind, 2 * arrays.degree)[0]
    at = np.concatenate([basix.geometry(kind), inside])
    gradients = element.tabulate(1, at)[1:, :, :, 0]  # (d, places, basis)
    corners = arrays.points[arrays.cells]
    determinants = np.linalg.det(np.einsum("kpb,cbi->cpik", gradients, corners))
    size = np.max(np.ptp(corners, axis=1), axis=1)
    signed = determinants * np.sign(determinants[:, :1])
    worst = signed.min(axis=1) / np.maximum(size, np.finfo(float).tiny) ** corners.shape[-1]
    wrong = np.flatnonzero(~(worst > _DEGENERATE))
    if len(wrong):
        centre = ", ".join(f"{c:.6g}" for c in corners[wrong[0]].mean(axis=0))
        raise BadInput(
            None,
            None,
            f"has {len(wrong)} degenerate or inverted cells, the first at ({centre})",
            "cells with a volume, not folded over",
        )
