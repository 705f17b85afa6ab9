"""Limited-memory BFGS (PETSc TAO `lmvm`, More-Thuente line search): the first-order baseline."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from petsc4py import PETSc

from fem_dnn.problem import LearningProblem
from fem_dnn.solvers.history import Accuracy, History, Report
from fem_dnn.solvers.petsc import PetscProblem, inserted_options, original_errors
from fem_dnn.solvers.solution import Solution, Tolerances

Array = NDArray[np.float64]

PREFIX = "fem_dnn_"

DEFAULTS: dict[str, object] = {
    "tao_type": "lmvm",
    "tao_grtol": 0.0,  # a type brings its own tolerance on |g|/|J|, whatever was set before
    "tao_max_funcs": 1_000_000,
}

_TAO = PETSc.TAO.ConvergedReason

REASONS = {
    _TAO.DIVERGED_MAXITS: (
        "the limit of {iterations} iterations was reached; raise solver.max_iterations, or use "
        'solver.method = "newton"'
    ),
    _TAO.DIVERGED_LS_FAILURE: (
        "the line search found no decrease at a gradient norm of {gradient_norm:.2e}: round-off; "
        'raise solver.rtol, or use solver.method = "newton"'
    ),
    _TAO.CONVERGED_STEPTOL: (
        "the steps became too small at a gradient norm of {gradient_norm:.2e}; raise solver.rtol, "
        'or use solver.method = "newton"'
    ),
    _TAO.DIVERGED_NAN: (
        "the objective is not finite; use more layers (mesh.depth.cells) or a smaller initial guess"
    ),
}
"""What PETSc's reasons mean here, with advice."""


def solve_lbfgs(
    problem: LearningProblem,
    initial: Array,
    tolerances: Tolerances | None = None,
    *,
    escape: bool = False,
    report: Report | None = None,
    accuracy: Accuracy | None = None,
    options: Mapping[str, object] | None = None,
) -> Solution:
    """Solve the learning problem by limited-memory BFGS.

    Args, returns and errors as `solve_newton`; `escape` has nothing to act on here, because a
    first-order method sees no curvature, and the reason says so.
    """
    tolerances = tolerances or Tolerances()
    history = History(problem, report, accuracy)
    at = problem.linearise(np.array(initial))
    initial_norm = at.gradient_norm
    target = tolerances.target(initial_norm)
    petsc = PetscProblem(problem)
    petsc.adopt(at)
    tao, x, g = PETSc.TAO().create(petsc.comm), petsc.vector(at.control), petsc.vector()
    try:
        with inserted_options(PREFIX, DEFAULTS, options or {}) as require_read:
            tao.setOptionsPrefix(PREFIX)
            tao.setObjectiveGradient(petsc.objective_gradient, g)
            tao.setTolerances(gatol=target, grtol=0.0, gttol=0.0)
            tao.setMaximumIterations(tolerances.max_iterations)
            tao.setMonitor(lambda tao: history.add(petsc.at(tao.getSolution())))
            tao.setSolution(x)
            tao.setFromOptions()
            require_read()
            with original_errors():
                tao.solve()
        at = petsc.at(x)
        code = tao.getConvergedReason()
    finally:
        for thing in (tao, x, g):
            thing.destroy()
        petsc.destroy()
    converged = at.gradient_norm <= target
    if converged:
        text = "the gradient norm {gradient_norm:.2e} is within the tolerance"
        text += " (a critical point: L-BFGS sees no curvature)"
    else:
        text = REASONS.get(code, f"PETSc stopped with TAO reason {code}")
    return Solution.from_history(
        at,
        history,
        converged=converged,
        reason=text.format(gradient_norm=at.gradient_norm, iterations=len(history.iterations) - 1),
        initial_gradient_norm=initial_norm,
    )
