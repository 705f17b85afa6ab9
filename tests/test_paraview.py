"""Files for ParaView hold the values they were given, read back as ParaView would."""

from pathlib import Path
from xml.etree import ElementTree

import dolfinx
import numpy as np
import pytest
from helpers import GRADED, local
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.depth import SCHEMES, DepthLevels
from fem_dnn.mesh import DepthWidthMesh, MeshArrays, box, interval, rectangle
from fem_dnn.paraview import write_state
from fem_dnn.width import WidthSpace

pytestmark = pytest.mark.mpi

Array = NDArray[np.float64]

COMM = MPI.COMM_WORLD
SKEW = MeshArrays.sorted(
    "quadrilateral",
    np.array([[0, 0], [1, 0.2], [2, 0], [-0.1, 1], [1.3, 1.2], [2.2, 1.5]]),
    np.array([[0, 1, 3, 4], [1, 2, 4, 5]]),
)
WIDTHS = {
    "interval": lambda: interval(COMM, 5, start=-0.5, length=2.0),
    "rectangle": lambda: rectangle(COMM, (4, 3), start=(1.0, 0.0), length=(1.0, 2.0)),
    "triangles": lambda: dolfinx.mesh.create_unit_square(COMM, 4, 3),
    "tetrahedra": lambda: dolfinx.mesh.create_unit_cube(COMM, 2, 1, 1),
    "box": lambda: box(COMM, (2, 2, 1)),
    "skew": lambda: SKEW.mesh(COMM),
}
FACTORS = np.array([1.0, -2.0, 0.5, 3.0])
"""c(t_n): every function is g_s(x) c(t), c linear between the slab ends."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return COMM.bcast(tmp_path)


def g(s: int, x: Array, degree: int) -> Array:
    """A polynomial of exactly this degree (of degree 1 for 0), not symmetric in any way."""
    return (s + 1) * (0.3 + x @ np.array([1.0, 2.0, -0.5])[: x.shape[-1]]) ** max(degree, 1) + s


def written(folder: Path, width: str, degree: int) -> list[tuple[float, list[ElementTree.Element]]]:
    """Write samples 2 and 0 of three; hand back depth and pieces of every time of the series."""
    mesh = DepthWidthMesh(WIDTHS[width](), GRADED)
    space = WidthSpace(mesh.width, degree)
    levels = DepthLevels(SCHEMES["dg1"], GRADED)
    start = local(space, np.stack([g(s, space.nodes, degree) for s in range(3)]))
    ends = FACTORS[:, None, None] * start
    file = write_state(folder / "state", mesh, space, levels, ends, [2, 0])
    assert file == folder / "state.pvd"
    series = []
    for entry in ElementTree.parse(file).iter("DataSet"):
        index = ElementTree.parse(folder / entry.get("file"))
        pieces = [ElementTree.parse(folder / p.get("Source")) for p in index.iter("Piece")]
        assert len(pieces) == COMM.size
        series.append((float(entry.get("timestep")), [p.getroot() for p in pieces]))
    COMM.Barrier()
    return series


def numbers(piece: ElementTree.Element, group: str, name: str | None = None) -> Array:
    for array in piece.find(f".//{group}"):
        if name is None or array.get("Name") == name:
            return np.array((array.text or "").split(), dtype=float)
    raise AssertionError(f"no {name} among {group}")


def cells(piece: ElementTree.Element) -> tuple[Array, NDArray[np.int64]]:
    """Points (points, 3), and the points of every cell (cells, points per cell)."""
    connectivity = numbers(piece, "Cells", "connectivity").astype(int)
    offsets = numbers(piece, "Cells", "offsets")
    return numbers(piece, "Points").reshape(-1, 3), connectivity.reshape(len(offsets), -1)


@pytest.mark.parametrize("degree", [0, 1, 2])
@pytest.mark.parametrize("width", ["interval", "rectangle"])
def test_state_on_the_cylinder(folder: Path, width: str, degree: int) -> None:
    """Cellwise in width, linear in depth: no smoothing over the width cells' boundaries."""
    [(_, pieces)] = written(folder, width, degree)
    d = 1 if width == "interval" else 2
    count = 0
    for piece in pieces:
        points, connectivity = cells(piece)
        count += len(connectivity)
        for cell in connectivity:
            x, t = points[cell, :d], points[cell, d]
            if degree == 0:
                x = np.broadcast_to((x.min(axis=0) + x.max(axis=0)) / 2, x.shape)
            factor = np.interp(t, GRADED, FACTORS)
            for s in (0, 2):
                values = numbers(piece, "PointData", f"f_{s}")[cell]
                np.testing.assert_allclose(values, factor * g(s, x, degree), atol=1e-12)
            assert np.ptp(t) > 0.1  # every cell is a cell of one slab, not a slice
    assert count == 3 * (5 if width == "interval" else 12)


def test_quadrilaterals_of_any_shape_are_extruded(folder: Path) -> None:
    """Linear functions are in the space whatever the cells' shape."""
    [(_, pieces)] = written(folder, "skew", 1)
    for piece in pieces:
        points, connectivity = cells(piece)
        assert len(connectivity) == 3 * 2 // COMM.size
        factor = np.interp(points[:, 2], GRADED, FACTORS)
        for s in (0, 2):
            values = numbers(piece, "PointData", f"f_{s}")
            np.testing.assert_allclose(values, factor * g(s, points[:, :2], 1), atol=1e-12)


@pytest.mark.parametrize("width", ["triangles", "tetrahedra", "box"])
@pytest.mark.parametrize("degree", [0, 1, 2])
def test_widths_that_cannot_be_extruded_become_a_series_in_depth(
    folder: Path, width: str, degree: int
) -> None:
    series = written(folder, width, degree)
    d = 2 if width == "triangles" else 3
    np.testing.assert_allclose([t for t, _ in series], GRADED)
    for (_, pieces), factor in zip(series, FACTORS, strict=True):
        for piece in pieces:
            points, connectivity = cells(piece)
            x = points[:, :d] if degree else points[connectivity, :d].mean(axis=1)
            for s in (0, 2):
                values = numbers(piece, "PointData" if degree else "CellData", f"f_{s}")
                np.testing.assert_allclose(values, factor * g(s, x, degree), atol=1e-12)


def test_only_the_samples_asked_for_and_no_scratch_files(folder: Path) -> None:
    [(_, pieces)] = written(folder, "interval", 0)
    names = {array.get("Name") for array in pieces[0].find(".//PointData")}
    assert {name for name in names if name.startswith("f_")} == {"f_0", "f_2"}
    assert not [file for file in folder.iterdir() if file.name.startswith(".")]


def test_a_second_write_replaces_the_first(folder: Path) -> None:
    written(folder, "interval", 1)
    [(_, pieces)] = written(folder, "interval", 0)
    points, connectivity = cells(pieces[0])
    values = numbers(pieces[0], "PointData", "f_0")[connectivity]
    start = values[points[connectivity, 1] == 0].reshape(-1, 2)
    np.testing.assert_array_equal(start[:, 0], start[:, 1])  # constant on cells: degree 0


def test_a_folder_that_is_not_there_fails_on_every_rank(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        written(folder / "missing", "interval", 0)
