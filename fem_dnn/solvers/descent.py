"""What all methods share: descend to a critical point, look at its curvature, leave saddles.

A method's `Descend` finds a point where the reduced gradient has vanished. Newton's method finds
saddles as well as minimisers, and a first-order method may start at one. With `escape`, the lowest
eigenpair of the Hessian is looked at there, and the descent goes on along negative curvature.
Where controls have bounds the descent stays within them, its gradient is the projected one, and the
Hessian is that on the controls which no bound holds (`active_set`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fem_dnn.active_set import ActiveSet
from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers.curvature import Eigenpair, signed_lowest_eigenpair
from fem_dnn.solvers.history import History
from fem_dnn.solvers.petsc import OptionsInUse, PetscProblem
from fem_dnn.solvers.solution import Tolerances

Array = NDArray[np.float64]

MAX_ESCAPES = 10

NEAR = 10.0
"""Gradient, relative to its target, from which on one Newton step is meant to reach that."""

FORCING = 0.1
"""Largest relative accuracy asked of a linear solve."""

WITHIN = "the gradient norm {gradient_norm:.2e} is within the tolerance"

NOT_FINITE = (
    "the gradient is not finite; use more layers (mesh.depth.cells) or a smaller initial guess"
)

MOVED = "; the initial guess was projected onto the bounds"

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
        target: Norm of the (projected) gradient to reach.
        tolerances: When to end.
        history: Collects the iterates.
        options: The PETSc options in use.
        radius: Trust radius to begin with, an L2 length; None: the method's own.
        minimise: Whether it is for a minimiser; else any critical point nearby will do.
    """

    petsc: PetscProblem
    start: Linearisation
    target: float
    tolerances: Tolerances
    history: History
    options: OptionsInUse
    radius: float | None = None
    minimise: bool = True

    @property
    def iterations_left(self) -> int:
        """Iterations until the limit."""
        return max(self.tolerances.max_iterations - len(self.history.iterations) + 1, 0)

    @property
    def newton_has_begun(self) -> bool:
        """Whether the last iterate came from a Newton step, also where a solve is resumed.

        Only these take linear iterations, as the examination of a saddle and the way off it do not.
        """
        counts = [line.linear_iterations for line in self.history.iterations[-2:]]
        return counts[-1] > counts[0]

    def is_near(self, norm: float) -> bool:
        """Whether one Newton step from a gradient of that norm is meant to be the last."""
        return norm <= NEAR * self.target

    def outcome(self, at: Linearisation, text: str) -> tuple[Linearisation, str]:
        """The point reached and the reason, with its numbers filled in."""
        if not math.isfinite(at.gradient_norm):
            text = NOT_FINITE
        elif at.gradient_norm <= self.target:
            text = WITHIN
        iterations = len(self.history.iterations) - 1
        return at, text.format(gradient_norm=at.gradient_norm, iterations=iterations)

    def forcing(self, norm: float) -> float:
        """The relative accuracy that a Newton step's linear solve needs at a gradient norm.

        The square of the last step's reduction of the gradient (Eisenstat & Walker, SIAM J. Sci.
        Comput. 17, 1996): little is asked while steps are short and the model is poor. Where a step
        has done well, the gradient's own size is asked for, so that the end is quadratic.
        """
        lines = self.history.iterations
        before = lines[-2].gradient_norm if len(lines) > 1 else norm
        reduction = norm / before if before > 0 else 1.0
        needed = 0.9 * reduction**2
        if reduction < FORCING:
            needed = min(needed, norm / (lines[0].gradient_norm or 1.0))
        # No more accurate than the last step needs.
        last = 0.3 * self.target / norm if norm > self.target else 1.0
        return min(FORCING, last if self.is_near(norm) else max(needed, last))


Descend = Callable[[Descent], tuple[Linearisation, str]]
"""Runs a method; returns the point reached and the reason."""


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
    pair: Eigenpair | None = None


def examine(petsc: PetscProblem, at: Linearisation, escape: bool) -> Curvature:
    """Look at the curvature of a critical point; of its kinks only, where `escape` is off."""
    smooth = at.problem.network.activation.smooth
    if not smooth and not at.problem.controls.any_rank(not at.at_rest):
        return Curvature(False, f"; but {KINK}")
    if not escape:
        return Curvature(True, " (a critical point: its curvature was not examined)")
    threshold = curvature_tolerance(at.problem)
    active, free, where = ActiveSet.of(at), None, ""
    if active is not None:
        if active.free_count == 0:
            return Curvature(True, "; every control is held by a bound: a strict local minimiser")
        free, where = active.free, f" on the {active.free_count} controls that no bound holds"
    pair = signed_lowest_eigenpair(petsc, at, threshold, free=free)
    if pair is None:
        return Curvature(True, "; the lowest Hessian eigenvalue could not be resolved")
    text = f"; lowest Hessian eigenvalue {pair.value:.3e}{where}"
    if pair.value < -threshold:
        if active is not None and active.weak_count and _undecided(petsc, active, pair, threshold):
            weak = f" (of these {active.weak_count} are at a bound with the multiplier 0"
            return Curvature(True, f"{text}{weak}: the second order does not decide)", pair)
        advice = ": a saddle; raise solver.max_iterations, lower solver.rtol, or start elsewhere"
        return Curvature(False, text + advice, pair)
    if pair.value < threshold:
        return Curvature(True, text + ": degenerate", pair)
    if not smooth:
        return Curvature(True, text + " (no proof of a minimum: the activation has a kink)", pair)
    return Curvature(True, text + ": a local minimiser of the discrete problem", pair)


def _undecided(petsc: PetscProblem, active: ActiveSet, pair: Eigenpair, threshold: float) -> bool:
    """Whether negative curvature needs controls that leave their bounds, and leads to no descent.

    Along controls at a bound with the multiplier 0 only one direction is allowed.
    """
    at = active.at
    controls = at.problem.controls
    if controls.any_rank(bool(np.any(active.inactive))):
        inner = signed_lowest_eigenpair(petsc, at, threshold, free=active.inactive)
        if inner is None or inner.value < -threshold:
            return False
    return along_negative_curvature(at, pair) is at


def curvature_tolerance(problem: LearningProblem) -> float:
    """Eigenvalues above minus this count as non-negative: small against the Tikhonov weights."""
    return 1e-3 * (problem.regularization.least_weight or 1e-5)


def along_negative_curvature(at: Linearisation, pair: Eigenpair) -> Linearisation:
    """The lowest point met along a direction of negative curvature, by doubling steps.

    Downhill first, then the other way, projected onto the bounds; the point itself if neither is
    lower.
    """
    downhill = -1.0 if at.problem.controls.dot(at.gradient, pair.vector) > 0 else 1.0
    for sign in (downhill, -downhill):
        best = lowest_along(at, sign * pair.vector)
        if best is not at:
            return best
    return at


def lowest_along(at: Linearisation, direction: Array) -> Linearisation:
    """The lowest point met along a unit vector by doubling steps, projected onto the bounds.

    The point itself if none is lower.
    """
    problem = at.problem
    best, step = at, 1e-3 * max(1.0, problem.controls.norm(at.control))
    while True:
        ahead = problem.moved(at, step * direction)
        trial = problem.linearise(problem.controls.project(ahead))
        try:
            if not trial.objective < best.objective:
                return best
        except SlabFailure:
            return best
        best, step = trial, 2 * step
