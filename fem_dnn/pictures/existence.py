"""Pictures of velocity sets, of controls that oscillate, and of how gaps close."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from fem_dnn.existence.frozen import FrozenNeuron
from fem_dnn.existence.hull import above_hull
from fem_dnn.existence.layered import Layered
from fem_dnn.existence.minimising_sequence import Term
from fem_dnn.existence.mixture import Envelope
from fem_dnn.existence.rates import Fit
from fem_dnn.existence.velocity_set import VelocitySet
from fem_dnn.pictures.style import CLASS_COLOURS, FAINT, INK, dress, dress_curves, new_figure

Array = NDArray[np.float64]

_MIXED = "#ffe3b3"


def velocity_set(
    velocities: VelocitySet,
    envelope: Envelope,
    u: Array,
    *,
    limits: tuple[tuple[float, float], tuple[float, float]],
    title: str,
) -> Figure:
    """The cost density over two samples' velocities, where it lies above its envelope, and a point.

    Args:
        velocities: Two samples' set.
        envelope: Its envelope at a point.
        u: Where r is sampled, a grid of shape (n, n, 2) that covers more than the picture.
        limits: Velocities of sample 1 and of sample 2 that are shown.
        title: What the picture says.
    """
    z = velocities.controls(u)
    v, cost = velocities.velocity(z), velocities.cost(z)
    mixed = above_hull(v.reshape(-1, 2), cost.ravel()).reshape(cost.shape)
    figure = new_figure(6.4, 5.2, title)
    axes = figure.subplots()
    x, y = v[..., 0], v[..., 1]
    axes.contourf(x, y, mixed.astype(float), levels=[0.5, 1.5], colors=[_MIXED])
    shown = (x > limits[0][0]) & (x < limits[0][1]) & (y > limits[1][0]) & (y < limits[1][1])
    levels = np.unique(np.quantile(cost[shown], np.linspace(0.03, 0.97, 14)))
    axes.contour(x, y, cost, levels=levels, colors=FAINT, linewidths=0.7)
    ends = envelope.velocities
    axes.plot(ends[:, 0], ends[:, 1], color=INK, lw=1.2)
    axes.plot(ends[:, 0], ends[:, 1], "o", color=CLASS_COLOURS[2], ms=7, ls="none")
    axes.plot(*envelope.point, "D", color=CLASS_COLOURS[0], ms=6, ls="none")
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])
    dress(axes, x="velocity of sample 1", y="velocity of sample 2")
    keys = [
        Line2D([], [], color=FAINT, lw=0.7, label="levels of the cost $r$"),
        Line2D([], [], color=_MIXED, lw=8, label="$r^{**} < r$: mixing pays"),
        Line2D([], [], color=CLASS_COLOURS[0], marker="D", ls="none", label="wanted mean velocity"),
        Line2D([], [], color=CLASS_COLOURS[2], marker="o", ls="none", label="controls to mix"),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def oscillation(neuron: FrozenNeuron, terms: Sequence[Term], *, title: str) -> Figure:
    """Velocities and states along the depth, one column per member of a minimising sequence."""
    figure = new_figure(0.8 + 3.1 * len(terms), 5.0, title)
    panels = figure.subplots(2, len(terms), sharex=True, sharey="row", squeeze=False)
    for above, below, term in zip(*panels, terms, strict=True):
        problem = Layered(neuron, term.layers)
        v = neuron.velocities.velocity(term.minimum.z)
        for s in range(v.shape[1]):
            colour = CLASS_COLOURS[2 * s]
            above.stairs(
                v[:, s], problem.t, baseline=None, color=colour, lw=0.9, label=f"sample {s + 1}"
            )
            wanted = neuron.intercept[s] + neuron.slope[s] * problem.t
            misfit = problem.states(v)[:, s] - wanted
            below.plot(problem.t, misfit, color=colour, lw=1.0)
        dress_curves(above, title=f"{term.layers} layers, gap {term.gap:.2e}")
        dress_curves(below, x="depth $t$")
    panels[0, 0].set_ylabel("velocity $\\sigma(u)$", fontsize=10, color=INK)
    panels[1, 0].set_ylabel("state minus its target", fontsize=10, color=INK)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def closing_gaps(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float], Fit]]], *, title: str
) -> Figure:
    """Gaps to the infimum on logarithmic scales, with their fitted rates.

    Args:
        panels: By the name of the abscissa: by the curve's name, abscissae, gaps and their fit.
        title: What the picture says.
    """
    figure = new_figure(0.6 + 4.0 * len(panels), 3.8, title)
    for k, (axes, (name, curves)) in enumerate(
        zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True)
    ):
        for colour, (label, (x, y, fit)) in zip(CLASS_COLOURS, curves.items(), strict=False):
            slope = f"{fit.exponent:.2f}".replace("-", "\N{MINUS SIGN}")
            axes.loglog(x, y, "o", color=colour, ms=5, label=f"{label}: slope {slope}")
            axes.loglog(x, fit.factor * np.asarray(x, float) ** fit.exponent, color=colour, lw=0.9)
            if np.all(np.asarray(x) == np.round(x)):
                axes.set_xticks(x, [f"{number:g}" for number in x])
                axes.set_xticks([], minor=True)
        dress_curves(axes, x=name, y="$J - \\inf J$" if k == 0 else "")
        rising = all(fit.exponent > 0 for _, _, fit in curves.values())
        axes.legend(fontsize=8.5, frameon=False, loc="lower right" if rising else "upper right")
    return figure
