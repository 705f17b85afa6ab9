"""An inverse Hessian that learns from gradients: limited-memory BFGS in compact form.

From the last steps s_i and changes of gradient y_i, S = (s_1 ... s_m) and Y alike, with
R_ij = s_i'y_j for i <= j and D = diag(s_i'y_i),

    H g = gamma g + S R^{-T} ((D + gamma Y'Y) R^{-1} S'g - gamma Y'g) - gamma Y R^{-1} S'g

(Byrd, Nocedal & Schnabel, Math. Program. 63, 1994): two passes over S and Y, by matrix products.
Vectors are in single precision, each pair divided by the length of its step, which changes nothing
in H: directions come from it, decisions do not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fem_dnn.controls import ControlSpace

Array = NDArray[np.float64]
Single = NDArray[np.float32]

LEAST_CURVATURE = 1e-3
"""Pairs along which the Hessian is below this part of 1 / gamma are not taken: BFGS needs positive
curvature, and where it is next to nothing the length of a step is not for the model to tell."""


class LimitedMemory:
    """H in coordinates in which the Hessian is nearly I / gamma.

    Args:
        controls: Their inner product sums over the ranks.
        gamma: Inverse of the curvature where nothing else is known.
        size: Pairs that are remembered, the last ones.
    """

    def __init__(self, controls: ControlSpace, gamma: float, size: int) -> None:
        self.controls, self.gamma, self.size = controls, gamma, size
        self._steps, self._changes = np.empty((2, size, controls.n_local), np.float32)
        self._crossed, self._squares = np.empty((2, size, size))  # S'Y, Y'Y by places
        self._places: list[int] = []  # in order of time

    def add(self, step: Single, change: Single) -> None:
        """Learn from a step and the change of the gradient along it (collective)."""
        square, curvature = self._sum(np.stack([step @ step, step @ change]))
        if not curvature > LEAST_CURVATURE / self.gamma * square:
            return
        full = len(self._places) == self.size
        place = self._places.pop(0) if full else len(self._places)
        self._places.append(place)
        used, scale = len(self._places), np.float32(1 / np.sqrt(square))
        np.multiply(step, scale, out=self._steps[place])
        latest = np.multiply(change, scale, out=self._changes[place])
        by_steps, by_changes = self._seen(used, latest)
        self._crossed[:used, place] = by_steps  # what is above the diagonal in order of time
        self._squares[:used, place] = self._squares[place, :used] = by_changes

    def apply(self, gradient: Single) -> Single:
        """H times a gradient, a new array (collective)."""
        used, gamma = len(self._places), self.gamma
        if not used:
            return np.float32(gamma) * gradient
        order = np.array(self._places)
        here = np.ix_(order, order)
        along, across = self._seen(used, gradient)[:, order]
        upper = np.triu(self._crossed[here])
        first = np.linalg.solve(upper, along)
        inner = np.diag(upper) * first + gamma * (self._squares[here] @ first - across)
        by_steps, by_changes = np.empty((2, used), np.float32)
        by_steps[order] = np.linalg.solve(upper.T, inner)
        by_changes[order] = -gamma * first
        product: Single = by_steps @ self._steps[:used]
        product += by_changes @ self._changes[:used]
        product += np.float32(gamma) * gradient
        return product

    def _seen(self, used: int, vector: Single) -> Array:
        """S' and Y' times a vector, by places."""
        return self._sum(np.stack([self._steps[:used] @ vector, self._changes[:used] @ vector]))

    def _sum(self, local: Single) -> Array:
        return self.controls.sum(local.astype(np.float64))
