"""What all methods share: descend to a critical point, look at its curvature, leave saddles.

A method's `Descend` finds a point where the reduced gradient has vanished. Newton's method finds
saddles as well as minimisers, and a first-order method may start at one. With `escape`, the lowest
eigenpair of the Hessian is looked at there, and the descent goes on along negative curvature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers.curvature import LowestEigenpair, signed_lowest_eigenpair
from fem_dnn.solvers.history import Accuracy, History, Report
from fem_dnn.solvers.petsc import PREFIX, OptionsInUse, PetscProblem, inserted_options
from fem_dnn.solvers.solution import Solution, Tolerances

Array = NDArray[np.float64]

MAX_ESCAPES = 10

WITHIN = "the gradient norm {gradient_norm:.2e} is within the tolerance"

KINK = (
    "all pre-activations are exactly 0, where the activation has a kink: the gradient vanishes "
    'there without a minimum; use solver.initial = { kind = "constant", bias = 0.1 }'
)


@dataclass(eq=False)
class Descent:
    """One run of a method from a point.

    Attributes:
        petsc: The learning problem for PETSc.
        start: Where it starts; in the history already.
        target: Gradient norm to reach.
        tolerances: When to end.
        history: Collects the iterates.
        options: The PETSc options in use.
    """

    petsc: PetscProblem
    start: Linearisation
    target: float
    tolerances: Tolerances
    history: History
    options: OptionsInUse

    @property
    def iterations_left(self) -> int:
        """Iterations until the limit."""
        return max(self.tolerances.max_iterations - len(self.history.iterations) + 1, 0)

    def outcome(self, at: Linearisation, text: str) -> tuple[Linearisation, str]:
        """The point reached and the reason, with its numbers filled in."""
        if at.gradient_norm <= self.target:
            text = WITHIN
        iterations = len(self.history.iterations) - 1
        return at, text.format(gradient_norm=at.gradient_norm, iterations=iterations)


Descend = Callable[[Descent], tuple[Linearisation, str]]
"""Runs a method; returns the point reached and the reason."""


def solve_by(
    descend: Descend,
    defaults: Mapping[str, object],
    problem: LearningProblem,
    initial: Array,
    tolerances: Tolerances | None,
    *,
    escape: bool,
    report: Report | None,
    accuracy: Accuracy | None,
    options: Mapping[str, object] | None,
) -> Solution:
    """Solve a learning problem by a method; arguments as in `solve_newton`.

    Args:
        descend: The method.
        defaults: Its PETSc options, which the user's override.
    """
    tolerances = tolerances or Tolerances()
    history = History(problem, report, accuracy)
    at = problem.linearise(np.array(initial))
    initial_norm = at.gradient_norm
    target = tolerances.target(initial_norm)
    history.add(at)
    petsc = PetscProblem(problem)
    curvature = Curvature(True, "")
    try:
        with inserted_options(PREFIX, defaults, options or {}) as in_use:
            for escapes in range(MAX_ESCAPES + 1):
                descent = Descent(petsc, at, target, tolerances, history, in_use)
                at, reason = descend(descent)
                if at.gradient_norm > target:
                    curvature = Curvature(False, "")
                    break
                curvature = examine(petsc, at, escape)
                if curvature.acceptable or curvature.pair is None or not escape:
                    break
                exhausted = escapes == MAX_ESCAPES or not descent.iterations_left
                lower = at if exhausted else along_negative_curvature(at, curvature.pair)
                if lower is at:
                    break
                at = lower
                history.add(at)
            reason += curvature.text
            for name in in_use.unread():
                reason += f"; PETSc option -{name} was read by nothing"
    finally:
        petsc.destroy()
    return Solution.from_history(
        at,
        history,
        converged=curvature.acceptable,
        reason=reason,
        initial_gradient_norm=initial_norm,
        lowest_eigenvalue=None if curvature.pair is None else curvature.pair.value,
    )


@dataclass(frozen=True, eq=False)
class Curvature:
    """What is known of a critical point.

    Attributes:
        acceptable: Whether it may be called a solution.
        text: What to say of it.
        pair: Lowest eigenpair of the Hessian, where computed.
    """

    acceptable: bool
    text: str
    pair: LowestEigenpair | None = None


def examine(petsc: PetscProblem, at: Linearisation, escape: bool) -> Curvature:
    """Look at the curvature of a critical point; of its kinks only, where `escape` is off."""
    smooth = at.problem.network.activation.smooth
    if not smooth and not at.problem.controls.any_rank(bool(np.any(at.state.u))):
        return Curvature(False, f"; but {KINK}")
    if not escape:
        return Curvature(True, " (a critical point: its curvature was not examined)")
    threshold = curvature_tolerance(at.problem)
    pair = signed_lowest_eigenpair(petsc, at, threshold)
    if pair is None:
        return Curvature(True, "; the lowest Hessian eigenvalue could not be resolved")
    text = f"; lowest Hessian eigenvalue {pair.value:.3e}"
    if pair.value < -threshold:
        advice = ": a saddle; raise solver.max_iterations, lower solver.rtol, or start elsewhere"
        return Curvature(False, text + advice, pair)
    if pair.value < threshold:
        return Curvature(True, text + ": degenerate", pair)
    if not smooth:
        return Curvature(True, text + " (no proof of a minimum: the activation has a kink)", pair)
    return Curvature(True, text + ": a local minimiser of the discrete problem", pair)


def curvature_tolerance(problem: LearningProblem) -> float:
    """Eigenvalues above minus this count as non-negative: small against the Tikhonov weights."""
    weights = [w for w in problem.regularization.weights if w > 0]
    return 1e-3 * min(weights, default=1e-5)


def along_negative_curvature(at: Linearisation, pair: LowestEigenpair) -> Linearisation:
    """The lowest point met along a direction of negative curvature, by doubling steps.

    Downhill first, then the other way; the point itself if neither is lower.
    """
    problem = at.problem
    downhill = -1.0 if problem.controls.dot(at.gradient, pair.vector) > 0 else 1.0
    for sign in (downhill, -downhill):
        best, step = at, 1e-3 * max(1.0, problem.controls.norm(at.control))
        while True:
            trial = problem.linearise(at.control + sign * step * pair.vector)
            try:
                if not trial.objective < best.objective:
                    break
            except SlabFailure:
                break
            best, step = trial, 2 * step
        if best is not at:
            return best
    return at
