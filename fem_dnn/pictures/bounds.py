"""Measured quantities along the depth against the bounds that the theory gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from fem_dnn.checks.curves import Curve
from fem_dnn.pictures.style import CLASS_COLOURS, FAINT, dress_curves, new_figure, picked

_MOST = 40
"""Samples drawn at the most."""


def bounds_along_depth(curves: Sequence[Curve]) -> Figure:
    """One panel per curve: samples' values solid, their bounds dashed, on a logarithmic scale.

    Raises:
        ValueError: There is nothing to draw.
    """
    if not curves:
        raise ValueError("there is no curve to draw")
    figure = new_figure(0.8 + 3.4 * len(curves), 3.4, "Along the depth, against the bounds")
    for axes, curve in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        samples = picked(curve.values.shape[1], _MOST)
        alpha = 0.9 if len(samples) <= 8 else 0.45
        for k, s in enumerate(samples):
            label = ("computed", "bound") if k == 0 else (None, None)
            few = len(samples) <= len(CLASS_COLOURS)
            colour, of_bound = (CLASS_COLOURS[k],) * 2 if few else (CLASS_COLOURS[0], FAINT)
            axes.plot(
                curve.t, curve.values[:, s], color=colour, lw=1.3, alpha=alpha, label=label[0]
            )
            if curve.bounds is not None:
                axes.plot(
                    curve.t, curve.bounds[:, s], color=of_bound, lw=1.0, ls="--", alpha=alpha,
                    label=label[1],
                )  # fmt: skip
        dress_curves(axes, title=curve.title, x="depth $t$")
        if curve.bounds is not None:
            shown = np.concatenate([curve.values[:, samples], curve.bounds[:, samples]])
            positive = shown[shown > 0]
            if positive.size and positive.max() > 20 * positive.min():
                axes.set_yscale("log")
            else:
                axes.set_ylim(bottom=0)
            axes.legend(fontsize=8, frameon=False)
    return figure
