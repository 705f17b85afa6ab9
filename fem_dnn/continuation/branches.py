"""All branches that hang together: branch points lead from one to the others.

At a branch point with null vector v the other branch leaves the known one along v, up to what lies
along the known tangent. Its first point is looked for where the control has moved by a prescribed
amount along v,

    F(c, xi) = 0,    < v, c - c* > = +-amplitude,

a plane that the known branch leaves only to second order. A pitchfork that was met along one of its
arms, whose tangent v is, has its handle along the solution of H dc = -F_xi instead. Where several
eigenvalues are zero, every one of their vectors is tried, and of branches that are symmetric copies
of each other one is followed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fem_dnn.continuation.branch import Branch, Event, Origin
from fem_dnn.continuation.equations import Metric, Place, StepFailure
from fem_dnn.continuation.following import follow
from fem_dnn.continuation.predictor_corrector import Station, Stepper
from fem_dnn.problem import Linearisation

Array = NDArray[np.float64]

AMPLITUDES = (0.03, 0.1, 0.01, 0.003)
"""How far to go along a null vector, relative to 1 + |c|, in the order in which it is tried."""

PARALLEL = 0.99
"""Cosine from which on a null vector is the known branch's own tangent."""

NEAR = 0.25
"""How far off, in xi, the first point of another branch may be."""

SAME_EVENT = 1e-3
"""Events closer than this are the same."""

SAME_POINT = 1e-4
COPY = 1e-8
"""Relative differences within which points are the same, and copies of each other."""

Watch = Callable[[int, Branch], None]
"""Called with the branch's number after every new point, on all ranks."""


@dataclass(eq=False)
class Explorer:
    """Follows all branches that are met.

    Attributes:
        stepper: Takes steps.
        max_points: Points of all branches together.
        switching: Whether to follow others at branch points.
        watch: Called after every new point.
        branches: What has been found.
    """

    stepper: Stepper
    max_points: int
    switching: bool
    watch: Watch
    branches: list[Branch] = field(default_factory=list)

    @property
    def points(self) -> int:
        """Points so far."""
        return sum(len(branch.points) for branch in self.branches)

    def explore(self, first: Station) -> None:
        """Follow the branch of a first station and all that are met (collective)."""
        waiting: deque[tuple[int, int]] = deque()
        self._follow(Branch(), first, waiting)
        while waiting and self.points < self.max_points:
            number, event = waiting.popleft()
            for origin, station in self._arms(number, event):
                if self.points >= self.max_points:
                    return
                self.branches[number].events[event].arms.append(len(self.branches))
                self._follow(Branch(origin), station, waiting)

    def _follow(self, branch: Branch, first: Station, waiting: deque[tuple[int, int]]) -> None:
        number = len(self.branches)
        room = self.max_points - self.points
        self.branches.append(branch)
        watch = self.watch
        follow(self.stepper, branch, first, room, self._met, lambda b: watch(number, b))
        if self.switching:
            waiting.extend(
                (number, index)
                for index, event in enumerate(branch.events)
                if event.kind == "branch point"
            )

    def _met(self, event: Event) -> str:
        """Where an event has been met before, in words."""
        metric = self.stepper.equations.metric(event.point.place.control)
        for number, branch in enumerate(self.branches):
            for other in branch.events:
                apart = event.point.place.minus(other.point.place)
                if metric.norm(apart) < SAME_EVENT:
                    at = f"{other.kind} at {other.point.parameter:.6g}"
                    return f"met the {at} of branch {number}"
        return ""

    def _arms(self, number: int, index: int) -> Iterator[tuple[Origin, Station]]:
        """The branches that start at an event and are not known yet."""
        event = self.branches[number].events[index]
        several = len(event.null_vectors) > 1
        for direction in self._directions(event):
            for sign in (1, -1):
                station = self._first_station(event, direction, sign)
                if station is None or self._known(station.place):
                    continue
                if several and any(self._copies(event, arm, station) for arm in event.arms):
                    event.copies += 1
                    continue
                yield Origin(number, index, sign), station

    def _directions(self, event: Event) -> Iterator[Place]:
        """Unit directions in which other branches may leave: null vectors of (H, F_xi)."""
        metric = self.stepper.equations.metric(event.point.place.control)
        known = event.tangent
        if event.turns:
            # Met along an arm, whose tangent is the null vector: the handle is what is looked for.
            handle = self.stepper.handle(event.point.place)
            if handle is not None:
                along = metric.dot(handle, known)
                yield _unit(handle.ahead(known, -along), metric)
        for vector in event.null_vectors:
            direction = _unit(Place(vector, 0.0), metric)
            if abs(metric.dot(direction, known)) < PARALLEL:
                yield direction

    def _first_station(self, event: Event, direction: Place, sign: int) -> Station | None:
        """The first station of the branch along a direction, if there is one."""
        centre = event.point.place
        row = self.stepper.equations.metric(centre.control).row(direction).times(sign)
        for amplitude in AMPLITUDES:
            try:
                guess = centre.ahead(direction, sign * amplitude)
                station = self.stepper.station(guess, row, None)
            except StepFailure:
                continue
            if abs(station.place.xi - centre.xi) < NEAR and 0 < station.place.xi < 1:
                return station
        return None

    def _known(self, place: Place) -> bool:
        """Whether a point lies on a branch that has been followed."""
        metric = self.stepper.equations.metric(place.control)
        return any(
            metric.norm(there.minus(place)) < SAME_POINT
            for branch in self.branches
            for there, _ in self._crossings(
                [point.place for point in branch.points], place, near=True
            )
        )

    def _copies(self, event: Event, arm: int, station: Station) -> bool:
        """Whether an arm has a point at a station's parameter with all that a symmetry keeps."""
        places = [event.point.place, *(point.place for point in self.branches[arm].points)]
        controls = self.stepper.controls
        size = controls.norm(station.place.control)
        for _, at in self._crossings(places, station.place, near=False):
            pairs = [
                (station.at.objective, at.objective),
                (station.at.loss, at.loss),
                (size, controls.norm(at.control)),
            ]
            if all(abs(a - b) <= COPY * max(abs(a), abs(b)) for a, b in pairs):
                return True
        return False

    def _crossings(
        self, places: Sequence[Place], place: Place, *, near: bool
    ) -> Iterator[tuple[Place, Linearisation]]:
        """Critical points of a curve at a place's parameter; those near it alone, or all."""
        metric = self.stepper.equations.metric(place.control)
        fixed = Place(np.zeros_like(place.control), 1.0)
        for a, b in pairwise(places):
            if not min(a.xi, b.xi) <= place.xi <= max(a.xi, b.xi):
                continue
            chord = b.minus(a)
            fraction = (place.xi - a.xi) / chord.xi if chord.xi else 0.5
            guess = Place(a.ahead(chord, fraction).control, place.xi)
            if near and metric.norm(guess.minus(place)) > metric.norm(chord):
                continue
            try:
                there, at, _ = self.stepper.correct(guess, fixed)
            except StepFailure:
                continue
            yield there, at


def _unit(direction: Place, metric: Metric) -> Place:
    return direction.times(1 / metric.norm(direction))
