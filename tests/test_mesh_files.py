"""Width meshes from files: the same on any number of ranks, and every broken file one sentence."""

from pathlib import Path

import dolfinx
import numpy as np
import pytest
from mpi4py import MPI

import fem_dnn
from fem_dnn.assembly import assemble
from fem_dnn.errors import BadInput
from fem_dnn.mesh import MeshArrays, rectangle
from fem_dnn.mesh_files import read_width_mesh
from fem_dnn.width import WidthSpace

pytest.importorskip("gmsh")
pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF
MESHES = Path(__file__).resolve().parent.parent / "meshes"

KINDS = {"line": 1, "triangle": 2, "quadrilateral": 3, "tetrahedron": 4, "hexahedron": 5, "tri6": 9}
SQUARE = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)]


def msh(points: list[tuple[float, ...]], cells: list[tuple[str, tuple[int, ...]]]) -> str:
    """Gmsh's format 2.2; points count from 1."""
    nodes = [f"{n} {' '.join(map(str, p))}" for n, p in enumerate(points, 1)]
    elements = [
        f"{n} {KINDS[kind]} 2 1 1 {' '.join(map(str, corners))}"
        for n, (kind, corners) in enumerate(cells, 1)
    ]
    lines = ["$MeshFormat", "2.2 0 8", "$EndMeshFormat", "$Nodes", str(len(nodes)), *nodes]
    lines += ["$EndNodes", "$Elements", str(len(elements)), *elements, "$EndElements"]
    return "\n".join(lines) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return WORLD.bcast(tmp_path)


def tables(file: str | Path, **network: object) -> dict:
    return {
        "mesh": {"width": {"file": str(file)}, "depth": {"length": 1.0, "cells": 2}},
        "network": {"depth_scheme": "resnet", **network},
        "data": {"inputs": ["x[0]", "exp(-x[1]**2)"], "targets": ["x[1]", "x[0]*x[1]"]},
    }


AREAS = {  # inscribed polygons: between those of coarser chords and the true areas
    "disc": (3.1, np.pi),
    "disc_quadrilaterals": (3.1, np.pi),
    "annulus": (2.6, np.pi * (1 - 0.4**2)),
    "l_shape": (3 - 1e-12, 3 + 1e-12),
}


@pytest.mark.parametrize("name", AREAS)
def test_the_meshes_of_this_repository(name: str) -> None:
    arrays = read_width_mesh(MESHES / f"{name}.msh")
    low, high = AREAS[name]
    for degree in (0, 1):
        world = WidthSpace(arrays.mesh(WORLD), degree)
        alone = WidthSpace(arrays.mesh(SELF), degree)
        assert low < world.node_weights.sum() < high
        assert np.allclose(world.nodes, alone.nodes, rtol=0, atol=1e-14)
        assert np.allclose(world.node_weights, alone.node_weights, rtol=0, atol=1e-15)
        assert np.array_equal(world.cell_nodes, alone.cell_nodes)
    assert (MESHES / f"{name}.msh").stat().st_size < 100_000


CUBE = [(x, y, z) for z in (0, 1) for x, y in ((0, 0), (2, 0), (2, 1), (0, 1))]
GOOD = {
    "interval": ([(0, 5, 5), (1, 5, 5), (3, 5, 5)], [("line", (1, 2)), ("line", (3, 2))], 3.0),
    "triangle": (SQUARE, [("triangle", (1, 2, 3)), ("triangle", (1, 3, 4))], 1.0),
    "quadrilateral": (SQUARE, [("line", (1, 2)), ("quadrilateral", (1, 2, 3, 4))], 1.0),
    "tetrahedron": (CUBE, [("tetrahedron", (1, 2, 4, 5))], 1 / 3),
    "hexahedron": (CUBE, [("hexahedron", tuple(range(1, 9)))], 2.0),
}


@pytest.mark.parametrize("cell", GOOD)
def test_all_kinds_of_cells(cell: str, folder: Path) -> None:
    """Cells of the highest dimension count, and constant last coordinates are dropped."""
    points, cells, volume = GOOD[cell]
    file = folder / f"{cell}-{WORLD.rank}.msh"
    file.write_text(msh(points, cells))
    arrays = read_width_mesh(file)
    assert arrays.cell == cell
    space = WidthSpace(arrays.mesh(SELF), 1)
    assert space.dimension == space.mesh.topology.dim
    assert abs(space.node_weights.sum() - volume) < 1e-14


def test_curved_triangles(folder: Path) -> None:
    """A parabola's arc over the unit base of a triangle adds two thirds of its height."""
    file = folder / f"curved-{WORLD.rank}.msh"
    points = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0.5, -0.2, 0), (0.5, 0.5, 0), (0, 0.5, 0)]
    file.write_text(msh(points, [("tri6", (1, 2, 3, 4, 5, 6))]))
    space = WidthSpace(read_width_mesh(file).mesh(SELF), 2)
    assert abs(space.node_weights.sum() - (0.5 + 0.2 * 2 / 3)) < 1e-14


def test_xdmf(folder: Path) -> None:
    mesh = rectangle(WORLD, (3, 2), length=(1.0, 2.0))
    with dolfinx.io.XDMFFile(WORLD, folder / "r.xdmf", "w") as file:
        file.write_mesh(mesh)
    WORLD.Barrier()
    arrays, expected = read_width_mesh(folder / "r.xdmf"), MeshArrays.of(mesh)
    assert arrays.cell == "quadrilateral"
    assert np.allclose(arrays.points, expected.points, rtol=0, atol=1e-15)
    assert np.array_equal(arrays.cells, expected.cells)


BAD = {
    "another.stl": ("solid", "ends in"),
    "script.msh": ('SystemCall "touch done";', "no .MeshFormat"),
    "empty.msh": ("", "no .MeshFormat"),
    "torn.msh": (msh(SQUARE, GOOD["triangle"][1])[:60], "torn.msh"),
    "no_cells.msh": (msh(SQUARE, []), "has no cells"),
    "mixed.msh": (
        msh([*SQUARE, (2, 0, 0)], [("quadrilateral", (1, 2, 3, 4)), ("triangle", (2, 5, 3))]),
        "mixes cells",
    ),
    "surface.msh": (
        msh([*SQUARE[:3], (0, 1, 0.5)], GOOD["triangle"][1]),
        "is a surface in 3 dimensions",
    ),
    "flat.msh": (
        msh([(0, 0, 0), (1, 0, 0), (2, 0, 0), (0, 1, 0)], GOOD["triangle"][1]),
        "degenerate or inverted",
    ),
    "folded.msh": (
        msh([(0, 0, 0), (1, 0, 0), (0.1, 0.1, 0), (0, 1, 0)], [("quadrilateral", (1, 2, 3, 4))]),
        "degenerate or inverted",
    ),
    "twisted.msh": (msh(SQUARE, [("quadrilateral", (1, 3, 2, 4))]), "degenerate or inverted"),
    "text.xdmf": ("no xml", "is not XDMF"),
    "bare.xdmf": ("<Xdmf><Domain/></Xdmf>", "has no cells"),
    "lost.xdmf": (
        "<Xdmf><Domain><Grid Name='mesh'><Topology TopologyType='Triangle'>"
        "<DataItem Format='HDF'>lost.h5:/t</DataItem></Topology></Grid></Domain></Xdmf>",
        "lost.h5.*not there",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One line on every rank: key, what is wrong, what is allowed; nothing else is printed."""
    text, wrong = BAD[name]
    if WORLD.rank == 0:
        (folder / name).write_text(text)
    WORLD.Barrier()
    case = fem_dnn.Case.parse(tables(name), "case.toml", folder)
    with pytest.raises(BadInput, match=wrong) as caught:
        assemble(case)
    assert str(caught.value).startswith("case.toml: mesh.width.file: ")
    assert caught.value.allowed and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert not Path("done").exists()


def test_missing_file_and_coordinate_that_is_not_there(folder: Path) -> None:
    with pytest.raises(BadInput, match=r"mesh.width.file: .*No such file"):
        assemble(fem_dnn.Case.parse(tables("lost.msh"), None, folder))
    broken = tables(MESHES / "disc.msh")
    broken["data"]["inputs"] = ["x[2]", "1"]
    with pytest.raises(BadInput, match=r"data.inputs\[0\].*x has 2 coordinates"):
        assemble(fem_dnn.Case.parse(broken))


@pytest.mark.several_ranks
def test_a_case_is_solved_alike_on_any_ranks() -> None:
    case = fem_dnn.Case.parse(tables(MESHES / "disc_quadrilaterals.msh"))
    world = fem_dnn.solve(case)
    alone = fem_dnn.solve(case, fem_dnn.Request(comm=SELF))
    assert world.result["converged"]
    assert abs(world.result["objective"] / alone.result["objective"] - 1) < 1e-12
    assert np.allclose(world.arrays["state"][-1], alone.arrays["state"][-1], atol=1e-7)


def test_a_mesh_made_in_python() -> None:
    """Instead of the case's own, of the same dimension; dolfinx's mesh or arrays."""
    case = fem_dnn.Case.parse(tables("none.msh", kernel=False))
    mesh = dolfinx.mesh.create_unit_square(WORLD, 3, 2)
    run = fem_dnn.solve(case, width=mesh)
    assert run.model.network.space.n_nodes == 12
    again = fem_dnn.solve(case, width=MeshArrays.of(mesh))
    assert abs(run.result["objective"] / again.result["objective"] - 1) < 1e-12
    line = dolfinx.mesh.create_unit_interval(WORLD, 4)
    with pytest.raises(BadInput, match=r"x\[1\]"):
        fem_dnn.solve(case, width=line)
    flat = tables("none.msh")
    flat["mesh"]["width"] = {"shape": "interval", "length": 1.0, "cells": 4}
    flat["data"] = {"inputs": ["x"], "targets": ["1"]}
    with pytest.raises(BadInput, match=r"mesh\.width: handed over has 2 coordinates"):
        fem_dnn.solve(fem_dnn.Case.parse(flat), width=mesh)
