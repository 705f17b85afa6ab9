"""Methods side by side: objective gap and gradient against work and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fem_dnn.pictures.style import CLASS_COLOURS, FAINT, INK, dress_curves, new_figure

_EFFORTS = {"sweeps": "work [state or adjoint solves]", "seconds": "time [s]"}
_LINES = ("-", "--")
"""Tell apart methods that share a colour, where there are more than colours."""


def compared_methods(
    histories: Mapping[str, Sequence[Mapping[str, Any]]], *, target: float | None = None
) -> Figure:
    """Objective above the best one found, and gradient norm, against work and time.

    Thick lines show the least so far, thin ones what each iterate has.

    Args:
        histories: Method -> one mapping per iteration with `objective`, `gradient_norm`, `sweeps`
            and `seconds`.
        target: The gradient norm at which the methods were to stop.

    Raises:
        ValueError: There is no history.
    """
    if not histories or not all(histories.values()):
        raise ValueError("there is no history to draw")
    best = min(line["objective"] for history in histories.values() for line in history)
    figure = new_figure(9.0, 6.0, "Methods compared")
    panels = figure.subplots(2, 2, sharex="col", sharey="row")
    for number, (method, history) in enumerate(histories.items()):
        colour = CLASS_COLOURS[number % len(CLASS_COLOURS)]
        style = _LINES[number // len(CLASS_COLOURS) % len(_LINES)]
        gap = np.array([line["objective"] for line in history]) - best
        gradient = np.array([line["gradient_norm"] for line in history])
        for row, values in zip(panels, (gap, gradient), strict=True):
            # The best point itself is at no height on a logarithmic scale.
            values[values <= 0] = np.nan
            for panel, effort in zip(row, _EFFORTS, strict=True):
                x = np.array([float(line[effort]) for line in history])
                least = np.fmin.accumulate(values)
                panel.plot(x, values, color=colour, ls=style, lw=0.7, alpha=0.35)
                panel.plot(x, least, color=colour, ls=style, lw=1.6, label=method)
                panel.plot(x[-1:], values[-1:], color=colour, marker="o", ms=4)
    labels = (r"$J - J_{\mathrm{best}}$", r"gradient $\|\nabla J\|$")
    for r, label in enumerate(labels):
        for c, effort in enumerate(_EFFORTS.values()):
            dress_curves(panels[r, c], x=effort if r == 1 else "", y=label if c == 0 else "")
        panels[r, 0].set_yscale("log")
    for panel in panels.flat:
        # Cheap and dear methods are orders of magnitude apart; the start is at 1 or more.
        panel.set_xscale("log")
    if target is not None:
        for panel in panels[1]:
            panel.axhline(target, color=FAINT, ls="--", lw=1.0)
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside right center", frameon=False, fontsize=9, labelcolor=INK
    )
    return figure
