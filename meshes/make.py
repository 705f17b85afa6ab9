"""Make the width meshes of this folder with Gmsh: `python3 meshes/make.py [--check]`.

With `--check` nothing is written: every mesh is made anew and compared with the file, by its
number of cells, its area and its moments. One thread, a fixed algorithm and a fixed
seed make the meshes reproducible; other releases of Gmsh may place points differently, which is
what the comparison would show.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import gmsh
import numpy as np

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent))


def disc(size: float) -> None:
    """The unit disc."""
    gmsh.model.occ.addDisk(0, 0, 0, 1, 1)
    gmsh.model.occ.synchronize()
    gmsh.option.setNumber("Mesh.MeshSizeMax", size)


def disc_triangles() -> None:
    """The unit disc, triangles."""
    disc(0.17)


def disc_quadrilaterals() -> None:
    """The unit disc, quadrilaterals of any shape."""
    disc(0.22)
    gmsh.option.setNumber("Mesh.Algorithm", 8)  # frontal, for quadrilaterals
    gmsh.option.setNumber("Mesh.RecombineAll", 1)
    gmsh.option.setNumber("Mesh.RecombinationAlgorithm", 3)  # blossom, every cell a quadrilateral


def annulus() -> None:
    """The annulus of radii 0.4 and 1, triangles."""
    occ = gmsh.model.occ
    occ.cut([(2, occ.addDisk(0, 0, 0, 1, 1))], [(2, occ.addDisk(0, 0, 0, 0.4, 0.4))])
    occ.synchronize()
    gmsh.option.setNumber("Mesh.MeshSizeMax", 0.16)


def l_shape() -> None:
    """(-1, 1)^2 without its lower right quarter, refined towards the re-entrant corner."""
    corners = [(-1, -1), (0, -1), (0, 0), (1, 0), (1, 1), (-1, 1)]
    geo = gmsh.model.geo
    points = [geo.addPoint(x, y, 0, 0.02 if x == y == 0 else 0.3) for x, y in corners]
    lines = [geo.addLine(a, b) for a, b in zip(points, points[1:] + points[:1], strict=True)]
    geo.addPlaneSurface([geo.addCurveLoop(lines)])
    geo.synchronize()


MESHES: dict[str, Callable[[], None]] = {
    "disc": disc_triangles,
    "disc_quadrilaterals": disc_quadrilaterals,
    "annulus": annulus,
    "l_shape": l_shape,
}


def make(name: str, file: Path) -> None:
    """Make one mesh and write it."""
    gmsh.initialize(["gmsh", "-v", "0"], readConfigFiles=False, interruptible=False)
    try:
        for option, value in {
            "General.Terminal": 0,
            "General.NumThreads": 1,
            "Mesh.Algorithm": 6,  # frontal Delaunay
            "Mesh.RandomSeed": 1,
            "Mesh.MshFileVersion": 4.1,
            "Mesh.SaveAll": 1,
        }.items():
            gmsh.option.setNumber(option, value)
        gmsh.model.add(name)
        MESHES[name]()
        gmsh.model.mesh.generate(2)
        gmsh.write(str(file))
    finally:
        gmsh.finalize()


def measures(file: Path) -> np.ndarray:
    """Cells, area, first and second moments of the cells' centres, weighted with their areas."""
    from fem_dnn.mesh_files import read_width_mesh

    arrays = read_width_mesh(file)
    corners = arrays.points[arrays.cells]
    if arrays.cell == "quadrilateral":
        corners = corners[:, [0, 1, 3, 2]]
    after = np.roll(corners, -1, axis=1)
    cross = corners[..., 0] * after[..., 1] - corners[..., 1] * after[..., 0]
    areas = np.abs(cross.sum(axis=1)) / 2
    centres = corners.mean(axis=1)
    return np.concatenate(
        [[len(areas), areas.sum()], areas @ centres, areas @ centres**2, [areas.min()]]
    )


def main() -> int:
    """Make the meshes, or compare them."""
    parser = argparse.ArgumentParser(description="Make the width meshes of this folder with Gmsh.")
    parser.add_argument("--check", action="store_true", help="compare with the files instead")
    checking = parser.parse_args().check
    different = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in MESHES:
            file = FOLDER / f"{name}.msh"
            made = Path(scratch) / file.name if checking else file
            make(name, made)
            cells, area = measures(made)[:2]
            print(f"{file.name}: {cells:.0f} cells, area {area:.6f}")
            if checking and not np.allclose(measures(made), measures(file), rtol=1e-9, atol=1e-12):
                different.append(file.name)
    if different:
        print(f"made differently: {', '.join(different)}", file=sys.stderr)
    return bool(different)


if __name__ == "__main__":
    sys.exit(main())
