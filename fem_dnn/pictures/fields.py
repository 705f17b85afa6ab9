"""Functions of depth and width: hidden state, adjoint state, bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from fem_dnn.pictures.style import (
    INK,
    ColourScale,
    depth_titles,
    dress,
    grid,
    new_figure,
    picked,
    without_ticks,
)
from fem_dnn.pictures.width import WidthNodes, over_depth

Array = NDArray[np.float64]
Arrays = Mapping[str, Any]
"""The content of a `solution.npz`."""

DEPTH, WIDTH = "depth $t$", "width $x$"
SNAPSHOTS = 6
"""Depths at which fields on a two-dimensional Y are shown."""


def hidden_state(
    arrays: Arrays, samples: Sequence[int], *, labels: Sequence[object] | None = None
) -> Figure:
    """The hidden state f_s(x, t) of a few samples over depth and width.

    Over an interval: one image per sample, depth to the right, width upwards. Over a
    two-dimensional Y: one row of snapshots per sample, at several depths.

    Args:
        arrays: `x`, `node_weights`, `t` and `state` of a `solution.npz`.
        samples: Which samples.
        labels: What each of these samples is, e.g. its class; shown beside its number.
    """
    return _over_depth_and_width(
        arrays, "state", samples, labels, "Hidden state $f_s(x, t)$", "$f_s$", None
    )


def adjoint_state(
    arrays: Arrays, samples: Sequence[int], *, labels: Sequence[object] | None = None
) -> Figure:
    """The adjoint state p_s(x, t): how the cost beyond t reacts to a change of f_s(x, t).

    Arguments and layout as for `hidden_state`, with `adjoint` in place of `state`.
    """
    return _over_depth_and_width(
        arrays, "adjoint", samples, labels, "Adjoint state $p_s(x, t)$", "$p_s$", True
    )


def _over_depth_and_width(
    arrays: Arrays,
    name: str,
    samples: Sequence[int],
    labels: Sequence[object] | None,
    title: str,
    symbol: str,
    signed: bool | None,
) -> Figure:
    nodes, t = WidthNodes.of(arrays), np.asarray(arrays["t"])
    values = np.asarray(arrays[name])[:, list(samples), :]
    texts = [f"sample {s}" for s in samples]
    if labels is not None:
        texts = [f"{text}: {label}" for text, label in zip(texts, labels, strict=True)]
    scale = ColourScale.of(values, signed=signed)
    if nodes.dimension > 1:
        rows = {text: values[:, s] for s, text in enumerate(texts)}
        width, height = snapshot_size(nodes, len(rows), len(t))
        figure = new_figure(width, height + 0.35, title + nodes.place)
        snapshots(figure, nodes, t, rows, scale, symbol)
        return figure

    columns = 2 if len(texts) == 4 else min(3, len(texts))
    rows_needed = -(-len(texts) // columns)
    figure = new_figure(1.1 + 2.9 * columns, 0.9 + 2.0 * rows_needed, title)
    panels = grid(figure, len(texts), columns)
    for s, (panel, text) in enumerate(zip(panels, texts, strict=True)):
        drawn = nodes.draw_over(panel, *over_depth(t, values[:, s]), scale)
        below_none = s + columns >= len(texts)
        dress(
            panel,
            title=text,
            x=DEPTH if below_none else "",
            y=WIDTH if s % columns == 0 else "",
        )
    scale.key(figure, drawn, panels, symbol)
    return figure


def bias_field(arrays: Arrays) -> Figure:
    """The bias b(x, t) at the control levels.

    Args:
        arrays: `x`, `node_weights`, `control_t`, `control_weights` and `bias` of a `solution.npz`.
    """
    nodes, bias = WidthNodes.of(arrays), np.asarray(arrays["bias"])
    t, scale = np.asarray(arrays["control_t"]), ColourScale.of(bias, signed=True)
    title = "Bias $b(x, t)$"
    if nodes.dimension > 1:
        width, height = snapshot_size(nodes, 1, len(t))
        figure = new_figure(width, height + 0.35, title + nodes.place)
        snapshots(figure, nodes, t, {"": bias}, scale, "$b$")
        return figure
    figure = new_figure(6.4, 3.2, title)
    panel = figure.subplots()
    edges = np.concatenate([[0.0], np.cumsum(arrays["control_weights"])])
    drawn = nodes.draw_over(panel, edges, bias, scale)
    dress(panel, x=DEPTH, y=WIDTH)
    scale.key(figure, drawn, [panel], "$b$")
    return figure


def compared_functions(arrays: Arrays, rows: Mapping[str, Array], title: str) -> Figure:
    """Kinds of functions on a two- or three-dimensional Y: a row each, a column per sample.

    Args:
        arrays: `x` and `node_weights` of a `solution.npz`, and its mesh if it is to be seen.
        rows: Text and values, shape (samples, nodes), of each row.
        title: Title.
    """
    nodes = WidthNodes.of(arrays)
    scale = ColourScale.of(np.concatenate(list(rows.values())))
    samples = len(next(iter(rows.values())))
    width, height = snapshot_size(nodes, len(rows), samples, 1.9)
    figure = new_figure(width, height + 0.35, title + nodes.place)
    panels = grid(figure, len(rows) * samples, samples)
    for number, panel in enumerate(panels):
        r, s = divmod(number, samples)
        drawn = nodes.draw(panel, list(rows.values())[r][s], scale)
        dress(panel, title=f"sample {s}" if r == 0 else "")
        without_ticks(panel)
        if s == 0:
            panel.set_ylabel(list(rows)[r], fontsize=9, color=INK)
    scale.key(figure, drawn, panels, "")
    return figure


def snapshot_size(
    nodes: WidthNodes, rows: int, depths: int, panel: float = 1.35
) -> tuple[float, float]:
    """Inches that rows of snapshots want, each `panel` wide."""
    extent = np.ptp(nodes.x, axis=0)
    aspect = float(np.clip((extent[1] or 1) / (extent[0] or 1), 0.3, 2.0))
    shown = len(picked(depths, SNAPSHOTS))
    return 1.2 + panel * shown, 0.3 + (panel * aspect + 0.06) * rows


def snapshots(
    figure: Figure | SubFigure,
    nodes: WidthNodes,
    t: Array,
    rows: Mapping[str, Array],
    scale: ColourScale,
    symbol: str,
) -> list[Axes]:
    """Functions on a two-dimensional Y at several depths: a row per function, a column per depth.

    Args:
        figure: Where to draw.
        nodes: Nodes of Y.
        t: Depths, shape (depths,).
        rows: Text and values, shape (depths, nodes), of each row.
        scale: Colours.
        symbol: For the colour bar.

    Returns:
        The panels, row by row.
    """
    shown, titles = picked(len(t), SNAPSHOTS), depth_titles(t)
    panels = grid(figure, len(rows) * len(shown), len(shown))
    for r, (text, values) in enumerate(rows.items()):
        row = panels[r * len(shown) : (r + 1) * len(shown)]
        for panel, level in zip(row, shown, strict=True):
            drawn = nodes.draw(panel, values[level], scale)
            dress(panel, title=titles[level] if r == 0 else "")
            without_ticks(panel)
        row[0].set_ylabel(text, fontsize=9, color=INK)
    scale.key(figure, drawn, panels, symbol)
    return panels
