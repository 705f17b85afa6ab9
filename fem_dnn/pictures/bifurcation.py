"""Bifurcation diagrams: branches of critical points against the parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatterSciNotation
from numpy.typing import NDArray

from fem_dnn.pictures.style import CLASS_COLOURS, FAINT, INK, dress_curves, new_figure

Array = NDArray[np.float64]

STYLES: dict[str, tuple[Any, float, str]] = {
    "minimum": ("-", 2.0, "minimum"),
    "saddle": ((0, (3.2, 1.6)), 1.4, "saddle"),
    "maximum": ((0, (1.0, 1.4)), 1.4, "maximum"),
    "degenerate": ((0, (5.0, 1.2, 1.0, 1.2)), 1.6, "degenerate"),
}
"""Line, width and name by kind."""

EVENTS = {"fold": ("D", "white"), "branch point": ("o", INK)}
"""Marker and filling by kind."""

_COLOURS = tuple(CLASS_COLOURS[n] for n in (0, 6, 4, 1, 8, 2, 5, 7))


def bifurcation_diagram(
    result: Mapping[str, Any], *, title: str = "", name: str = "", second: str | None = None
) -> Figure:
    """Objective and size of the critical points against the parameter.

    The second panel shows, where there is a branch point, the controls' component along its null
    vector (so that mirror images stay apart), else their norm. Minima are drawn solid.

    Args:
        result: The result of `path`.
        title: Default: what was followed.
        name: What the parameter is called at the axis; default: its key.
        second: Column of the branches for the second panel; default as above.
    """
    branches: Sequence[Mapping[str, Any]] = result["branches"]
    name = name or result["parameter"]
    if second is None:
        known = any("amplitude" in branch for branch in branches)
        second = "amplitude" if known else "control_norm"
    figure = new_figure(9.6, 4.3, title or f"Critical points along {name}")
    panels = figure.subplots(1, 2)
    texts = {
        "objective": "objective $J$",
        "amplitude": "component along the null vector",
        "control_norm": r"norm of the controls $\|c\|$",
    }
    for panel, column in zip(panels, ("objective", second), strict=True):
        for number, branch in enumerate(branches):
            colour = _COLOURS[0] if number == 0 else _COLOURS[1 + (number - 1) % 7]
            _draw_branch(panel, branches, branch, column, colour)
        for branch in branches:
            _draw_events(panel, branch, column)
        dress_curves(panel, x=name, y=texts.get(column, column))
        if result.get("logarithmic"):
            panel.set_xscale("log")
            panel.xaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(2, 0.7)))
            panel.tick_params(axis="x", which="minor", labelsize=7, labelcolor=INK)
        panel.margins(x=0.02, y=0.06)
    _legend(figure, branches)
    return figure


def _draw_branch(
    panel: Axes,
    branches: Sequence[Mapping[str, Any]],
    branch: Mapping[str, Any],
    column: str,
    colour: str,
) -> None:
    """One curve, in pieces of one kind each that meet at the events."""
    points = list(zip(branch["parameter"], branch[column], branch["kind"], strict=True))
    inserted = [(e["after_points"], (e["parameter"], e[column], "")) for e in branch["events"]]
    for position, point in reversed(inserted):
        points.insert(position, point)
    if branch["from"] is not None:
        start = branches[branch["from"]["branch"]]["events"][branch["from"]["event"]]
        points.insert(0, (start["parameter"], start[column], ""))
    pieces: list[tuple[str, list[tuple[float, float]]]] = []
    for before, after in pairwise(points):
        kind = after[2] or before[2] or "degenerate"
        if not pieces or pieces[-1][0] != kind:
            pieces.append((kind, [before[:2]]))
        pieces[-1][1].append(after[:2])
    for kind, line in pieces:
        style, width, _ = STYLES[kind]
        panel.plot(
            *zip(*line, strict=True), color=colour, ls=style, lw=width, zorder=3,
            solid_capstyle="round",
        )  # fmt: skip


def _draw_events(panel: Axes, branch: Mapping[str, Any], column: str) -> None:
    for event in branch["events"]:
        marker, filling = EVENTS[event["kind"]]
        panel.plot(
            event["parameter"], event[column], marker, ms=6, mfc=filling, mec=INK, mew=1.1,
            zorder=5, clip_on=False,
        )  # fmt: skip


def _legend(figure: Figure, branches: Sequence[Mapping[str, Any]]) -> None:
    kinds = {kind for branch in branches for kind in branch["kind"]}
    events = {event["kind"] for branch in branches for event in branch["events"]}
    keys = [
        Line2D([], [], color=FAINT, ls=line, lw=width, label=text)
        for kind, (line, width, text) in STYLES.items()
        if kind in kinds
    ]
    keys += [
        Line2D([], [], ls="", marker=marker, mfc=filling, mec=INK, ms=6, label=kind)
        for kind, (marker, filling) in EVENTS.items()
        if kind in events
    ]
    figure.legend(
        handles=keys, loc="outside lower center", ncols=len(keys), frameon=False, fontsize=9,
        handlelength=3.2,
    )  # fmt: skip
