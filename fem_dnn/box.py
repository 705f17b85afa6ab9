"""Box bounds on the controls: lower <= c <= upper, entry by entry.

A minimiser within the bounds is characterised by c = P(c - grad J(c)), with P the projection onto
the box. Equivalently the projected gradient

    g where c lies between its bounds, min(g, 0) at the lower one, max(g, 0) at the upper one

vanishes. What it leaves of g are the multipliers of the bounds. In L2-orthonormal coordinates a box
of nodal values is a box, and P the L2 projection; in the coordinates of a norm with derivatives
(`riesz`) it is neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Box:
    """Bounds on a control vector.

    Attributes:
        lower, upper: lower < upper, local vectors in L2-orthonormal coordinates; infinite where a
            side is free.
    """

    lower: Array
    upper: Array

    def of(self, entries: NDArray[np.int64]) -> Box:
        """The bounds on some entries alone."""
        return Box(self.lower[entries], self.upper[entries])

    def project(self, c: Array) -> Array:
        """The nearest point in the box."""
        return np.clip(c, self.lower, self.upper)

    def projected_gradient(self, c: Array, g: Array) -> Array:
        """The part of the gradient g at a point c of the box that can be followed downhill."""
        result = np.where(c <= self.lower, np.minimum(g, 0.0), g)
        return np.where(c >= self.upper, np.maximum(result, 0.0), result)

    def active(self, c: Array) -> Mask:
        """Which entries of a point of the box are at a bound."""
        active: Mask = (c <= self.lower) | (c >= self.upper)
        return active

    def room(self, c: Array, g: Array) -> Array:
        """How far c can go downhill before it meets a bound, in parts of the box's width.

        1 towards a side that is free, and where the other side is.
        """
        distance = np.where(g > 0, c - self.lower, self.upper - c)
        width = self.upper - self.lower
        finite = np.isfinite(width)
        return np.where(
            finite, distance / np.where(finite, width, 1.0), np.where(distance > 0, 1.0, 0.0)
        )
