"""Functions on width meshes are drawn on their own cells, with nothing between or across them."""

from pathlib import Path

import dolfinx
import numpy as np
import pytest
from matplotlib.figure import Figure
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn import pictures
from fem_dnn.mesh import MeshArrays, box
from fem_dnn.pictures.style import ColourScale
from fem_dnn.pictures.width import WidthNodes
from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]
SELF = MPI.COMM_SELF

RING = np.arange(9) * 2 * np.pi / 8
"""A ring of eight quadrilaterals around a hole."""


def ring() -> dolfinx.mesh.Mesh:
    angles = RING[:-1]
    around = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = np.concatenate([0.5 * around, around])
    k = np.arange(8)
    cells = np.stack([k, (k + 1) % 8, k + 8, (k + 1) % 8 + 8], axis=1)
    return MeshArrays.sorted("quadrilateral", points, cells).mesh(SELF)


def content(mesh: dolfinx.mesh.Mesh, degree: int) -> dict[str, object]:
    space = WidthSpace(mesh, degree)
    arrays = space.mesh_arrays
    return {
        "x": space.nodes,
        "node_weights": space.node_weights,
        "t": np.array([0.0, 1.0, 2.0]),
        "state": np.random.default_rng(0).standard_normal((3, 2, space.n_nodes)),
        "mesh_cell": np.array(arrays.cell),
        "mesh_points": arrays.points,
        "mesh_cells": arrays.cells,
        "mesh_degree": np.array(arrays.degree),
        "cell_nodes": space.cell_nodes,
        "width_degree": np.array(degree),
    }


def drawn(arrays: dict[str, object], values: Array):
    axes = Figure().add_subplot()
    return WidthNodes.of(arrays).draw(axes, values, ColourScale.of(values)), axes


def area(corners: Array) -> float:
    x, y = np.moveaxis(corners, -1, 0)
    return float(
        np.abs(np.sum(x * np.roll(y, -1, axis=-1) - y * np.roll(x, -1, axis=-1), axis=-1)).sum() / 2
    )


def test_constants_fill_their_cells_and_nothing_else() -> None:
    arrays = content(ring(), 0)
    values = np.arange(8.0)
    artist, axes = drawn(arrays, values)
    polygons = np.array([path.vertices[:4] for path in artist.get_paths()])
    assert abs(area(polygons) - np.sum(arrays["node_weights"])) < 1e-12
    # Each polygon has the value of the node in its middle.
    for polygon, value in zip(polygons, artist.get_array(), strict=True):
        distance = np.linalg.norm(arrays["x"] - polygon.mean(axis=0), axis=1)
        assert np.argmin(distance) == value
    assert axes.get_xlim()[0] <= -1 and axes.get_xlim()[1] >= 1


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("kind", ["quadrilaterals", "triangles"])
def test_polynomials_are_evaluated_in_every_cell(kind: str, degree: int) -> None:
    """A linear function is drawn as it is at every corner of every small triangle."""
    mesh = ring() if kind == "quadrilaterals" else dolfinx.mesh.create_unit_square(SELF, 2, 3)
    arrays = content(mesh, degree)
    artist, _ = drawn(arrays, arrays["x"] @ np.array([1.0, -2.0]))
    triangles = artist._triangulation
    places = np.stack([triangles.x, triangles.y], axis=1)
    expected = places @ np.array([1.0, -2.0])
    assert np.allclose(artist.get_array(), expected, rtol=0, atol=1e-12)
    covered = area(places[triangles.triangles])
    assert abs(covered - np.sum(arrays["node_weights"])) < 1e-12  # the hole stays empty


def test_jumps_between_cells_stay_jumps() -> None:
    arrays = content(dolfinx.mesh.create_unit_square(SELF, 1, 1), 1)
    values = np.zeros(6)
    values[arrays["cell_nodes"][0]] = 1.0
    artist, _ = drawn(arrays, values)
    assert np.allclose(np.sort(np.unique(np.round(artist.get_array(), 12))), [0, 1])


def test_three_dimensions_show_the_middle_slice(tmp_path: Path) -> None:
    arrays = content(box(SELF, (3, 3, 3)), 0)
    artist, _ = drawn(arrays, arrays["x"][:, 0])
    shown = np.ma.filled(artist.get_array(), np.nan)
    assert np.array_equal(np.round(shown[60, [20, 60, 100]], 6), np.round([1 / 6, 0.5, 5 / 6], 6))
    assert artist.get_extent() == pytest.approx([0, 1, 0, 1])
    assert "slice" in WidthNodes.of(arrays).place
    figure = pictures.hidden_state(arrays, [0, 1])
    assert pictures.save(figure, tmp_path / "state.png").stat().st_size > 10_000


def test_comparison_has_a_row_per_kind() -> None:
    arrays = content(ring(), 0)
    figure = pictures.compared_functions(
        arrays, {"f": arrays["state"][0], "g": arrays["state"][1]}, "Two"
    )
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels[:4] == ["f", "", "g", ""]
