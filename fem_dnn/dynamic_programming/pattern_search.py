"""Minimisation without derivatives of many functions of few variables at once.

Functions here are as rough as interpolation makes them: a parabola through three points a grid cell
apart sees the function and not its kinks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Objective = Callable[[Array], Array]
"""From points z (count, M), one per function, to the values (M,)."""

FAR = 3.0
"""Steps to the vertex of a parabola at the most."""


def best_of(objective: Objective, candidates: list[Array]) -> tuple[Array, Array]:
    """The best of some points for each function: z (count, M) and the values (M,)."""
    best = np.array(candidates[0])
    lowest = objective(best)
    for z in candidates[1:]:
        _keep(best, lowest, z, objective(z))
    return best, lowest


def scan(objective: Objective, z: Array, values: Array, reach: Array, levels: Array) -> None:
    """Improve z in place by trying all `levels` of the reach for one variable after the other.

    Args:
        objective: The functions.
        z, values: Points and the functions there; overwritten.
        reach: How far minimisers are from 0 at the most, shape (count, M).
        levels: Fractions of the reach to try, shape (L,).
    """
    for _ in range(min(2, len(z))):
        for i in range(len(z)):
            for level in levels:
                trial = z.copy()
                trial[i] = level * reach[i]
                _keep(z, values, trial, objective(trial))


def polish(objective: Objective, z: Array, values: Array, step: Array, sweeps: int) -> None:
    """Improve z in place: parabolas through z - step, z, z + step, one variable after the other.

    A step is halved where the parabola has its vertex within, and doubled where it goes on beyond.
    Values never increase.

    Args:
        objective: The functions.
        z, values: Points and the functions there; overwritten.
        step: First steps > 0, shape (count, M).
        sweeps: Rounds through the variables.
    """
    step = step.copy()
    for _ in range(sweeps):
        for i in range(len(z)):
            start, middle = z.copy(), values.copy()
            sides = []
            for sign in (-1.0, 1.0):
                trial = start.copy()
                trial[i] += sign * step[i]
                sides.append(objective(trial))
                _keep(z, values, trial, sides[-1])
            slope, curvature = 0.5 * (sides[1] - sides[0]), sides[0] - 2 * middle + sides[1]
            ahead = np.where(slope > 0, -FAR, FAR)
            vertex = np.divide(-slope, curvature, out=ahead, where=curvature > 0)
            vertex = np.clip(vertex, -FAR, FAR)
            trial = start.copy()
            trial[i] += vertex * step[i]
            _keep(z, values, trial, objective(trial))
            step[i] *= np.where(np.abs(z[i] - start[i]) > step[i], 2.0, 0.5)


def _keep(best: Array, lowest: Array, z: Array, values: Array) -> None:
    """Take over what is better, in place."""
    better = values < lowest
    lowest[better] = values[better]
    best[:, better] = z[:, better]
