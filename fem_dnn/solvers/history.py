"""What a solver tells while it runs and afterwards."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from fem_dnn.problem import LearningProblem, Linearisation


@dataclass(frozen=True)
class Iteration:
    """One line of a solver's history.

    Attributes:
        iteration: Number of the iterate; 0 is the initial guess.
        objective: J.
        gradient_norm: L2 norm of the reduced gradient (of `all_at_once`, see there).
        linear_iterations: Krylov iterations so far.
        state_solves, adjoint_solves, hessian_solves: Equations and Hessian products so far.
        sweeps: All work so far in state solves (`problem.Work.sweeps`).
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


Report = Callable[[Iteration], None]
"""Called after every iteration, on all ranks."""

Accuracy = Callable[[Linearisation], float | None]
"""Training accuracy at a linearisation; None where the loss does not classify."""


@dataclass
class History:
    """Collects iterations and passes them on.

    Attributes:
        problem: The learning problem, whose work is counted from now on.
        report: Called with every iteration.
        accuracy: Computes the training accuracy.
        iterations: The iterations so far.
        linear_iterations: Krylov iterations so far; kept up to date by the method.
        at: The last iterate.
    """

    problem: LearningProblem
    report: Report | None = None
    accuracy: Accuracy | None = None
    iterations: list[Iteration] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    linear_iterations: int = 0
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

    def add(self, at: Linearisation) -> None:
        """Record the iterate at a linearisation."""
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
        self.at = at
        if self.report is not None:
            self.report(line)


def _whole(solves: float) -> int:
    return math.ceil(solves - 1e-9)  # sums of fractions may lie above their value by round-off
