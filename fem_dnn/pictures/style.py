"""What all pictures share: colours, colour scales, panels, and how a figure becomes a file.

Figures are `matplotlib.figure.Figure` objects that nobody else knows of: no pyplot, no global
state, no display needed. Colours stay apart for colour-blind readers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from fem_dnn._version import __version__
from fem_dnn.files import write_whole

Array = NDArray[np.float64]

INK = "#26282b"
FAINT = "#8a8f96"
DIVERGING = "RdBu_r"
SEQUENTIAL = "viridis"
CLASS_COLOURS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
"""Ten colours told apart with every kind of colour vision (Petroff, arXiv:2107.02270)."""

TWO_CLASSES = LinearSegmentedColormap.from_list(
    "two classes", ["#1f6fb8", CLASS_COLOURS[0], "#f7f7f7", CLASS_COLOURS[1], "#d98200"]
)
"""From the first class's colour through white to the second's."""

_BEYOND = 0.5
"""Percentage of the values, of largest modulus, that a colour scale may leave beyond its end."""
_PRODUCER = {"png": "Software", "svg": "Creator", "pdf": "Creator"}


@dataclass(frozen=True)
class ColourScale:
    """A colour map with its limits.

    Attributes:
        norm: Limits; symmetric about 0 for signed fields.
        cmap: The colour map, or its name.
        extend: Which ends some values lie beyond: neither | min | max | both.
    """

    norm: Normalize
    cmap: str | Colormap
    extend: str

    @classmethod
    def of(cls, values: Array, *, signed: bool | None = None) -> ColourScale:
        """The scale for some values.

        A few outliers (one value in 200) may lie beyond the ends, so that they do not bleach
        everything else.

        Args:
            values: All values that the scale is to show.
            signed: Diverging about 0; None: if any value is negative.
        """
        low, high = float(np.min(values)), float(np.max(values))
        if low < 0 if signed is None else signed:
            limit = float(np.percentile(np.abs(values), 100 - _BEYOND)) or max(-low, high) or 1.0
            bottom, top, cmap = -limit, limit, DIVERGING
        else:
            bottom, top, cmap = low, float(np.percentile(values, 100 - _BEYOND)), SEQUENTIAL
            top = top if top > bottom else max(high, bottom + 1.0)
        beyond = (low < bottom, high > top)
        extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[beyond]
        return cls(Normalize(bottom, top), cmap, extend)

    def key(self, figure: Figure | SubFigure, drawn: Any, axes: Sequence[Axes], label: str) -> None:
        """Put the colour bar beside the axes."""
        bar = figure.colorbar(drawn, ax=list(axes), extend=self.extend, pad=0.015, aspect=28)
        symbol = label.startswith("$")
        bar.set_label(label, color=INK, fontsize=10, rotation=0 if symbol else 90)
        if symbol:
            bar.ax.yaxis.label.set_verticalalignment("center")
        bar.ax.tick_params(labelsize=8, color=FAINT, labelcolor=INK, width=0.6)
        bar.ax.spines["outline"].set_linewidth(0.4)


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure of the given size in inches, with its title."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=12, color=INK)
    return figure


def grid(figure: Figure | SubFigure, panels: int, columns: int, **options: Any) -> list[Axes]:
    """Panels in rows of `columns`, the last row possibly shorter; outer ones carry tick labels."""
    rows = math.ceil(panels / columns)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True, **options)
    for unused in axes.flat[panels:]:
        unused.remove()
    kept = list(axes.flat[:panels])
    for panel in kept[-columns:]:
        panel.tick_params(labelbottom=True)
    return kept


def dress(axes: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    """Give axes the common look, and their texts."""
    axes.set_title(title, fontsize=9.5, color=INK, pad=4)
    axes.set_xlabel(x, fontsize=10, color=INK)
    axes.set_ylabel(y, fontsize=10, color=INK)
    axes.tick_params(labelsize=8, color=FAINT, labelcolor=INK, width=0.6, length=3)
    axes.tick_params(which="minor", color=FAINT, width=0.4, length=1.5)
    for spine in axes.spines.values():
        spine.set_linewidth(0.6)
        spine.set_color(FAINT)


def dress_curves(axes: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    """The look of a plot of curves: no box, a faint grid."""
    dress(axes, title=title, x=x, y=y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, which="major", color="#e4e6e9", linewidth=0.6)
    axes.set_axisbelow(True)


def without_ticks(axes: Axes) -> None:
    """Drop the ticks of a picture whose coordinates are told elsewhere."""
    axes.set_xticks([])
    axes.set_yticks([])


def picked(count: int, wanted: int) -> list[int]:
    """`wanted` of the numbers 0 ... count - 1, spread evenly, first and last among them."""
    return np.unique(np.round(np.linspace(0, count - 1, wanted)).astype(int)).tolist()


def depth_titles(t: Array) -> list[str]:
    """Depths as short texts, to a thousandth of the largest."""
    decimals = 3 - math.floor(math.log10(np.max(np.abs(t)) or 1.0))
    return [f"$t = {round(float(depth), decimals):g}$" for depth in t]


def label_texts(labels: Array) -> list[str]:
    """Numeric class labels as texts, with a proper minus."""
    return [f"{label:g}".replace("-", "\N{MINUS SIGN}") for label in labels]


def save(figure: Figure, path: Path | str) -> Path:
    """Write a figure, whole or not at all.

    Args:
        figure: The figure.
        path: File; its ending chooses the format: png (160 dots per inch), svg or pdf.

    Returns:
        The path.

    Raises:
        ValueError: Another ending.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in _PRODUCER:
        raise ValueError(f"{path}: pictures end in {', '.join('.' + k for k in _PRODUCER)}")
    metadata = {_PRODUCER[kind]: f"fem-dnn {__version__}", "Title": figure.get_suptitle()}
    write_whole(path, lambda file: figure.savefig(file, format=kind, dpi=160, metadata=metadata))
    return path
