"""The kernel a(x, y, t) through depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from fem_dnn.pictures.fields import DEPTH, SNAPSHOTS, snapshot_size, snapshots
from fem_dnn.pictures.style import (
    CLASS_COLOURS,
    ColourScale,
    depth_titles,
    dress,
    dress_curves,
    grid,
    new_figure,
    picked,
)
from fem_dnn.pictures.width import WidthNodes

Array = NDArray[np.float64]

_PANEL = 1.6
_NEURONS = (0.2, 0.5, 0.8)
"""Whose receptive fields are shown: the nodes nearest to these fractions of the way across Y."""


def kernel_slices(arrays: Mapping[str, Any]) -> Figure:
    """The kernel a(x, y, t) at several depths, and the norms of kernel and bias over depth.

    A slice is a matrix: to x upwards, from y to the right. Over a two-dimensional Y its rows and
    columns are the nodes in file order, and receptive fields y -> a(x, y, t) of a few neurons x
    are shown on Y as well.

    Args:
        arrays: `x`, `node_weights`, `control_t`, `kernel` and `bias` of a `solution.npz`.
    """
    nodes, t = WidthNodes.of(arrays), np.asarray(arrays["control_t"])
    kernel, bias = np.asarray(arrays["kernel"]), np.asarray(arrays["bias"])
    shown = picked(len(t), SNAPSHOTS)
    scale = ColourScale.of(kernel[shown], signed=True)
    width, heights = max(1.2 + _PANEL * len(shown), 5.0), [0.8 * _PANEL + 0.75, 1.9]
    if _planar(nodes):
        heights.insert(1, snapshot_size(nodes, len(_NEURONS), len(t), _PANEL)[1])
    figure = new_figure(width, sum(heights) + 0.35, "Kernel $a(x, y, t)$")
    parts = list(figure.subfigures(len(heights), 1, height_ratios=heights))
    _matrices(parts[0], nodes, t, kernel, scale)
    if _planar(nodes):
        _receptive_fields(parts[1], nodes, t, kernel, scale)
    _norms(parts[-1].subplots(), nodes.weights, t, kernel, bias)
    return figure


def _planar(nodes: WidthNodes) -> bool:
    return nodes.dimension > 1


def _matrices(
    figure: SubFigure, nodes: WidthNodes, t: Array, kernel: Array, scale: ColourScale
) -> None:
    shown, titles = picked(len(t), SNAPSHOTS), depth_titles(t)
    edges = np.arange(len(nodes.x) + 1) + 0.5
    of, to = ("node of $y$", "node of $x$") if _planar(nodes) else ("$y$", "$x$")
    if not _planar(nodes) and nodes.edges is not None:
        edges = nodes.edges[0]
    panels = grid(figure, len(shown), len(shown))
    for panel, level in zip(panels, shown, strict=True):
        drawn = panel.pcolorfast(edges, edges, kernel[level], norm=scale.norm, cmap=scale.cmap)
        dress(panel, title=titles[level], x=of, y=to if panel is panels[0] else "")
    scale.key(figure, drawn, panels, "$a$")


def _receptive_fields(
    figure: SubFigure, nodes: WidthNodes, t: Array, kernel: Array, scale: ColourScale
) -> None:
    low, extent = nodes.x.min(axis=0), np.ptp(nodes.x, axis=0)
    neurons = list(
        dict.fromkeys(
            int(np.argmin(np.linalg.norm(nodes.x - (low + part * extent), axis=1)))
            for part in _NEURONS
        )
    )
    rows = {
        f"$a(x, \\cdot, t)$\n$x = ({', '.join(f'{{{c:.2f}}}' for c in nodes.x[i])})$": kernel[:, i]
        for i in neurons
    }
    panels = snapshots(figure, nodes, t, rows, scale, "$a$")
    columns = len(panels) // len(rows)
    for number, panel in enumerate(panels):
        x = nodes.x[neurons[number // columns]]
        panel.plot(*x[:2], marker="o", ms=6, mfc="none", mec="black", mew=1.1)


def _norms(axes: Axes, weights: Array, t: Array, kernel: Array, bias: Array) -> None:
    """L2 norms ‖a(t)‖ over Y x Y and ‖b(t)‖ over Y."""
    curves = {
        r"$\|a(t)\|_{L^2(Y \times Y)}$": np.sqrt([weights @ a**2 @ weights for a in kernel]),
        r"$\|b(t)\|_{L^2(Y)}$": np.sqrt(bias**2 @ weights),
    }
    marker = "o" if len(t) <= 40 else ""
    for (label, norm), colour in zip(curves.items(), CLASS_COLOURS[::2], strict=False):
        axes.plot(t, norm, color=colour, marker=marker, ms=3.5, lw=1.6, label=label)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    dress_curves(axes, x=DEPTH, y="norm")
    axes.legend(frameon=False, fontsize=9)
