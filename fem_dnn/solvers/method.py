"""A method: what it is called, how it descends, and the call that all methods share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fem_dnn.errors import BadInput
from fem_dnn.problem import LearningProblem
from fem_dnn.solvers.descent import (
    MAX_ESCAPES,
    MOVED,
    Curvature,
    Descend,
    Descent,
    along_negative_curvature,
    examine,
)
from fem_dnn.solvers.history import Accuracy, History, Keep, Report, Waypoint
from fem_dnn.solvers.petsc import PREFIX, Measure, PetscProblem, inserted_options
from fem_dnn.solvers.solution import Solution, Tolerances

Array = NDArray[np.float64]

GROWTH = 2.0
"""A resumed trust region is so much larger than the last step: as after a step that did well."""


@dataclass(frozen=True)
class Way:
    """How a method goes about a descent.

    Attributes:
        descend: Runs it.
        defaults: Its PETSc options, which the user's override.
        measure: The metric of steps from a point; None: the problem's own.
    """

    descend: Descend
    defaults: Mapping[str, object] = field(default_factory=dict)
    measure: Measure | None = None


@dataclass(frozen=True)
class Method:
    """A method of solving learning problems; call it to solve one.

    Attributes:
        name: As in case files.
        free: How it descends where the controls have no bounds.
        within_bounds: The same where they have some; None: it knows none.
    """

    name: str
    free: Way
    within_bounds: Way | None

    def __call__(
        self,
        problem: LearningProblem,
        initial: Array,
        tolerances: Tolerances | None = None,
        *,
        escape: bool = True,
        report: Report | None = None,
        accuracy: Accuracy | None = None,
        options: Mapping[str, object] | None = None,
        keep: Keep | None = None,
        resume: Waypoint | None = None,
    ) -> Solution:
        """Solve a learning problem, within the controls' bounds (collective).

        Args:
            problem: Learning problem.
            initial: Initial guess, local control vector in L2-orthonormal coordinates.
            tolerances: When to end.
            escape: Look for a minimiser: take quasi-Newton steps on the way where the method does,
                look at the curvature where the gradient vanishes, and leave saddles. Without, any
                critical point will do.
            report: Called with every iteration on all ranks.
            accuracy: Training accuracy for the history.
            options: PETSc options without prefix, of the objects that the method uses, e.g. for
                `newton` {"snes_monitor": None, "ksp_max_it": 50}; any method's curvature is
                examined by an eigensolver ("eps_...").
            keep: Called with every iteration on all ranks; may keep waypoints.
            resume: Where an earlier solve of the problem, by any method, had got to; go on from
                there. Its history, its work and its seconds count, also towards the limit on
                iterations, and `rtol` refers to its initial guess. Not kept: what the method has
                learned of the curvature (L-BFGS pairs, step lengths) and, of `all-at-once`, state
                and adjoint, which are solved anew. The step's length gives a trust radius.

        Returns:
            The solution; not converged is told by its `converged` and `reason`.

        Raises:
            SlabFailure: The state equation cannot be solved where the solve starts.
            BadInput: A PETSc option that nothing reads; bounds, which the method does not know.
        """
        way = self.free if problem.controls.box is None else self.within_bounds
        if way is None:
            raise BadInput(
                None, "bounds", f"{self.name} knows no bounds", "another method, such as newton"
            )
        tolerances = tolerances or Tolerances()
        history = History(problem, report, accuracy, keep)
        control = problem.controls.project(np.array(initial))
        moved = problem.controls.any_rank(not np.array_equal(control, initial))
        radius: float | None = None
        if resume is None:
            at = problem.linearise(control)
            history.add(at)
        else:
            at = history.go_on_from(resume)
            radius = GROWTH * history.step or None
        initial_norm = history.iterations[0].gradient_norm
        target = tolerances.target(initial_norm)
        petsc = PetscProblem(problem, way.measure)
        curvature = Curvature(True, "")
        try:
            with inserted_options(PREFIX, way.defaults, options or {}) as in_use:
                while True:
                    descent = Descent(
                        petsc, at, target, tolerances, history, in_use, radius, escape
                    )
                    if math.isfinite(at.gradient_norm):
                        at, reason = way.descend(descent)
                    else:  # PETSc would take it for a mistake in the program
                        at, reason = descent.outcome(at, "")
                    if not at.gradient_norm <= target:
                        curvature = Curvature(False, "")
                        break
                    curvature = examine(petsc, at, escape)
                    if curvature.acceptable or curvature.pair is None or not escape:
                        break
                    exhausted = history.escapes == MAX_ESCAPES or not descent.iterations_left
                    lower = at if exhausted else along_negative_curvature(at, curvature.pair)
                    if lower is at:
                        break
                    at, radius = lower, None
                    history.escapes += 1
                    history.add(at)
                reason += curvature.text + (MOVED if moved else "")
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
