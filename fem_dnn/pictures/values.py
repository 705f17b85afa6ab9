"""The value function over the states, and its gradient along the open loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fem_dnn.pictures.style import (
    CLASS_COLOURS,
    ColourScale,
    depth_titles,
    dress,
    dress_curves,
    new_figure,
    picked,
)

Array = NDArray[np.float64]
Arrays = Mapping[str, Any]

OPEN, CLOSED, KINK = "#ffffff", CLASS_COLOURS[6], "#ff4fd8"
LINES = 14
"""Contour lines."""


def value_function(arrays: Arrays, open_loop: Arrays) -> Figure:
    """V over the box, with the open and the closed loop and V's kinks.

    One state dimension: V over depth and state. Two: the states at a few depths. Three: the planes
    through the input at t = 0, the loops projected onto them.

    Args:
        arrays: The content of `value.npz`.
        open_loop: `t` and `state` of a `solution.npz`; empty where there is none.
    """
    dimension = sum(name.startswith("axis_") for name in arrays)
    return {1: _over_depth, 2: _at_depths, 3: _in_planes}[dimension](arrays, open_loop)


def value_gradient(arrays: Arrays) -> Figure:
    """D_{f_s} V at the states of the open loop against w_s p_s, component by component.

    Args:
        arrays: The content of `value.npz`, with `gradient_t`, `value_gradient` and `adjoint`.
    """
    t, names = np.asarray(arrays["gradient_t"]), _names(arrays)
    ours = np.asarray(arrays["value_gradient"]).reshape(len(t), -1)
    adjoint = np.asarray(arrays["adjoint"]).reshape(len(t), -1)
    figure = new_figure(6.2, 3.6, "Gradient of $V$ along the open loop, and the adjoint")
    axes = figure.subplots()
    shown = picked(len(t), 25)
    for i, name in enumerate(names):
        colour = CLASS_COLOURS[(0, 6, 4)[i]]
        axes.plot(t, adjoint[:, i], color=colour, lw=1.6, label=f"$w p$, {name}")
        axes.plot(
            t[shown], ours[shown, i], color=colour, ls="", marker="o", ms=4.5, mfc="white",
            label=f"$DV$, {name}", zorder=3,
        )  # fmt: skip
    dress_curves(axes, x="depth $t$")
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _names(arrays: Arrays) -> list[str]:
    """What the state dimensions are called."""
    samples, nodes = np.asarray(arrays["input"]).shape
    if samples == nodes == 1:
        return ["$f$"]
    if samples == 1:
        return [f"$f(x_{i})$" for i in range(nodes)]
    return [f"$f_{s}$" for s in range(samples)]


def _over_depth(arrays: Arrays, open_loop: Arrays) -> Figure:
    t, f = np.asarray(arrays["t"]), np.asarray(arrays["axis_0"])
    values, marked = np.asarray(arrays["values"]), np.asarray(arrays["kinks"])
    figure = new_figure(6.6, 4.2, "Value function $V(f, t)$")
    axes = figure.subplots()
    drawn, scale = _image(axes, t, f, values)
    _mark(axes, t, f, marked)
    closed = np.asarray(arrays["closed_state"]).ravel()
    axes.plot(arrays["closed_t"], closed, color=CLOSED, lw=2.0)
    if open_loop:
        axes.plot(open_loop["t"], np.ravel(open_loop["state"]), color=OPEN, lw=1.4, ls="--")
    axes.plot(0.0, closed[0], color=CLOSED, marker="o", ms=6, mec="white", clip_on=False, zorder=4)
    dress(axes, x="depth $t$", y="state $f$")
    _key(figure, axes, drawn, scale, "$V$")
    _legend(figure, bool(open_loop), bool(marked.any()))
    return figure


def _at_depths(arrays: Arrays, open_loop: Arrays) -> Figure:
    t, x, y = (np.asarray(arrays[name]) for name in ("t", "axis_0", "axis_1"))
    values, marked = np.asarray(arrays["values"]), np.asarray(arrays["kinks"])
    shown = picked(len(t), 3)
    figure = new_figure(0.5 + 3.9 * len(shown), 3.9, "Value function over the states")
    panels = figure.subplots(1, len(shown), squeeze=False, sharex=True, sharey=True)[0]
    names, titles = _names(arrays), depth_titles(t)
    for axes, n in zip(panels, shown, strict=True):
        # V falls by orders of magnitude from T to 0: every depth has colours of its own.
        drawn, scale = _image(axes, x, y, values[n])
        _mark(axes, x, y, marked[n])
        _key(figure, axes, drawn, scale, "$V$" if n == shown[-1] else "")
        _loops(axes, arrays, open_loop, (0, 1), float(t[n]))
        first = axes is panels[0]
        dress(axes, title=titles[n], x=names[0], y=names[1] if first else "")
    _legend(figure, bool(open_loop), bool(marked[shown].any()))
    return figure


def _in_planes(arrays: Arrays, open_loop: Arrays) -> Figure:
    axes_of = [np.asarray(arrays[f"axis_{i}"]) for i in range(3)]
    values, marked = np.asarray(arrays["values"])[0], np.asarray(arrays["kinks"])[0]
    start, names = np.asarray(arrays["input"]).ravel(), _names(arrays)
    at = [int(np.argmin(np.abs(axis - f))) for axis, f in zip(axes_of, start, strict=True)]
    planes = []
    for pair in combinations(range(3), 2):
        third = ({0, 1, 2} - set(pair)).pop()
        planes.append((pair, third, values.take(at[third], third), marked.take(at[third], third)))
    title = "Value function in the planes through the input, $t = 0$"
    figure = new_figure(12.4, 3.9, title)
    panels = figure.subplots(1, 3)
    for axes, ((i, j), third, plane, kinks) in zip(panels, planes, strict=True):
        drawn, scale = _image(axes, axes_of[i], axes_of[j], plane)
        _mark(axes, axes_of[i], axes_of[j], kinks)
        _key(figure, axes, drawn, scale, "$V$" if axes is panels[-1] else "")
        _loops(axes, arrays, open_loop, (i, j), 0.0)
        name = names[third].strip("$")
        dress(axes, title=f"${name} = {start[third]:.3g}$", x=names[i], y=names[j])
    _legend(figure, bool(open_loop), any(bool(kinks.any()) for *_, kinks in planes))
    return figure


def _image(axes: Axes, x: Array, y: Array, values: Array) -> tuple[Any, ColourScale]:
    """V in colours, with lines at equal distances of its root: it is about quadratic."""
    scale = ColourScale.of(np.maximum(values, 0.0), signed=False)
    norm = PowerNorm(0.5, scale.norm.vmin, scale.norm.vmax, clip=True)
    drawn = axes.pcolormesh(x, y, values.T, norm=norm, cmap=scale.cmap, shading="gouraud")
    low, high = np.sqrt(np.maximum([values.min(), values.max()], 0.0))
    if high > low:
        levels = np.linspace(low, high, LINES + 2)[1:-1] ** 2
        axes.contour(x, y, values.T, levels=levels, colors="white", linewidths=0.5, alpha=0.6)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])
    return drawn, replace(scale, norm=norm)


def _key(figure: Figure, axes: Axes, drawn: Any, scale: ColourScale, label: str) -> None:
    scale.key(figure, drawn, [axes], label)
    low, high = drawn.get_clim()
    ticks = MaxNLocator(5).tick_values(low, high)
    drawn.colorbar.set_ticks(ticks[(ticks >= low) & (ticks <= high)])


def _mark(axes: Axes, x: Array, y: Array, marked: NDArray[np.bool_]) -> None:
    i, j = np.nonzero(marked)
    axes.plot(x[i], y[j], color=KINK, ls="", marker=".", ms=1.5)


def _loops(axes: Axes, arrays: Arrays, open_loop: Arrays, pair: tuple[int, int], t: float) -> None:
    """Both loops in a plane, with the place where the closed one is at a depth."""
    closed_t, closed = np.asarray(arrays["closed_t"]), np.asarray(arrays["closed_state"])
    path = closed.reshape(len(closed_t), -1)[:, pair]
    axes.plot(*path.T, color=CLOSED, lw=2.0)
    if open_loop:
        states = np.asarray(open_loop["state"])
        axes.plot(*states.reshape(len(states), -1)[:, pair].T, color=OPEN, lw=1.4, ls="--")
    here = path[int(np.argmin(np.abs(closed_t - t)))]
    axes.plot(*here, color=CLOSED, marker="o", ms=6, mec="white", zorder=4)


def _legend(figure: Figure, with_open_loop: bool, with_kinks: bool) -> None:
    handles = [Line2D([], [], color=CLOSED, lw=2.0, label="closed loop")]
    if with_open_loop:
        handles.append(
            Line2D([], [], color=OPEN, lw=1.4, ls="--", label="open loop (optimality system)")
        )
    if with_kinks:
        handles.append(
            Line2D([], [], color=KINK, ls="", marker=".", ms=6, label="$V$ not differentiable")
        )
    legend = figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8.5,
        facecolor="#8a8f96", edgecolor="none", labelcolor="white",
    )  # fmt: skip
    legend.get_frame().set_alpha(1.0)
    for text in legend.get_texts():
        text.set_color("white")
