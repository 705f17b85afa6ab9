"""Folds and branch points between two stations of a branch.

Along a branch an eigenvalue of the Hessian passes zero

    at a fold           together with the tangent's parameter component: the branch turns back;
    at a branch point   while the branch goes on: others cross it there.

A branch that reaches a pitchfork along its arm turns back with the eigenvalue touching zero only:
that is a branch point too. Each is located by Brent's method on the eigenvalue, or on the tangent's
parameter component, as a function of the arclength (each value a corrected point). Eigenvalues that
are zero all along the branch (orbits of a continuous symmetry) are set aside; several that pass
zero at one place (a symmetry again) are one event with as many null vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from fem_dnn.continuation.branch import Event, EventKind, Point
from fem_dnn.continuation.equations import StepFailure
from fem_dnn.continuation.predictor_corrector import Station, Stepper
from fem_dnn.controls import ControlSpace
from fem_dnn.inertia import UnresolvedSpectrum, inertia

Array = NDArray[np.float64]

TURN = 1e-6
"""Parameter component of the unit tangent that counts as zero: the fold's is off by its square."""

ROOT = 1e-2
CLUSTER = 1e2
"""Eigenvalues that count as zero where one is located, and as zero together with it, in units of
`Inertia.tolerance`."""


@dataclass(frozen=True)
class Change:
    """What changes from one station to the next.

    Attributes:
        turns: Whether the parameter's direction does.
        crossed: By how much the number of negative eigenvalues grows.
    """

    turns: bool
    crossed: int

    @classmethod
    def between(cls, left: Station, right: Station) -> Change:
        """The change between two stations."""
        turns = left.tangent.xi * right.tangent.xi < 0
        return cls(turns, right.spectrum.negative - left.spectrum.negative)

    @property
    def entangled(self) -> bool:
        """Whether a turn comes together with more than its own eigenvalue: shorter steps."""
        return self.turns and abs(self.crossed) > 1


def events_between(stepper: Stepper, left: Station, right: Station) -> list[Event]:
    """The events between two stations, in order (collective).

    Where an eigenvalue jumps over zero, at a kink of the activation, there is none.
    """
    change = Change.between(left, right)
    search = _Search(stepper, left, right)
    if change.turns:
        _, station = search.root(lambda at: at.tangent.xi, TURN, 0.0)
        kind: EventKind = "branch point" if change.crossed % 2 == 0 else "fold"
        return [search.event(kind, station, turns=True)]
    events: list[Event] = []
    persistent = min(left.spectrum.zero, right.spectrum.zero)
    sign = 1 if change.crossed > 0 else -1
    crossed, where = 0, 0.0
    while crossed < abs(change.crossed):
        index = (
            left.spectrum.negative + crossed if sign > 0 else left.spectrum.negative - 1 - crossed
        )

        def eigenvalue(at: Station, index: int = index) -> float:
            values = at.spectrum.eigenvalues
            moving = np.sort(values[np.argsort(np.abs(values))[persistent:]])
            return float(moving[min(index, len(moving) - 1)]) if len(moving) else 0.0

        tolerance = left.spectrum.tolerance
        where, station = search.root(eigenvalue, ROOT * tolerance, where)
        event = search.event("branch point", station, turns=False)
        zeros = len(event.null_vectors) - persistent
        if zeros > 0:
            event.eigenvalue = eigenvalue(station)
            events.append(event)
        crossed += max(zeros, 1)
    return events


class _Search:
    """Looks for roots along the branch between two stations.

    Args:
        stepper: Takes steps.
        left, right: The stations.
    """

    def __init__(self, stepper: Stepper, left: Station, right: Station) -> None:
        self.stepper, self.left, self.right = stepper, left, right
        metric = stepper.equations.metric(left.place.control)
        self.span = metric.dot(left.tangent, right.place.minus(left.place))
        self.known = {0.0: left, self.span: right}

    def root(
        self, function: Callable[[Station], float], tolerance: float, start: float
    ) -> tuple[float, Station]:
        """Where a function of the stations vanishes, from an arclength on; the nearest station."""
        values: dict[float, float] = {}

        def value(where: float) -> float:
            if where not in self.known:
                self.known[where] = self.stepper.advance(self.left, where)
            values[where] = function(self.known[where])
            return 0.0 if abs(values[where]) <= tolerance else values[where]

        try:
            if value(start) * value(self.span) < 0:
                brentq(value, start, self.span, xtol=1e-13 * self.span, maxiter=60)
        except (StepFailure, RuntimeError):
            pass  # what has been reached is the answer, and the event tells how near it is
        where = min(values, key=lambda where: abs(values[where]))
        return where, self.known[where]

    def event(self, kind: EventKind, station: Station, *, turns: bool) -> Event:
        """The event at a station, with the null vectors there (collective)."""
        tolerance = CLUSTER * station.spectrum.tolerance
        try:
            spectrum = inertia(station.at, tolerance=tolerance)
        except UnresolvedSpectrum:
            spectrum = station.spectrum
        zeros = [pair for pair in spectrum.pairs if abs(pair.value) <= tolerance]
        nearest = min((pair.value for pair in spectrum.pairs), key=abs)
        return Event(
            kind,
            Point.of(station, self.stepper.equations.scale),
            station.tangent,
            _canonical([pair.vector for pair in zeros], self.stepper.controls),
            nearest,
            turns,
        )


def _canonical(vectors: list[Array], controls: ControlSpace) -> list[Array]:
    """Another orthonormal basis of a space, the same for every one given (collective).

    An eigensolver's signs, and its basis of several vectors, change with the number of ranks.
    """
    basis: list[Array] = []
    for seed in range(len(vectors)):
        direction = controls.random_direction(seed)
        image = np.zeros_like(direction)
        for vector in vectors:
            image += controls.dot(vector, direction) * vector
        for other in basis:
            image -= controls.dot(other, image) * other
        image /= controls.norm(image)
        basis.append(image)
    return basis
