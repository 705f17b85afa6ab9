"""Coordinates by which steps of a control are measured: what solvers ask of them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fem_dnn.controls import ControlSpace

Array = NDArray[np.float64]
Numbers = NDArray[np.floating]


class Coordinates(Protocol):
    """T of coordinates z in which a step of the control is T z, and its length |z|."""

    def apply(self, z: Array) -> Array:
        """T z (collective)."""

    def apply_transpose(self, g: Array) -> Array:
        """T' g: a gradient by z (collective)."""


class Metric(Coordinates, Protocol):
    """Coordinates of a point's own, which may see little of some steps."""

    def unseen(self, step: Array) -> Array:
        """To be added to a Hessian product: steps that change nothing count as Tikhonov's."""


@runtime_checkable
class CurvatureCoordinates(Metric, Protocol):
    """A metric in which the reduced Hessian is nearly s I.

    Attributes:
        controls: Control space.
        weight: s.
    """

    controls: ControlSpace
    weight: float

    def unseen(self, step: Array) -> Array:
        """Nothing: such a metric sees every step."""
        return np.zeros_like(step)

    def inverse(self, g: Numbers) -> Numbers:
        """T T' g / s, a new array: nearly that of the reduced Hessian (collective).

        In the precision of g, double or single: single is enough for directions, and half the work.
        """

    def newton_length(self, gradient: Array) -> float:
        """|z| of the Newton step for the Hessian s T^{-T} T^{-1} (collective)."""
        return self.controls.norm(self.apply_transpose(gradient)) / self.weight
