"""Limited-memory BFGS (PETSc TAO `lmvm`, More-Thuente line search): the first-order baseline."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from petsc4py import PETSc

from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers.descent import Descent, solve_by
from fem_dnn.solvers.history import Accuracy, Report
from fem_dnn.solvers.petsc import PREFIX, original_errors
from fem_dnn.solvers.solution import Solution, Tolerances

Array = NDArray[np.float64]

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
        "the line search found no decrease at a gradient norm of {gradient_norm:.2e}; if that is "
        'small enough raise solver.rtol, else use solver.method = "newton"'
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
    escape: bool = True,
    report: Report | None = None,
    accuracy: Accuracy | None = None,
    options: Mapping[str, object] | None = None,
) -> Solution:
    """Solve the learning problem by limited-memory BFGS.

    Arguments, returns and errors are those of `solve_newton`.
    """
    return solve_by(
        _descend,
        DEFAULTS,
        problem,
        initial,
        tolerances,
        escape=escape,
        report=report,
        accuracy=accuracy,
        options=options,
    )


def _descend(descent: Descent) -> tuple[Linearisation, str]:
    """Run TAO."""
    petsc, history, target = descent.petsc, descent.history, descent.target
    limit = descent.iterations_left
    tao = PETSc.TAO().create(petsc.comm)
    x, g = petsc.start(descent.start), petsc.vector()

    def monitor(tao: PETSc.TAO) -> None:
        if tao.getIterationNumber() > 0:  # the start is in the history already
            history.add(petsc.at(tao.getSolution()))

    def l2_convergence(tao: PETSc.TAO) -> int:
        """The L2 norm of the gradient in place of |T' gradient|."""
        if petsc.at(tao.getSolution()).gradient_norm <= target:
            return _TAO.CONVERGED_GATOL
        if tao.getIterationNumber() >= limit:
            return _TAO.DIVERGED_MAXITS
        return _TAO.CONTINUE_ITERATING

    try:
        tao.setOptionsPrefix(PREFIX)
        tao.setObjectiveGradient(petsc.objective_gradient, g)
        tao.setTolerances(gatol=target, grtol=0.0, gttol=0.0)
        tao.setMaximumIterations(limit)
        tao.setMonitor(monitor)
        tao.setSolution(x)
        tao.setFromOptions()
        if petsc.riesz is not None:
            tao.setConvergenceTest(l2_convergence)  # now: choosing the type resets the test
        descent.options.require_read()
        if descent.start.gradient_norm <= target:
            return descent.outcome(descent.start, "")
        with original_errors():
            tao.solve()
        code = tao.getConvergedReason()
        text = REASONS.get(code, f"PETSc stopped with TAO reason {code}")
        return descent.outcome(petsc.at(x), text if petsc.failure is None else str(petsc.failure))
    except (SlabFailure, PETSc.Error) as failure:
        # PETSc's line search gives up on values that are not finite: say what made them so.
        if petsc.failure is None and isinstance(failure, PETSc.Error):
            raise
        return descent.outcome(history.at or descent.start, str(petsc.failure or failure))
    finally:
        for thing in (tao, x, g):
            thing.destroy()
