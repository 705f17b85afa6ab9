"""Following one branch, step by step, to an end of the parameter's range."""

from __future__ import annotations

from collections.abc import Callable

from fem_dnn.continuation.branch import Branch, Event, Point
from fem_dnn.continuation.equations import Place, StepFailure
from fem_dnn.continuation.events import Change, events_between
from fem_dnn.continuation.predictor_corrector import Station, Stepper

FIRST, SHORTEST, LONGEST, ALONG_A_LINE = 0.04, 1e-6, 0.1, 0.2
"""Lengths of steps; the parameter's whole range is 1."""

SHORT_ENOUGH = 1e-3
"""Steps as short as this are not cut for the sake of angles or entangled events."""

STRAIGHT, STRAIGHTER, LINE = 0.9, 0.98, 0.9995
"""Cosine between two tangents below which a step is repeated, above which steps may grow, and above
which they may grow as along a line."""

GROWTH = {0: 2.0, 1: 2.0, 2: 2.0, 3: 1.7, 4: 1.3, 5: 1.0}
"""Factor of the next step by the corrections that the last one took; more of them: 0.6."""

Watch = Callable[[Branch], None]
"""Called after every new point, on all ranks."""


def follow(
    stepper: Stepper,
    branch: Branch,
    first: Station,
    room: int,
    known: Callable[[Event], str],
    watch: Watch,
) -> None:
    """Follow a branch from its first station until it ends (collective).

    Args:
        stepper: Takes steps.
        branch: Gets the points and events.
        first: Where it starts, its tangent along the way to go.
        room: Points it may have.
        known: Says where an event has been met before, if so ("" otherwise): the rest is known.
        watch: Called after every point.
    """
    scale = stepper.equations.scale
    branch.points.append(Point.of(first, scale))
    watch(branch)
    station, length = first, FIRST
    while True:
        if len(branch.points) >= room:
            branch.end, branch.complete = "path.max_points was reached", True
            return
        try:
            following, length, limit = _step(stepper, station, length)
        except StepFailure as failure:
            at = scale.value(station.place.xi)
            branch.end = f"lost at {at:.6g}: {failure}; steps have shrunk to nothing"
            return
        for event in events_between(stepper, station, following):
            event.position = len(branch.points)
            met = known(event)
            if met:
                branch.end, branch.complete = met, True
                return
            branch.events.append(event)
        branch.points.append(Point.of(following, scale))
        watch(branch)
        if limit is not None:
            which = "stop" if limit == 1.0 else "start"
            branch.end, branch.complete = f"path.{which} was reached", True
            return
        if len(branch.points) > 4 and _closes(stepper, first, station, following):
            branch.end, branch.complete = "the branch is closed", True
            return
        station = following


def _step(stepper: Stepper, station: Station, length: float) -> tuple[Station, float, float | None]:
    """The next station, the length of the step after it, the limit it is at or None."""
    metric = stepper.equations.metric(station.place.control)
    while True:
        try:
            following, limit = _advance_within(stepper, station, length)
            tangent = following.tangent
            cosine = metric.dot(station.tangent, tangent) / metric.norm(tangent)
            if length > SHORT_ENOUGH and cosine < STRAIGHT:
                raise StepFailure("the branch bends")
            if length > SHORT_ENOUGH and Change.between(station, following).entangled:
                raise StepFailure("a turn is not alone")
            ahead = station.place.ahead(station.tangent, length)
            if limit is None and metric.norm(following.place.minus(ahead)) > length:
                raise StepFailure("the correction leads far away")
        except StepFailure:
            length *= 0.5
            if length < SHORTEST:
                raise
            continue
        growth = GROWTH.get(following.corrections, 0.6)
        if cosine < STRAIGHTER:
            growth = min(growth, 1.0)
        longest = ALONG_A_LINE if cosine > LINE else LONGEST
        return following, min(longest, growth * length), limit


def _advance_within(
    stepper: Stepper, station: Station, length: float
) -> tuple[Station, float | None]:
    """A step that ends at the parameter's range; with the limit it is at, or None."""
    xi, slope = station.place.xi, station.tangent.xi
    predicted = xi + length * slope
    if 0.0 < predicted < 1.0:
        following = stepper.advance(station, length)
        reached = following.place.xi
        if 0.0 < reached < 1.0:
            return following, None
        limit = float(reached >= 1.0)
        fraction = (limit - xi) / (reached - xi) if reached != xi else 1.0
        guess = station.place.ahead(following.place.minus(station.place), fraction)
    else:
        limit = float(predicted >= 1.0)
        guess = station.place.ahead(station.tangent, (limit - xi) / slope)
    landed = stepper.land(station, guess, limit)
    metric = stepper.equations.metric(station.place.control)
    if metric.norm(landed.place.minus(guess)) > length:
        raise StepFailure("the branch is not found at the limit")
    return landed, limit


def _closes(stepper: Stepper, first: Station, before: Station, after: Station) -> bool:
    """Whether the last step passes the branch's first point, the same way."""
    metric = stepper.equations.metric(first.place.control)
    step: Place = after.place.minus(before.place)
    reach = metric.norm(step)
    nearest = min(metric.norm(place.minus(first.place)) for place in (before.place, after.place))
    same_way = metric.dot(after.tangent, first.tangent) > STRAIGHT * metric.norm(after.tangent)
    return nearest < 0.5 * reach and same_way
