"""How training went: convergence, and which classes are taken for which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from fem_dnn.pictures.style import (
    CLASS_COLOURS,
    FAINT,
    INK,
    dress,
    dress_curves,
    label_texts,
    new_figure,
)

_MEASURES = {
    "objective": ("objective $J$", CLASS_COLOURS[0]),
    "gradient_norm": (r"gradient $\|\nabla J\|$", CLASS_COLOURS[6]),
    "accuracy": ("training accuracy", CLASS_COLOURS[4]),
}
_EFFORTS = {
    "iteration": "iteration",
    "hessian_solves": "Hessian products",
    "linear_iterations": "linear iterations",
    "seconds": "time [s]",
}


def convergence(history: Sequence[Mapping[str, Any]], *, target: float | None = None) -> Figure:
    """Objective, gradient norm and accuracy against iterations, Hessian products and time.

    Args:
        history: One mapping per iteration, as in `result.json`. What is missing, or is 0
            throughout, is not drawn.
        target: The gradient norm at which the solver was to stop.

    Raises:
        ValueError: The history is empty.
    """
    if not history:
        raise ValueError("there is no history to draw")

    def column(key: str) -> np.ndarray:
        return np.array([float(line.get(key) or 0.0) for line in history])

    measures = [key for key in _MEASURES if any(line.get(key) is not None for line in history)]
    efforts = [key for key in _EFFORTS if key == "iteration" or column(key).any()]
    if "hessian_solves" in efforts and "linear_iterations" in efforts:
        efforts.remove("linear_iterations")  # one Hessian product each
    figure = new_figure(0.9 + 2.7 * len(efforts), 0.6 + 1.75 * len(measures), "Convergence")
    panels = figure.subplots(len(measures), len(efforts), squeeze=False, sharex="col", sharey="row")
    for r, (row, measure) in enumerate(zip(panels, measures, strict=True)):
        label, colour = _MEASURES[measure]
        for panel, effort in zip(row, efforts, strict=True):
            panel.plot(
                column(effort), column(measure), color=colour, lw=1.6,
                marker="o", ms=3.5 if len(history) <= 60 else 0, clip_on=False, zorder=3,
            )  # fmt: skip
            bottom = r == len(measures) - 1
            dress_curves(
                panel,
                x=_EFFORTS[effort] if bottom else "",
                y=label if panel is row[0] else "",
            )
        if _wants_decades(measure, column(measure)):
            row[0].set_yscale("log")
        if measure == "gradient_norm" and target is not None:
            _mark_target(row, target)
    figure.align_ylabels()
    return figure


def _wants_decades(measure: str, values: np.ndarray) -> bool:
    """Gradients decrease by orders of magnitude, objectives sometimes."""
    if values.min() <= 0 or measure == "accuracy":
        return False
    return measure == "gradient_norm" or bool(values.max() > 10 * values.min())


def _mark_target(row: Sequence[Axes], target: float) -> None:
    for panel in row:
        panel.axhline(target, color=FAINT, ls="--", lw=1.0)
    row[0].annotate(
        "target", (0.0, target), xycoords=("axes fraction", "data"), xytext=(4, 3),
        textcoords="offset points", ha="left", fontsize=8, color=FAINT,
    )  # fmt: skip


def confusion(
    true: ArrayLike, predicted: ArrayLike, class_names: Sequence[str] | None = None
) -> Figure:
    """The confusion matrix, with the share of each class that is recognised.

    Args:
        true: Labels: class numbers 0, 1, ..., or -1 and +1; shape (samples,).
        predicted: What the network says, likewise.
        class_names: Names of the classes 0, 1, ..., or of -1 and +1; None: the labels themselves.
    """
    true, predicted = np.asarray(true).astype(int), np.asarray(predicted).astype(int)
    present = np.union1d(true, predicted)
    if class_names is None:
        classes, names = present, label_texts(present)
    else:
        names = list(class_names)
        classes = np.array([-1, 1]) if present.min() < 0 else np.arange(len(names))
    count = len(classes)
    matrix = np.zeros((count, count), dtype=int)
    np.add.at(matrix, (np.searchsorted(classes, true), np.searchsorted(classes, predicted)), 1)
    totals = matrix.sum(axis=1)
    share = matrix / np.maximum(totals, 1)[:, None]

    right, everything = int(np.trace(matrix)), int(matrix.sum())
    size = 2.2 + 0.42 * max(count, 3)
    title = f"Accuracy {right / everything:.1%}  ({right} of {everything} samples)"
    figure = new_figure(size + 0.5, size, title)
    axes = figure.subplots()
    axes.pcolormesh(share, cmap="Blues", norm=Normalize(0, 1), edgecolors="white", linewidth=1.2)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    middles = np.arange(count) + 0.5
    for i, j in zip(*np.nonzero(matrix), strict=True):
        colour = "white" if share[i, j] > 0.5 else INK
        text = str(matrix[i, j])
        axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=9, color=colour)
    dress(axes, x="predicted class", y="true class")
    tilted = max(len(name) for name in names) > 3
    axes.set_xticks(
        middles, names, rotation=40 if tilted else 0, ha="right" if tilted else "center",
        rotation_mode="anchor" if tilted else None,
    )  # fmt: skip
    axes.set_yticks(middles, names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    recognised = axes.secondary_yaxis("right")
    shares = zip(share.diagonal(), totals, strict=True)
    recognised.set_yticks(middles, [f"{part:.1%}" if n else "–" for part, n in shares])
    recognised.set_ylabel("recognised", fontsize=10, color=INK)
    recognised.tick_params(labelsize=8, length=0, labelcolor=INK)
    recognised.spines["right"].set_visible(False)
    return figure
