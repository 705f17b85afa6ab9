"""The spectrum of the controllability Gramian, and the directions that are hardest to reach."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from fem_dnn.controllability.gramian import UNREACHABLE, GramianSpectrum
from fem_dnn.pictures.style import (
    CLASS_COLOURS,
    FAINT,
    ColourScale,
    dress,
    dress_curves,
    new_figure,
)

_FLOOR = 1e-18
"""Where eigenvalues of 0 are drawn, relative to the largest."""
_SHOWN = 2
"""Directions drawn."""


def gramian_spectrum(spectrum: GramianSpectrum) -> Figure:
    """Eigenvalues relative to the largest; the hardest directions, by sample and output.

    Args:
        spectrum: With some eigenvalue that is not 0.

    Raises:
        ValueError: All eigenvalues are 0, or none is known.
    """
    if not spectrum.largest > 0:
        raise ValueError("there is no positive eigenvalue to draw")
    directions = spectrum.directions[:_SHOWN]
    figure = new_figure(10.5, 3.6, "Directions of the outputs that the controls can move")
    ratios = [1.4, *[1.0] * len(directions)]
    axes = list(figure.subplots(1, len(ratios), width_ratios=ratios, squeeze=False)[0])
    left, panels = axes[0], axes[1:]
    sizes = np.maximum(spectrum.eigenvalues[::-1] / spectrum.largest, _FLOOR)
    left.semilogy(np.arange(1, len(sizes) + 1), sizes, "o", color=CLASS_COLOURS[0], markersize=3.5)
    left.axhline(UNREACHABLE, color=FAINT, lw=0.9, ls="--")
    left.text(
        0.02, UNREACHABLE * 2, "unreachable below", color=FAINT, fontsize=8,
        transform=left.get_yaxis_transform(),
    )  # fmt: skip
    left.set_ylim(min(0.3 * sizes.min(), 0.1 * UNREACHABLE), 3)
    number = "number" if spectrum.complete else "number, of the eigenvalues found"
    dress_curves(left, title="eigenvalues of the Gramian", x=number, y="over the largest")
    if not panels:
        return figure
    scale = ColourScale.of(directions, signed=True)
    drawn = None
    _, samples, outputs = directions.shape
    for k, panel in enumerate(panels):
        drawn = panel.pcolormesh(
            np.arange(outputs + 1) - 0.5, np.arange(samples + 1) - 0.5, directions[k],
            norm=scale.norm, cmap=scale.cmap, rasterized=True,
        )  # fmt: skip
        name = "hardest direction" if k == 0 else "second hardest"
        title = f"{name}: {spectrum.eigenvalues[k] / spectrum.largest:.1e}"
        dress(panel, title=title, x="output", y="sample" if k == 0 else "")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.yaxis.get_major_locator().set_params(integer=True)
    scale.key(figure, drawn, panels, "component")
    return figure
