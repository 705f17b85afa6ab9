"""Deflation: Newton's method is kept from the critical points that are known already.

    G(c) = M(c) F(c),    M(c) = prod_i ((L_i / |c - c_i|)^p + 1),    F(c) = grad J(c)

has the zeros of F except the roots c_i, where it does not tend to zero (P. E. Farrell,
A. Birkisson, S. W. Funke, SIAM J. Sci. Comput. 37, 2015). The shift 1 keeps |G| from falling far
away. L_i is a length of the problem, so that M does not depend on the controls' units.

G' = M F' + F (grad M)' is a rank-one change of M F'. By the formula of Sherman & Morrison its
Newton step is a multiple of that of F, and costs no linear solve of its own (`deflated_newton`):

    d = delta / (1 - <grad log M, delta>),    F' delta = -F.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fem_dnn.controls import ControlSpace

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Root:
    """A critical point to stay away from.

    Attributes:
        control: Local control vector in L2-orthonormal coordinates.
        length: L, the distance at which deflation fades.
    """

    control: Array
    length: float


@dataclass(frozen=True, eq=False)
class Deflation:
    """The deflation operator M.

    Attributes:
        controls: The control space, whose L2 norm is used.
        roots: The known critical points; none: M = 1.
        power: p; 2 makes M differentiable everywhere but at the roots.
    """

    controls: ControlSpace
    roots: Sequence[Root] = ()
    power: float = 2.0

    def factor(self, control: Array) -> float:
        """M(c); infinite at a root (collective)."""
        product = 1.0
        for root in self.roots:
            distance = self.controls.norm(control - root.control)
            product *= 1.0 + (root.length / distance) ** self.power if distance else math.inf
        return product

    def slope(self, control: Array, step: Array) -> float:
        """<grad log M(c), step>, at no root (collective)."""
        total = 0.0
        for root in self.roots:
            away = control - root.control
            square = self.controls.dot(away, away)
            pole = (root.length**2 / square) ** (self.power / 2)
            along = self.controls.dot(away, step) / square
            total -= self.power * pole / (1.0 + pole) * along
        return total
