"""The clock beside a solve: it ends where the gradient is small enough, or the time is over."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class Stop(Exception):
    """Raised within a peer's solver, whose own tests of convergence are off."""


@dataclass
class Watch:
    """Sees every evaluation of a solve; the first one is at the start.

    Attributes:
        limit: Seconds after which the solve ends: the process's own, so that a machine that is
            busy with something else takes nothing away.
        rtol: Gradient norm, relative to that at the start, at which it ends.
        evaluations: Gradients so far.
        products: Hessian products so far.
        objective, relative: The last evaluation's.
        lowest: Lowest relative gradient norm so far.
        best: Lowest objective so far.
        seconds: On the wall's clock, from `start` to the last evaluation.
        cpu_seconds: The process's own, of all its threads.
        curve: (own seconds, lowest objective by then), about 60 points a decade.
    """

    limit: float
    rtol: float = 1e-8
    evaluations: int = 0
    products: int = 0
    objective: float = math.nan
    relative: float = 1.0
    lowest: float = math.inf
    best: float = math.inf
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    curve: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._first: float | None = None
        self.start()

    def start(self) -> None:
        """The clock starts, or starts again."""
        self.started = time.perf_counter()
        self._cpu = time.process_time()

    def see(self, objective: float, norm: float) -> None:
        """Record an evaluation.

        Raises:
            Stop: This was the last one.
        """
        self._tick()
        self.evaluations += 1
        if self._first is None:
            self._first = norm
        self.objective, self.relative = objective, norm / self._first
        self.lowest = min(self.lowest, self.relative)
        self.best = min(self.best, objective)
        if not self.curve or self.cpu_seconds > 1.04 * self.curve[-1][0]:
            self.curve.append((self.cpu_seconds, self.best))
        if self.reached:
            raise Stop
        self.check_time()

    def check_time(self) -> None:
        """To be called where a solver works without evaluating gradients.

        Raises:
            Stop: The time is over.
        """
        self._tick()
        if self.cpu_seconds > self.limit:
            raise Stop

    @property
    def reached(self) -> bool:
        """Whether the gradient is small enough."""
        return self.relative <= self.rtol

    def _tick(self) -> None:
        self.seconds = time.perf_counter() - self.started
        self.cpu_seconds = time.process_time() - self._cpu

    def result(self) -> dict[str, Any]:
        """As a record holds it."""
        return {
            "reached": self.reached,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "objective": self.objective,
            "best_objective": self.best,
            "relative_gradient": self.relative,
            "evaluations": self.evaluations,
            "hessian_products": self.products,
        }


ATTEMPTS = 5
"""Fresh starts in a row that may bring nothing before a solve is given up."""


def persist(watch: Watch, attempt: Callable[[], None]) -> None:
    """Minimise again and again, each attempt from where the last one has got to.

    Near the minimum the objective no longer changes beyond round-off, and line searches that
    compare its values give up; a fresh start may get further.

    Args:
        watch: The clock, whose `Stop` ends this.
        attempt: Minimises until its solver gives up.
    """
    lowest, vain = math.inf, 0
    while vain < ATTEMPTS:
        attempt()
        vain = 0 if watch.lowest < lowest else vain + 1
        lowest = watch.lowest
