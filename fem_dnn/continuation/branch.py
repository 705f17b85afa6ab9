"""What is kept of a branch: its points, what happens on it, where it comes from and ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fem_dnn.continuation.equations import Place, Scale
from fem_dnn.continuation.predictor_corrector import Station
from fem_dnn.inertia import Kind

Array = NDArray[np.float64]
EventKind = Literal["fold", "branch point"]


@dataclass(frozen=True, eq=False)
class Point:
    """A critical point on a branch.

    Attributes:
        place: Its control and xi.
        parameter: mu.
        objective, loss: J, and its part that is not R.
        gradient_norm: L2 norm of the reduced gradient.
        control_norm: L2 norm of the control.
        kind, negative, lowest: Kind, negative Hessian eigenvalues, the lowest eigenvalue.
    """

    place: Place
    parameter: float
    objective: float
    loss: float
    gradient_norm: float
    control_norm: float
    kind: Kind
    negative: int
    lowest: float

    @classmethod
    def of(cls, station: Station, scale: Scale) -> Point:
        """What is kept of a station (collective)."""
        at, spectrum = station.at, station.spectrum
        return cls(
            station.place,
            scale.value(station.place.xi),
            at.objective,
            at.loss,
            at.gradient_norm,
            at.problem.controls.norm(at.control),
            spectrum.kind,
            spectrum.negative,
            spectrum.lowest,
        )


@dataclass(eq=False)
class Event:
    """A fold or a branch point.

    Attributes:
        kind: Of event.
        point: The critical point there.
        tangent: Unit tangent of the branch on which it was met.
        null_vectors: Orthonormal eigenvectors of the eigenvalues that are zero there.
        eigenvalue: The eigenvalue that should be zero, as far as it has been driven to.
        turns: Whether the parameter's direction changes there.
        position: How many points of the branch come before it.
        arms: Numbers of the branches that start here.
        copies: How many more start here that are symmetric copies of one of these.
    """

    kind: EventKind
    point: Point
    tangent: Place
    null_vectors: Sequence[Array]
    eigenvalue: float
    turns: bool
    position: int = 0
    arms: list[int] = field(default_factory=list)
    copies: int = 0

    def as_dict(self) -> dict[str, Any]:
        """As written to result files."""
        found: dict[str, Any] = {
            "kind": self.kind,
            "parameter": self.point.parameter,
            "objective": self.point.objective,
            "control_norm": self.point.control_norm,
            "eigenvalue": self.eigenvalue,
            "zero_eigenvalues": len(self.null_vectors),
            "after_points": self.position,
        }
        if self.kind == "branch point":
            found |= {"branches": self.arms, "symmetric_copies": self.copies}
        return found


@dataclass(frozen=True)
class Origin:
    """Where a branch comes from.

    Attributes:
        branch, event: Numbers of the branch and of the event on it.
        direction: +1 or -1 times the null vector.
    """

    branch: int
    event: int
    direction: int


@dataclass(eq=False)
class Branch:
    """A branch of critical points.

    Attributes:
        origin: Where it starts; None for the branch of the initial guess.
        points: Its points, in order.
        events: What happens on it, in order.
        end: Why it ends, in words.
        complete: Whether it was followed as far as was asked for.
    """

    origin: Origin | None = None
    points: list[Point] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    end: str = ""
    complete: bool = False

    def as_dict(self) -> dict[str, Any]:
        """As written to result files."""
        columns = {
            "parameter": "parameter",
            "objective": "objective",
            "loss": "loss",
            "kind": "kind",
            "negative_eigenvalues": "negative",
            "lowest_eigenvalue": "lowest",
            "gradient_norm": "gradient_norm",
            "control_norm": "control_norm",
        }
        found: dict[str, Any] = {
            name: [getattr(point, attribute) for point in self.points]
            for name, attribute in columns.items()
        }
        found["events"] = [event.as_dict() for event in self.events]
        found["from"] = None if self.origin is None else vars(self.origin)
        found["end"] = self.end
        return found
