"""What a solver tells while it runs and afterwards."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from fem_dnn.controls import ControlValues
from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.work import Work


@dataclass(frozen=True)
class Iteration:
    """One line of a solver's history.

    Attributes:
        iteration: Number of the iterate; 0 is the initial guess.
        objective: J.
        gradient_norm: L2 norm of the reduced gradient (of `all_at_once`, see there).
        linear_iterations: Krylov iterations so far.
        state_solves, adjoint_solves, hessian_solves: Equations and Hessian products so far.
        sweeps: All work so far in state solves (`work.Work.sweeps`).
        seconds: Time since the start.
        accuracy: Training accuracy where the loss classifies, else None.
        mesh: Which of nested meshes, 0 the coarsest; None where there is only one.
    """

    iteration: int
    objective: float
    gradient_norm: float
    linear_iterations: int
    state_solves: int
    adjoint_solves: int
    hessian_solves: int
    sweeps: float
    seconds: float
    accuracy: float | None = None
    mesh: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """As written to result files; without what does not apply."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Coarser:
    """What nested meshes have taken before the present one.

    Attributes:
        mesh: Number of the present mesh, 0 the coarsest.
        objective, gradient_norm: J and the gradient's norm at the case's own guess on its own mesh.
        history: Their iterates, the work counted through all of them.
        iterations, linear_iterations, state_solves, adjoint_solves, hessian_solves, sweeps,
            seconds: Their work.
    """

    mesh: int
    objective: float
    gradient_norm: float
    history: tuple[Iteration, ...] = ()
    iterations: int = 0
    linear_iterations: int = 0
    state_solves: int = 0
    adjoint_solves: int = 0
    hessian_solves: int = 0
    sweeps: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Waypoint:
    """Where a solve has got to: what it needs to go on from there, on any number of ranks.

    Attributes:
        control: The iterate's controls, nodal values in file order.
        iterations: The history up to the iterate, on its mesh.
        escapes: How many saddles have been left.
        step: Length of the last step, in L2 or as the method measures it; 0 at the start.
        coarser: What coarser meshes have taken before; None without nested meshes.
    """

    control: ControlValues
    iterations: tuple[Iteration, ...]
    escapes: int
    step: float
    coarser: Coarser | None = None

    @property
    def iteration(self) -> int:
        """The iterate's number, through all meshes."""
        before = 0 if self.coarser is None else len(self.coarser.history)
        return before + self.iterations[-1].iteration


Report = Callable[[Iteration], None]
"""Called after every iteration, on all ranks."""

Keep = Callable[[Callable[[], Waypoint]], None]
"""Called after every iteration, on all ranks, with what makes a waypoint of it (collective)."""

Accuracy = Callable[[Linearisation], float | None]
"""Training accuracy at a linearisation; None where the loss does not classify."""


@dataclass
class History:
    """Collects iterations and passes them on.

    Attributes:
        problem: The learning problem, whose work is counted from now on.
        report: Called with every iteration.
        accuracy: Computes the training accuracy.
        keep: May keep waypoints.
        iterations: The iterations so far.
        linear_iterations: Krylov iterations so far; kept up to date by the method.
        escapes: How many saddles have been left so far.
        step: Length of the last step, where waypoints may be kept.
        at: The last iterate.
    """

    problem: LearningProblem
    report: Report | None = None
    accuracy: Accuracy | None = None
    keep: Keep | None = None
    iterations: list[Iteration] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    linear_iterations: int = 0
    escapes: int = 0
    step: float = 0.0
    at: Linearisation | None = None

    def __post_init__(self) -> None:
        self._before = replace(self.problem.work)

    @property
    def state_solves(self) -> int:
        """State equations solved since the start; parts of the depth add up, and round up."""
        return _whole(self.problem.work.states - self._before.states)

    @property
    def adjoint_solves(self) -> int:
        """Adjoint equations solved since the start, likewise."""
        return _whole(self.problem.work.adjoints - self._before.adjoints)

    @property
    def hessian_solves(self) -> int:
        """Hessian-vector products since the start."""
        return self.problem.work.hessians - self._before.hessians

    @property
    def sweeps(self) -> float:
        """All work since the start in state solves."""
        return self.problem.work.sweeps - self._before.sweeps

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.perf_counter() - self.started

    def add(self, at: Linearisation, step: float | None = None) -> None:
        """Record the iterate at a linearisation.

        Args:
            at: The linearisation.
            step: Length of the step to it as the method measures steps; None: in L2.
        """
        line = Iteration(
            len(self.iterations),
            at.objective,
            at.gradient_norm,
            self.linear_iterations,
            self.state_solves,
            self.adjoint_solves,
            self.hessian_solves,
            self.sweeps,
            self.seconds,
            None if self.accuracy is None else self.accuracy(at),
        )
        self.iterations.append(line)
        if self.keep is not None and self.at is not None:
            self.step = self.problem.distance(at, self.at) if step is None else step
        self.at = at
        if self.report is not None:
            self.report(line)
        if self.keep is not None:
            self.keep(self.waypoint)

    def waypoint(self) -> Waypoint:
        """The last iterate as a waypoint (collective)."""
        assert self.at is not None, "nothing has been recorded"
        control = self.problem.controls.values(self.at.control)
        return Waypoint(control, tuple(self.iterations), self.escapes, self.step)

    def go_on_from(self, waypoint: Waypoint) -> Linearisation:
        """Take what led to a waypoint for what has been done here, and go to it."""
        self.iterations = list(waypoint.iterations)
        last = self.iterations[-1]
        gradients = last.state_solves + last.adjoint_solves
        done = Work(
            last.state_solves,
            last.adjoint_solves,
            last.hessian_solves,
            last.sweeps - gradients - 4 * last.hessian_solves,
        )
        self._before = self._before.minus(done)
        self.started -= last.seconds
        self.linear_iterations = last.linear_iterations
        self.escapes, self.step = waypoint.escapes, waypoint.step
        control = self.problem.controls.coordinates(waypoint.control)
        self.at = self.problem.linearise(self.problem.controls.project(control))
        return self.at


def _whole(solves: float) -> int:
    return math.ceil(solves - 1e-9)  # sums of fractions may lie above their value by round-off
