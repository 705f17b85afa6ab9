"""The equations of a branch in dimensionless terms: F(c, xi) = 0, xi running from 0 to 1.

xi is linear in the parameter mu, or in its logarithm where mu keeps its sign and spans a factor of
5 or more, so that a step is as long in every decade. Lengths in (c, xi) are measured by

    |(c, xi)|^2 = |c|^2 / (1 + |c_0|)^2 + xi^2

with the L2 norm of the control and c_0 the point from which a step starts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fem_dnn.continuation.parameter import Parameter
from fem_dnn.controls import ControlSpace
from fem_dnn.errors import BadInput
from fem_dnn.problem import Linearisation
from fem_dnn.slab import SlabFailure

Array = NDArray[np.float64]

DECADES = 5.0
"""Ratio of the parameter's ends from which on its logarithm is followed."""


class StepFailure(Exception):
    """A correction did not arrive: take a shorter step. Raised on all ranks alike."""


@dataclass(frozen=True)
class Scale:
    """mu as a function of xi in [0, 1].

    Attributes:
        start, stop: mu at xi = 0 and 1.
    """

    start: float
    stop: float

    @property
    def logarithmic(self) -> bool:
        """Whether log |mu| is linear in xi."""
        sizes = abs(self.start), abs(self.stop)
        return self.start * self.stop > 0 and max(sizes) >= DECADES * min(sizes)

    def value(self, xi: float) -> float:
        """mu; exact at the ends."""
        if xi in (0.0, 1.0):
            return self.stop if xi else self.start
        if self.logarithmic:
            return self.start * (self.stop / self.start) ** xi
        return self.start + (self.stop - self.start) * xi

    def rate(self, xi: float) -> float:
        """d mu / d xi."""
        if self.logarithmic:
            return self.value(xi) * math.log(self.stop / self.start)
        return self.stop - self.start


@dataclass(frozen=True, eq=False)
class Place:
    """A point, or a direction, in the product of controls and the parameter.

    Attributes:
        control: Local control vector in L2-orthonormal coordinates.
        xi: The parameter.
    """

    control: Array
    xi: float

    def ahead(self, direction: Place, length: float) -> Place:
        """The point a multiple of a direction away."""
        return Place(self.control + length * direction.control, self.xi + length * direction.xi)

    def times(self, factor: float) -> Place:
        """A multiple of the vector."""
        return Place(factor * self.control, factor * self.xi)

    def minus(self, other: Place) -> Place:
        """The vector from another point to this one."""
        return self.ahead(other, -1.0)


@dataclass(frozen=True, eq=False)
class Metric:
    """The inner product of a step.

    Attributes:
        controls: Control space.
        weight: 1 / (1 + |c_0|)^2.
    """

    controls: ControlSpace
    weight: float

    def dot(self, a: Place, b: Place) -> float:
        """Inner product (collective)."""
        return self.weight * self.controls.dot(a.control, b.control) + a.xi * b.xi

    def norm(self, a: Place) -> float:
        """Length (collective)."""
        return math.sqrt(self.dot(a, a))

    def row(self, a: Place) -> Place:
        """What the Euclidean product with gives the inner product with a."""
        return Place(self.weight * a.control, a.xi)


@dataclass(frozen=True, eq=False)
class Equations:
    """F(c, xi) = 0.

    Attributes:
        parameter: The family of problems.
        scale: mu against xi.
        target: Norm of F at which a point counts as critical.
    """

    parameter: Parameter
    scale: Scale
    target: float

    def at(self, place: Place) -> Linearisation:
        """The problem at a point, with its gradient (collective).

        Raises:
            StepFailure: The parameter's value is not allowed, or the state cannot be computed.
        """
        try:
            at = self.parameter.problem(self.scale.value(place.xi)).linearise(place.control)
            norm = at.gradient_norm
        except (BadInput, SlabFailure, OverflowError) as problem:
            raise StepFailure(str(problem)) from None
        if not math.isfinite(norm):
            raise StepFailure("the gradient is not finite")
        return at

    def rate(self, at: Linearisation, xi: float) -> Array:
        """F_xi (collective).

        Raises:
            StepFailure: A problem near by cannot be assembled or solved.
        """
        try:
            rate = self.parameter.gradient_rate(at, self.scale.value(xi))
        except (BadInput, SlabFailure) as problem:
            raise StepFailure(str(problem)) from None
        return self.scale.rate(xi) * rate

    def metric(self, control: Array) -> Metric:
        """The inner product of steps from a control (collective)."""
        controls = self.parameter.problem(self.scale.start).controls
        return Metric(controls, 1 / (1 + controls.norm(control)) ** 2)
