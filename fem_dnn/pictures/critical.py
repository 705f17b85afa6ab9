"""Critical points: objective against lowest eigenvalue, and what the lowest ones look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fem_dnn.pictures.style import (
    CLASS_COLOURS,
    FAINT,
    INK,
    ColourScale,
    dress,
    dress_curves,
    new_figure,
    without_ticks,
)

Array = NDArray[np.float64]

SHOWN = 6
"""Points whose controls are drawn: the lowest, copies last."""

NEAR = np.array([0.05, 0.07])
"""Parts of the ladder's width and height within which points share a label."""

KINDS = {
    "minimum": (CLASS_COLOURS[0], "o"),
    "saddle": (CLASS_COLOURS[6], "D"),
    "maximum": (CLASS_COLOURS[2], "^"),
    "degenerate": (CLASS_COLOURS[4], "s"),
}


def critical_points(
    points: Sequence[Mapping[str, Any]], arrays: Sequence[Mapping[str, Any]]
) -> Figure:
    """The points by objective and lowest eigenvalue, and the controls of some of them.

    Of kernels the average over depth is drawn; the index is the number of negative eigenvalues.

    Args:
        points: The `points` of a `result.json`, one at least.
        arrays: The content of every point's `solution.npz`.

    Raises:
        ValueError: There are no points.
    """
    if not points:
        raise ValueError("there are no critical points to draw")
    order = sorted(
        range(len(points)), key=lambda i: (points[i]["copy_of"] is not None, _height(points[i]))
    )
    shown = sorted(order[:SHOWN], key=lambda i: (_height(points[i]), i))
    rows = [name for name in ("kernel", "bias") if any(np.any(each[name]) for each in arrays)]
    width = max(1.7 * len(shown) + 0.9, 6.5)
    heights = [3.1, *[1.75] * len(rows)]
    figure = new_figure(width, sum(heights) + 0.4, "Critical points")
    parts = list(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    _ladder(parts[0].subplots(), points)
    for part, name in zip(parts[1:], rows, strict=True):
        panels = list(part.subplots(1, len(shown), squeeze=False)[0])
        images = [_image(arrays[i], name) for i in shown]
        scale = ColourScale.of(np.stack(images), signed=True)
        for panel, i, image in zip(panels, shown, images, strict=True):
            drawn = panel.imshow(
                image, origin="lower", aspect="auto", norm=scale.norm, cmap=scale.cmap
            )
            title = _title(points[i]) if name == rows[0] else ""
            first = panel is panels[0]
            axes = ("$y$", "$x$") if name == "kernel" else ("$t$", "$x$")
            dress(panel, title=title, x=axes[0], y=axes[1] if first else "")
            without_ticks(panel)
        label = r"$\bar a$" if name == "kernel" else "$b$"
        scale.key(part, drawn, panels, label)
    return figure


def _title(point: Mapping[str, Any]) -> str:
    negative = point["negative_eigenvalues"]
    index = f", index {negative}" if negative else ""
    return f"{point['number']}: {point['kind']}{index}"


def _height(point: Mapping[str, Any]) -> float:
    return float(point["objective"])


def _image(arrays: Mapping[str, Any], name: str) -> Array:
    """The depth average of the kernel, x upwards; the bias with depth to the right."""
    if name == "bias":
        return np.asarray(arrays["bias"]).T
    weights = np.asarray(arrays["control_weights"])
    average: Array = np.tensordot(weights / weights.sum(), np.asarray(arrays["kernel"]), axes=1)
    return average


def _ladder(axes: Axes, points: Sequence[Mapping[str, Any]]) -> None:
    """One marker per point; points that lie together share a label."""
    axes.axvline(0.0, color=FAINT, lw=1.0, ls="--")
    for kind, (colour, marker) in KINDS.items():
        these = [point for point in points if point["kind"] == kind]
        if these:
            axes.plot(
                [point["lowest_eigenvalue"] for point in these],
                [point["objective"] for point in these],
                marker,
                color=colour,
                ms=7,
                label=kind,
            )
    for group in _near_each_other(points):
        ahead = max(group, key=lambda point: point["lowest_eigenvalue"])
        axes.annotate(
            _listed([each["number"] for each in group]),
            (ahead["lowest_eigenvalue"], sum(map(_height, group)) / len(group)),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
        )
    axes.margins(x=0.25, y=0.15)
    dress_curves(axes, x=r"lowest eigenvalue of $\nabla^2 J$", y="objective $J$")
    axes.legend(frameon=False, fontsize=9, loc="best", labelcolor=INK)


def _near_each_other(points: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Groups of points whose labels would overlap."""
    places = np.array([[point["lowest_eigenvalue"], _height(point)] for point in points])
    extent = np.ptp(places, axis=0)
    extent[extent == 0] = 1.0
    groups: list[tuple[Array, list[Mapping[str, Any]]]] = []
    for place, point in zip(places / extent, points, strict=True):
        for first, group in groups:
            if np.all(np.abs(place - first) <= NEAR):
                group.append(point)
                break
        else:
            groups.append((place, [point]))
    return [group for _, group in groups]


def _listed(numbers: Sequence[int]) -> str:
    """Numbers as text, long lists shortened."""
    texts = [str(number) for number in numbers]
    return ", ".join(texts if len(texts) <= 6 else [*texts[:5], "...", texts[-1]])
