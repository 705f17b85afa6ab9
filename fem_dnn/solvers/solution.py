"""A solve's outcome. Failure is a result: `reason` says why it ended and what to try."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.solvers.history import History, Iteration

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Tolerances:
    """When a solve ends.

    Attributes:
        rtol: On the L2 norm of the reduced gradient, relative to the initial guess's.
        atol: The same, absolute; the weaker of the two counts.
        max_iterations: Limit on iterations.
    """

    rtol: float = 1e-8
    atol: float = 1e-12
    max_iterations: int = 500

    def target(self, initial_gradient_norm: float) -> float:
        """Gradient norm at which a solve has converged."""
        relative = self.rtol * initial_gradient_norm
        return max(self.atol, relative) if math.isfinite(relative) else self.atol


@dataclass(frozen=True, eq=False)
class Solution:
    """Outcome of a solver.

    Attributes:
        at: The learning problem linearised at the returned control.
        converged: Whether the tolerance is met there, and it is neither a kink nor, where curvature
            was examined, a saddle.
        reason: Why it ended and, if not converged, what to try.
        initial_gradient_norm: L2 norm of the reduced gradient at the initial guess.
        lowest_eigenvalue: Lowest Hessian eigenvalue at the returned control, where computed.
        history: One entry per iterate.
        iterations, linear_iterations, state_solves, adjoint_solves, hessian_solves, sweeps,
            seconds: Work done, as in `Iteration`.
    """

    at: Linearisation
    converged: bool
    reason: str
    initial_gradient_norm: float
    lowest_eigenvalue: float | None
    history: list[Iteration]
    iterations: int
    linear_iterations: int
    state_solves: int
    adjoint_solves: int
    hessian_solves: int
    sweeps: float
    seconds: float

    @property
    def problem(self) -> LearningProblem:
        """The learning problem solved."""
        return self.at.problem

    @property
    def control(self) -> Array:
        """The returned control: local vector in L2-orthonormal coordinates."""
        return self.at.control

    @property
    def objective(self) -> float:
        """J at the returned control."""
        return self.at.objective

    @property
    def gradient_norm(self) -> float:
        """L2 norm of the reduced gradient at the returned control."""
        return self.at.gradient_norm

    @classmethod
    def from_history(
        cls,
        at: Linearisation,
        history: History,
        *,
        converged: bool,
        reason: str,
        initial_gradient_norm: float,
        lowest_eigenvalue: float | None = None,
    ) -> Solution:
        """The solution with the work that the history has counted."""
        return cls(
            at,
            converged,
            reason,
            initial_gradient_norm,
            lowest_eigenvalue,
            list(history.iterations),
            max(len(history.iterations) - 1, 0),
            history.linear_iterations,
            history.state_solves,
            history.adjoint_solves,
            history.hessian_solves,
            history.sweeps,
            history.seconds,
        )
