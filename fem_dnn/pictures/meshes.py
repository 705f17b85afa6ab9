"""Pictures of graded meshes: where cells are small, and where the error comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fem_dnn.pictures.style import INK, SEQUENTIAL, ColourScale, dress, dress_curves, new_figure

Array = NDArray[np.float64]

BAR = "#3f90da"
_AROUND = {"triangle": [0, 1, 2], "quadrilateral": [0, 1, 3, 2]}
"""A cell's vertices in turn."""


def graded_mesh(arrays: Mapping[str, Any]) -> Figure:
    """The mesh in depth and width with the error's share of every slab and cell.

    Args:
        arrays: `t`, `mesh_cell`, `mesh_points`, `mesh_cells`, `depth_indicators` and
            `width_indicators` of a `solution.npz`; the width in one or two dimensions.
    """
    t = np.asarray(arrays["t"])
    depth = np.abs(np.asarray(arrays["depth_indicators"]))
    width = np.abs(np.asarray(arrays["width_indicators"]))
    points, cells = np.asarray(arrays["mesh_points"]), np.asarray(arrays["mesh_cells"])
    title = f"{len(depth)} slabs, {len(width)} width cells"
    if points.shape[1] == 1:
        return _over_depth_and_width(t, np.sort(points[:, 0]), depth, width, title)
    figure = new_figure(8.4, 3.8, title)
    left, right = figure.subplots(1, 2)
    left.bar(t[:-1], depth, np.diff(t), align="edge", color=BAR, edgecolor="white", linewidth=0.5)
    left.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    dress_curves(left, title="error by slab", x="depth $t$")
    scale = ColourScale.of(width, signed=False)
    polygons = points[cells][:, _AROUND[str(arrays["mesh_cell"])]]
    drawn = PolyCollection(
        list(polygons), array=width, norm=scale.norm, cmap=scale.cmap, edgecolor=INK, linewidth=0.4
    )
    right.add_collection(drawn)
    right.autoscale_view()
    right.set_aspect("equal")
    dress(right, title="error by width cell", x="$x_0$", y="$x_1$")
    scale.key(figure, drawn, [right], "")
    return figure


def _over_depth_and_width(t: Array, x: Array, depth: Array, width: Array, title: str) -> Figure:
    """The cylinder's cells, with bars along both sides."""
    figure = new_figure(6.4, 4.8, title)
    panels = figure.subplots(
        2, 2, sharex="col", sharey="row", height_ratios=[1, 3], width_ratios=[3, 1]
    )
    (above, corner), (centre, beside) = panels
    corner.remove()
    above.bar(t[:-1], depth, np.diff(t), align="edge", color=BAR, edgecolor="white", linewidth=0.5)
    beside.barh(
        x[:-1], width, np.diff(x), align="edge", color=BAR, edgecolor="white", linewidth=0.5
    )
    density = np.log10(1 / np.outer(np.diff(x), np.diff(t)))
    drawn = centre.pcolormesh(t, x, density, cmap=SEQUENTIAL, edgecolors="white", linewidth=0.2)
    dress(centre, x="depth $t$", y="width $x$")
    dress_curves(above, title="error by slab")
    dress_curves(beside, title="error by width cell")
    above.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    beside.ticklabel_format(axis="x", style="sci", scilimits=(0, 0))
    beside.locator_params(axis="x", nbins=3)
    figure.colorbar(drawn, ax=beside, location="right", label="log$_{10}$ of cells per area")
    return figure
