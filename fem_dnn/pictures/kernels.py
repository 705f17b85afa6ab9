"""The kernel a(x, y, t) through depth.

Of a wide network some nodes are shown, and their entries alone are looked at: a kernel that is held
by its factors is never formed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from fem_dnn.kernel_factors import STORED, KernelFactors
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
Numbers = NDArray[np.intp]

_PANEL = 1.6
_NEURONS = (0.2, 0.5, 0.8)
"""Whose receptive fields are shown: the nodes nearest to these fractions of the way across Y."""


SHOWN = 512
"""Nodes whose rows and columns are shown at most, evenly spread: panels have fewer pixels."""


class Kernel(Protocol):
    """What is drawn of a kernel."""

    def block(self, level: int, x: Numbers, y: Numbers) -> Array:
        """Values a(x, y) at some nodes of one level, shape (len(x), len(y))."""

    def squares(self, weights: Array) -> Array:
        """|a(t)|^2 over Y x Y at every level by nodal quadrature, shape (levels,)."""


@dataclass(frozen=True, eq=False)
class KernelMatrices:
    """A kernel that is held as matrices, shape (levels, nodes, nodes)."""

    values: Array

    def block(self, level: int, x: Numbers, y: Numbers) -> Array:
        """Values at some nodes of one level."""
        return np.asarray(self.values[level][np.ix_(x, y)])

    def squares(self, weights: Array) -> Array:
        """|a(t)|^2."""
        return np.array([weights @ a**2 @ weights for a in self.values], dtype=np.float64)


def kernel_of(arrays: Mapping[str, Any]) -> Kernel | None:
    """The kernel of a `solution.npz`, in either form; None where there is none, or it is zero."""
    if "kernel" in arrays:
        return KernelMatrices(np.asarray(arrays["kernel"])) if np.any(arrays["kernel"]) else None
    if not set(STORED) <= set(arrays) or not np.any(arrays["q"]):
        return None
    return KernelFactors.of_result(*(arrays[name] for name in STORED))


def kernel_slices(arrays: Mapping[str, Any]) -> Figure:
    """The kernel a(x, y, t) at several depths, and the norms of kernel and bias over depth.

    A slice is a matrix: to x upwards, from y to the right. Over a two-dimensional Y its rows and
    columns are the nodes in file order, and receptive fields y -> a(x, y, t) of a few neurons x
    are shown on Y as well. Of more than `SHOWN` nodes so many have rows and columns shown.

    Args:
        arrays: `x`, `node_weights`, `control_t`, `bias` and `kernel` of a `solution.npz`; or, of a
            wide one in Gram form, `q`, `control_state` and `made_by` instead of `kernel`.

    Raises:
        ValueError: There is no kernel, or it is zero.
    """
    nodes, t = WidthNodes.of(arrays), np.asarray(arrays["control_t"])
    kernel, bias = kernel_of(arrays), np.asarray(arrays["bias"])
    if kernel is None:
        raise ValueError("there is no kernel to be drawn")
    some = np.array(picked(len(nodes.x), SHOWN))
    matrices = {level: kernel.block(level, some, some) for level in picked(len(t), SNAPSHOTS)}
    scale = ColourScale.of(np.stack(list(matrices.values())), signed=True)
    title = "Kernel $a(x, y, t)$"
    if len(some) < len(nodes.x):
        title += f", rows and columns of {len(some)} of {len(nodes.x)} nodes"
    width, heights = max(1.2 + _PANEL * len(matrices), 5.0), [0.8 * _PANEL + 0.75, 1.9]
    if _planar(nodes):
        heights.insert(1, snapshot_size(nodes, len(_NEURONS), len(t), _PANEL)[1])
    figure = new_figure(width, sum(heights) + 0.35, title)
    parts = list(figure.subfigures(len(heights), 1, height_ratios=heights))
    _matrices(parts[0], _edges(nodes, some), _planar(nodes), t, matrices, scale)
    if _planar(nodes):
        _receptive_fields(parts[1], nodes, t, kernel, scale)
    norms = np.sqrt(kernel.squares(nodes.weights)), np.sqrt(bias**2 @ nodes.weights)
    _norms(parts[-1].subplots(), t, *norms)
    return figure


def _planar(nodes: WidthNodes) -> bool:
    return nodes.dimension > 1


def _edges(nodes: WidthNodes, some: Numbers) -> Array:
    """Where the cells of some nodes end: on Y, or among the numbers of all nodes from 1 on."""
    edges: Array = np.arange(len(nodes.x) + 1, dtype=np.float64) + 0.5
    places: Array = np.arange(len(nodes.x), dtype=np.float64) + 1
    if not _planar(nodes) and nodes.edges is not None:
        edges, places = nodes.edges[0], nodes.x[:, 0]
    if len(some) == len(nodes.x):
        return edges
    between = (places[some[1:]] + places[some[:-1]]) / 2
    return np.concatenate([edges[:1], between, edges[-1:]])


def _matrices(
    figure: SubFigure,
    edges: Array,
    planar: bool,
    t: Array,
    matrices: Mapping[int, Array],
    scale: ColourScale,
) -> None:
    titles = depth_titles(t)
    of, to = ("node of $y$", "node of $x$") if planar else ("$y$", "$x$")
    panels = grid(figure, len(matrices), len(matrices))
    for panel, (level, values) in zip(panels, matrices.items(), strict=True):
        drawn = panel.pcolorfast(edges, edges, values, norm=scale.norm, cmap=scale.cmap)
        dress(panel, title=titles[level], x=of, y=to if panel is panels[0] else "")
    scale.key(figure, drawn, panels, "$a$")


def _receptive_fields(
    figure: SubFigure, nodes: WidthNodes, t: Array, kernel: Kernel, scale: ColourScale
) -> None:
    low, extent = nodes.x.min(axis=0), np.ptp(nodes.x, axis=0)
    neurons = list(
        dict.fromkeys(
            int(np.argmin(np.linalg.norm(nodes.x - (low + part * extent), axis=1)))
            for part in _NEURONS
        )
    )
    everywhere = np.arange(len(nodes.x))
    ours = np.array(neurons, dtype=np.intp)
    fields = np.stack([kernel.block(level, ours, everywhere) for level in range(len(t))])
    rows = {
        f"$a(x, \\cdot, t)$\n$x = ({', '.join(f'{{{c:.2f}}}' for c in nodes.x[i])})$": fields[
            :, number
        ]
        for number, i in enumerate(neurons)
    }
    panels = snapshots(figure, nodes, t, rows, scale, "$a$")
    columns = len(panels) // len(rows)
    for number, panel in enumerate(panels):
        x = nodes.x[neurons[number // columns]]
        panel.plot(*x[:2], marker="o", ms=6, mfc="none", mec="black", mew=1.1)


def _norms(axes: Axes, t: Array, kernel: Array, bias: Array) -> None:
    """L2 norms ‖a(t)‖ over Y x Y and ‖b(t)‖ over Y."""
    curves = {
        r"$\|a(t)\|_{L^2(Y \times Y)}$": kernel,
        r"$\|b(t)\|_{L^2(Y)}$": bias,
    }
    marker = "o" if len(t) <= 40 else ""
    for (label, norm), colour in zip(curves.items(), CLASS_COLOURS[::2], strict=False):
        axes.plot(t, norm, color=colour, marker=marker, ms=3.5, lw=1.6, label=label)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    dress_curves(axes, x=DEPTH, y="norm")
    axes.legend(frameon=False, fontsize=9)
