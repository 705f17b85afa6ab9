"""Newton's method on the Euler-Lagrange system with state and adjoint eliminated (PETSc SNES).

The reduced gradient is the SNES function, the objective its merit function. Steps come from a
trust region (`newtontr`) whose model is minimised by conjugate gradients truncated at the region's
boundary and at negative curvature (`stcg`; Steihaug, SIAM J. Numer. Anal. 20, 1983). The
relative accuracy of the linear solves falls with the gradient, so that the last steps converge
quadratically (Dembo, Eisenstat & Steihaug, SIAM J. Numer. Anal. 19, 1982).

Newton's method also ends at saddles. With `escape`, the lowest eigenpair of the Hessian is looked
at where the gradient has vanished, and the descent goes on along negative curvature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from petsc4py import PETSc

from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers.curvature import LowestEigenpair, signed_lowest_eigenpair
from fem_dnn.solvers.history import Accuracy, History, Report
from fem_dnn.solvers.petsc import PetscProblem, inserted_options, original_errors
from fem_dnn.solvers.solution import Solution, Tolerances

Array = NDArray[np.float64]

PREFIX = "fem_dnn_"
"""Prefix of the PETSc options of this solver; the command line's `-- -name` gets it unasked."""

DEFAULTS: dict[str, object] = {
    "snes_type": "newtontr",
    "ksp_type": "stcg",
    "ksp_max_it": 1000,
    "pc_type": "none",
    # A linear solve cut short is still a descent step: let the trust region judge it.
    "snes_max_linear_solve_fail": 1_000_000,
}

FORCING = 0.1
"""Largest relative accuracy asked of a linear solve."""

MAX_ESCAPES = 10

SNES_REASON = PETSc.SNES.ConvergedReason

REASONS = {
    SNES_REASON.DIVERGED_MAX_IT: (
        "the limit of {iterations} iterations was reached; raise solver.max_iterations, start "
        "from a coarser solution, or use a stronger regularization"
    ),
    SNES_REASON.DIVERGED_TR_DELTA: (
        "the trust region shrank to nothing at a gradient norm of {gradient_norm:.2e}: the "
        "objective no longer decreases beyond round-off; raise solver.rtol, or smooth the "
        "activation (softplus for relu)"
    ),
    SNES_REASON.DIVERGED_FUNCTION_COUNT: (
        "PETSc's limit of function evaluations was reached; raise -snes_max_funcs"
    ),
    SNES_REASON.DIVERGED_FNORM_NAN: (
        "the gradient is not finite; use more layers (mesh.depth.cells) or a smaller initial guess"
    ),
    SNES_REASON.CONVERGED_SNORM_RELATIVE: (
        "the steps became smaller than -snes_stol before the gradient met solver.rtol"
    ),
}
"""What PETSc's reasons mean here, with advice."""


def solve_newton(
    problem: LearningProblem,
    initial: Array,
    tolerances: Tolerances | None = None,
    *,
    escape: bool = True,
    report: Report | None = None,
    accuracy: Accuracy | None = None,
    options: Mapping[str, object] | None = None,
) -> Solution:
    """Solve the learning problem by trust-region Newton-CG.

    Args:
        problem: Learning problem.
        initial: Initial guess, local control vector in L2-orthonormal coordinates.
        tolerances: When to end.
        escape: Leave saddles along negative curvature.
        report: Called with every iteration on all ranks.
        accuracy: Training accuracy for the history.
        options: PETSc options without prefix, e.g. {"snes_monitor": None, "ksp_max_it": 50}.

    Returns:
        The solution; not converged is told by its `converged` and `reason`.

    Raises:
        SlabFailure: The state equation cannot be solved at the initial guess.
        BadInput: A PETSc option that nothing reads.
    """
    tolerances = tolerances or Tolerances()
    history = History(problem, report, accuracy)
    at = problem.linearise(np.array(initial))
    initial_norm = at.gradient_norm
    target = tolerances.target(initial_norm)
    history.add(at)
    petsc = PetscProblem(problem)
    pair: LowestEigenpair | None = None
    curvature = "" if escape else " (a critical point: curvature was not examined)"
    try:
        with inserted_options(PREFIX, DEFAULTS, options or {}) as require_read:
            for escapes in range(MAX_ESCAPES + 1):
                at, reason = _descend(petsc, at, target, tolerances, history, require_read)
                converged = at.gradient_norm <= target
                if not converged or not escape:
                    break
                if _at_kink(at):
                    converged = False
                    reason = (
                        "all pre-activations are exactly 0, where the activation has a kink: the "
                        'gradient vanishes there without a minimum; use solver.initial = { kind = "'
                        'constant", bias = 0.1 }'
                    )
                    curvature = ""
                    break
                threshold = _curvature_tolerance(problem)
                pair = signed_lowest_eigenpair(petsc, at, threshold)
                if pair is None:
                    curvature = "; the lowest Hessian eigenvalue could not be resolved"
                    break
                if pair.value >= -threshold:
                    curvature = f"; lowest Hessian eigenvalue {pair.value:.3e}: a local minimiser"
                    if pair.value < threshold:
                        curvature = f"; lowest Hessian eigenvalue {pair.value:.1e}: degenerate"
                    break
                if escapes == MAX_ESCAPES or len(history.iterations) > tolerances.max_iterations:
                    converged = False
                    reason = f"still at a saddle (Hessian eigenvalue {pair.value:.3e})"
                    curvature = "; raise solver.max_iterations or start elsewhere"
                    break
                at = _along_negative_curvature(at, pair)
                history.add(at)
    finally:
        petsc.destroy()
    return Solution.from_history(
        at,
        history,
        converged=converged,
        reason=reason + (curvature if at.gradient_norm <= target else ""),
        initial_gradient_norm=initial_norm,
        lowest_eigenvalue=None if pair is None else pair.value,
    )


def _descend(
    petsc: PetscProblem,
    at: Linearisation,
    target: float,
    tolerances: Tolerances,
    history: History,
    require_read: Callable[[], None],
) -> tuple[Linearisation, str]:
    """Run SNES from a linearisation to the target; the point reached and the reason."""
    left = tolerances.max_iterations - len(history.iterations) + 1
    if at.gradient_norm <= target:
        return at, f"the gradient norm {at.gradient_norm:.2e} is within the tolerance"
    snes = PETSc.SNES().create(petsc.comm)
    x, f = petsc.vector(at.control), petsc.vector()
    start_iterations = history.linear_iterations
    first = True

    def monitor(snes: PETSc.SNES, iteration: int, norm: float) -> None:
        nonlocal first
        history.linear_iterations = start_iterations + snes.getLinearSolveIterations()
        if not first:  # the start is in the history already
            history.add(petsc.at(snes.getSolution()))
        first = False
        relative = norm / (history.iterations[0].gradient_norm or 1.0)
        # No less accurate than quadratic convergence needs, no more than the last step needs.
        forcing = max(min(FORCING, relative), 0.3 * target / norm) if norm > target else FORCING
        snes.getKSP().setTolerances(rtol=forcing)

    try:
        snes.setOptionsPrefix(PREFIX)
        snes.setFunction(petsc.gradient, f)
        snes.setObjective(petsc.objective)
        snes.setJacobian(petsc.set_hessian, petsc.hessian, petsc.hessian)
        snes.setTolerances(rtol=0.0, atol=target, stol=0.0, max_it=max(left, 0))
        snes.setMaxFunctionEvaluations(1_000_000)
        snes.setMonitor(monitor)
        petsc.adopt(at)
        snes.setFromOptions()
        require_read()
        try:
            with original_errors():
                snes.solve(None, x)
        except SlabFailure as failure:  # in an adjoint or a Hessian product: keep what there is
            return petsc.iterate or at, str(failure)
        history.linear_iterations = start_iterations + snes.getLinearSolveIterations()
        reached = petsc.at(x)
        code = snes.getConvergedReason()
        text = REASONS.get(code)
        if reached.gradient_norm <= target:
            text = "the gradient norm {gradient_norm:.2e} is within the tolerance"
        elif code == SNES_REASON.DIVERGED_TR_DELTA and petsc.failure is not None:
            text = str(petsc.failure)
        elif text is None:
            text = f"PETSc stopped with SNES reason {code}"
        return reached, text.format(
            gradient_norm=reached.gradient_norm, iterations=len(history.iterations) - 1
        )
    finally:
        for thing in (snes, x, f):
            thing.destroy()


def _at_kink(at: Linearisation) -> bool:
    """Whether derivatives mean nothing here: the activation has a kink and every u sits on it."""
    if at.problem.network.activation.smooth:
        return False
    return not at.problem.controls.any_rank(bool(np.any(at.state.u)))


def _curvature_tolerance(problem: LearningProblem) -> float:
    """Eigenvalues above minus this count as non-negative: small against the Tikhonov weights."""
    weights = [w for w in problem.regularization.weights if w > 0]
    return 1e-3 * min(weights, default=1e-5)


def _along_negative_curvature(at: Linearisation, pair: LowestEigenpair) -> Linearisation:
    """The lowest point met along the two directions of negative curvature, by doubling steps."""
    problem = at.problem
    best = at
    sign = -1.0 if problem.controls.dot(at.gradient, pair.vector) > 0 else 1.0
    step = 1e-3 * max(1.0, problem.controls.norm(at.control))
    while True:
        trial = problem.linearise(at.control + sign * step * pair.vector)
        try:
            lower = trial.objective < best.objective
        except SlabFailure:
            return best
        if not lower:
            return best if best is not at else trial
        best, step = trial, 2 * step
