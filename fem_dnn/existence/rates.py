"""Rates fitted to computed numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Fit:
    """y ~ factor x^exponent, by least squares on the logarithms.

    Attributes:
        exponent: The exponent.
        factor: The factor.
        scatter: Largest deviation of log y from the line.
    """

    exponent: float
    factor: float
    scatter: float


def power_law(x: Sequence[float], y: Sequence[float]) -> Fit:
    """The power law through positive numbers; NaN where some y is not positive.

    Raises:
        ValueError: Fewer than two points.
    """
    if len(x) < 2:
        raise ValueError("a rate needs two points or more")
    if min(y) <= 0:
        return Fit(float("nan"), float("nan"), float("nan"))
    log_x, log_y = np.log(np.asarray(x, float)), np.log(np.asarray(y, float))
    exponent, offset = np.polyfit(log_x, log_y, 1)
    scatter = float(np.max(np.abs(log_y - exponent * log_x - offset)))
    return Fit(float(exponent), float(np.exp(offset)), scatter)
