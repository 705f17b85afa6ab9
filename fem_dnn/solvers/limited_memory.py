"""An inverse Hessian that learns from gradients: limited-memory BFGS in compact form.

Let H_0 be what is known of it beforehand, and s_i the last steps, y_i the changes of the gradient
along them, z_i = H_0 y_i. With S = (s_1 ... s_m), Y and Z alike, R_ij = s_i'y_j for i <= j and
D = diag(s_i'y_i),

    H g = H_0 g + S R^{-T} ((D + Z'Y) R^{-1} S'g - Z'g) - Z R^{-1} S'g

(Byrd, Nocedal & Schnabel, Math. Program. 63, 1994). Along a path of points Z and the products S'y
and Z'y are differences of H_0 g, S'g and Z'g, which every direction takes anyway: it costs one
product by H_0 and two passes over S and Z. Vectors are in single precision, each pair divided by
the length of its step, which changes nothing in H: directions come from it, decisions do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fem_dnn.controls import ControlSpace

Array = NDArray[np.float64]
Single = NDArray[np.float32]

LEAST_CURVATURE = 1e-3
"""Pairs along which the Hessian is below this part of what H takes it for are left out: BFGS needs
positive curvature, and where it is next to nothing the length of a step is not for the model to
tell."""


@dataclass(eq=False)
class _Point:
    """Where a direction was asked for.

    Attributes:
        gradient, first: g and H_0 g.
        direction: H g.
        seen: S'g and Z'g, by places.
        part: Of -H g that has been taken as a step.
    """

    gradient: Single
    first: Single
    direction: Single
    seen: Array
    part: float = 0.0


class LimitedMemory:
    """H along a path.

    Args:
        controls: Their inner product sums over the ranks.
        size: Pairs that are remembered, the last ones.
    """

    def __init__(self, controls: ControlSpace, size: int) -> None:
        self.controls, self.size = controls, size
        self._rows = np.empty((2, size, controls.n_local), np.float32)  # S and Z by places
        self._crossed, self._squares = np.empty((2, size, size))  # S'Y and Z'Y
        self._places: list[int] = []  # in order of time
        self._last: _Point | None = None

    def direction(self, gradient: Single, first: Single) -> Single:
        """H g at the path's next point, a new array (collective).

        Args:
            gradient: g; kept, not copied.
            first: H_0 g; kept, not copied.
        """
        last, scale = self._last, 0.0
        if last is not None:
            scale = self._remember(last, gradient, first)
        seen = np.zeros((2, self.size))
        used = len(self._places)
        if used:
            seen[:, :used] = self._sum([rows[:used] @ gradient for rows in self._rows])
        if last is not None and scale:
            self._relate(scale * (seen - last.seen))
        direction = self._corrected(first, seen) if used else first.copy()
        self._last = _Point(gradient, first, direction, seen)
        return direction

    def moved(self, part: float) -> None:
        """That part of minus the direction was the step to the next point."""
        assert self._last is not None, "no direction has been asked for"
        self._last.part = part

    def _remember(self, last: _Point, gradient: Single, first: Single) -> float:
        """Take the last step's pair; what it is multiplied by, 0 if it is left out."""
        step, change, product = last.direction, gradient - last.gradient, first - last.first
        along, told, square, across = self._sum(
            [change @ step, last.gradient @ step, step @ step, product @ change]
        )
        # Of the step -part H g, H takes the curvature for part^2 g'H g.
        if not -along > LEAST_CURVATURE * last.part * told:
            return 0.0
        full = len(self._places) == self.size
        place = self._places.pop(0) if full else len(self._places)
        self._places.append(place)
        scale = float(1 / (last.part * np.sqrt(square)))
        np.multiply(step, np.float32(-scale * last.part), out=self._rows[0, place])
        np.multiply(product, np.float32(scale), out=self._rows[1, place])
        self._crossed[place, place] = -along * last.part * scale**2
        self._squares[place, place] = across * scale**2
        return scale

    def _relate(self, changes: Array) -> None:
        """S'y and Z'y, by places, of the last pair with those before."""
        *before, place = self._places
        self._crossed[before, place] = changes[0, before]  # above the diagonal in order of time
        self._squares[before, place] = self._squares[place, before] = changes[1, before]

    def _corrected(self, first: Single, seen: Array) -> Single:
        """H g from H_0 g, S'g and Z'g."""
        order = np.array(self._places)
        here = np.ix_(order, order)
        along, across = seen[:, order]
        upper = np.triu(self._crossed[here])
        inner = np.linalg.solve(upper, along)
        outer = np.diag(upper) * inner + self._squares[here] @ inner - across
        by_steps, by_products = np.empty((2, len(order)), np.float32)
        by_steps[order], by_products[order] = np.linalg.solve(upper.T, outer), -inner
        steps, products = self._rows[:, : len(order)]
        direction: Single = by_steps @ steps
        direction += by_products @ products
        direction += first
        return direction

    def _sum(self, local: Sequence[ArrayLike]) -> Array:
        return self.controls.sum(np.array(local, np.float64))
