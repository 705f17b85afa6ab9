"""Newton's method on the Euler-Lagrange system with state and adjoint eliminated (PETSc SNES).

The reduced gradient is the SNES function, the objective its merit function. Steps come from a
trust region (`newtontr`) whose model is minimised by conjugate gradients truncated at the region's
boundary and at negative curvature (`stcg`; Steihaug, SIAM J. Numer. Anal. 20, 1983), both in
coordinates in which the Hessian is nearly a multiple of the identity (`curvature_metric`; where
derivatives of the controls in width are penalised, in those of `riesz`). The relative accuracy of
the linear solves falls with the gradient, so that the last steps converge quadratically (Dembo,
Eisenstat & Steihaug, SIAM J. Numer. Anal. 19, 1982). A minimiser is approached by quasi-Newton
steps in the same coordinates (`approach`) as long as these do well.

Where the controls have bounds, PETSc TAO's `tron` does the same on faces of the box: a Cauchy point
along the projected gradient, then truncated Newton steps on the controls that are free there, with
projected searches, until no further bound is met (Lin & More, SIAM J. Optim. 9, 1999). Once the
active set is the solution's this is Newton's method on the free controls. TAO's `bntr` projects a
single step and may cycle between two active sets; SNES's `vinewtonrsls` finds critical points of
any kind, because it looks at the residual and not at the objective.
"""

from __future__ import annotations

import math
from dataclasses import replace

from petsc4py import PETSc

from fem_dnn.coordinates import CurvatureCoordinates
from fem_dnn.curvature_metric import curvature_metric, why_not
from fem_dnn.problem import Linearisation
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers import tao
from fem_dnn.solvers.approach import approach
from fem_dnn.solvers.descent import NOT_FINITE, Descent
from fem_dnn.solvers.frugal_newton import DELTA_0, descend_frugally
from fem_dnn.solvers.method import Method, Way
from fem_dnn.solvers.petsc import PREFIX, original_errors, read_options

DEFAULTS: dict[str, object] = {
    "snes_type": "newtontr",
    "ksp_type": "stcg",
    "ksp_max_it": 1000,
    "pc_type": "none",
    # A linear solve cut short is still a descent step: let the trust region judge it.
    "snes_max_linear_solve_fail": 1_000_000,
}

WITHIN_BOUNDS: dict[str, object] = {"tao_type": "tron", "ksp_max_it": 1000, **tao.DEFAULTS}

NEWTON_STEPS, LAST_STEPS = 2.0, 200.0
"""The trust region's first radius where the Hessian is known approximately: in Newton steps for
that; and where the step is meant to be the last, which it is only if it is not cut short."""

SNES_REASON = PETSc.SNES.ConvergedReason

REASONS = {
    SNES_REASON.DIVERGED_MAX_IT: (
        "the limit of {iterations} iterations was reached; raise solver.max_iterations "
        "or use a stronger regularization"
    ),
    SNES_REASON.DIVERGED_TR_DELTA: (
        "the trust region shrank to nothing at a gradient norm of {gradient_norm:.2e}: the "
        "objective no longer decreases beyond round-off; raise solver.rtol, or smooth the "
        "activation (softplus for relu)"
    ),
    SNES_REASON.DIVERGED_FUNCTION_COUNT: (
        "PETSc's limit of function evaluations was reached; raise -snes_max_funcs"
    ),
    SNES_REASON.DIVERGED_FNORM_NAN: NOT_FINITE,
    SNES_REASON.CONVERGED_FNORM_RELATIVE: (
        "-snes_rtol stopped it at a gradient norm of {gradient_norm:.2e}, before solver.rtol did"
    ),
    SNES_REASON.CONVERGED_FNORM_ABS: (
        "-snes_atol stopped it at a gradient norm of {gradient_norm:.2e}, before solver.rtol did"
    ),
    SNES_REASON.CONVERGED_SNORM_RELATIVE: (
        "the steps became smaller than -snes_stol before the gradient met solver.rtol"
    ),
}
"""What PETSc's reasons mean here, with advice."""


def _descend_within_bounds(descent: Descent) -> tuple[Linearisation, str]:
    """Run TAO."""
    return tao.descend_by_tao(
        descent, hessian=True, otherwise="use a stronger regularization or wider bounds"
    )


def _descend(descent: Descent) -> tuple[Linearisation, str]:
    """Approach a minimiser, then go on with Newton's steps."""
    try:
        if _to_be_approached(descent):
            descent = replace(descent, start=approach(descent), radius=None)
        if descent.petsc.problem.frugal and descent.options.only_watch:
            return _by_fewer_vectors(descent)
        return _by_snes(descent)
    except SlabFailure as failure:
        # In an adjoint or a Hessian product: keep what has been reached.
        return descent.outcome(descent.history.at or descent.start, str(failure))


def _to_be_approached(descent: Descent) -> bool:
    """Whether quasi-Newton steps come first: PETSc's options for the way speak of Newton's."""
    problem = descent.petsc.problem
    if problem.frugal or why_not(problem) is not None:
        return False
    return descent.minimise and descent.options.only_watch and not descent.newton_has_begun


def _by_snes(descent: Descent) -> tuple[Linearisation, str]:
    """Run SNES."""
    petsc, history, target = descent.petsc, descent.history, descent.target
    x, f = petsc.start(descent.start), petsc.vector()
    snes = PETSc.SNES().create(petsc.comm)
    linear_iterations = history.linear_iterations

    def monitor(snes: PETSc.SNES, iteration: int, _norm: float) -> None:
        history.linear_iterations = linear_iterations + snes.getLinearSolveIterations()
        if iteration > 0:  # the start is in the history already
            history.add(petsc.at(snes.getSolution()), snes.getSolutionUpdate().norm())
        if not descent.options.given("ksp_rtol"):
            norm = petsc.at(snes.getSolution()).gradient_norm
            snes.getKSP().setTolerances(rtol=descent.forcing(norm))

    def l2_convergence(snes: PETSc.SNES, iteration: int, _norms: object) -> int:
        """As PETSc's own test, with the L2 norm of the gradient in place of |T' gradient|."""
        at = petsc.at(snes.getSolution())
        norm = at.gradient_norm
        rtol, atol, _, _ = snes.getTolerances()
        if not math.isfinite(norm):
            return SNES_REASON.DIVERGED_FNORM_NAN
        if norm <= atol:
            return SNES_REASON.CONVERGED_FNORM_ABS
        if iteration > 0 and norm <= rtol * descent.start.gradient_norm:
            return SNES_REASON.CONVERGED_FNORM_RELATIVE
        return SNES_REASON.CONVERGED_ITERATING

    try:
        snes.setOptionsPrefix(PREFIX)
        snes.setFunction(petsc.gradient, f)
        snes.setObjective(petsc.objective)
        snes.setJacobian(petsc.set_hessian, petsc.hessian, petsc.hessian)
        snes.setTolerances(rtol=0.0, atol=target, stol=0.0, max_it=descent.iterations_left)
        snes.setMaxFunctionEvaluations(1_000_000)
        if petsc.riesz is not None:
            snes.setConvergenceTest(l2_convergence)
        descent.options.suggest("snes_tr_delta0", descent.radius or _first_radius(descent))
        read_options(snes)
        snes.setMonitor(monitor)  # now: -snes_monitor_cancel takes away those that are there
        descent.options.require_read()
        if descent.start.gradient_norm <= target:
            return descent.outcome(descent.start, "")
        with original_errors():
            snes.solve(None, x)
        history.linear_iterations = linear_iterations + snes.getLinearSolveIterations()
        code = snes.getConvergedReason()
        text = REASONS.get(code, f"PETSc stopped with SNES reason {code}")
        if code == SNES_REASON.DIVERGED_TR_DELTA and petsc.failure is not None:
            text = str(petsc.failure)
        return descent.outcome(petsc.at(x), text)
    finally:
        for thing in (snes, x, f):
            thing.destroy()


def _first_radius(descent: Descent) -> float:
    """Of the trust region, in PETSc's terms: its vectors' length where they are the controls."""
    riesz = descent.petsc.riesz
    if riesz is None:
        return DELTA_0
    if isinstance(riesz, CurvatureCoordinates):
        near = descent.is_near(descent.start.gradient_norm)
        steps = LAST_STEPS if near else NEWTON_STEPS
        return steps * riesz.newton_length(descent.start.gradient) or 1.0
    # In z every descent starts at 0: there the control's own length tells how far to go.
    return DELTA_0 * (descent.start.length or 1.0)


def _by_fewer_vectors(descent: Descent) -> tuple[Linearisation, str]:
    """Run the same method where vectors of controls are what memory goes for."""
    descent.options.require_read()
    at, code = descend_frugally(descent)
    text = REASONS.get(code, "")
    if code == SNES_REASON.DIVERGED_TR_DELTA and descent.petsc.failure is not None:
        text = str(descent.petsc.failure)
    return descent.outcome(at, text)


solve_newton = Method(
    "newton",
    Way(_descend, DEFAULTS, curvature_metric),
    within_bounds=Way(_descend_within_bounds, WITHIN_BOUNDS),
)
"""Quasi-Newton steps, then trust-region Newton-CG. Its options are those of a SNES: where any is
given that does more than watch, Newton-CG alone. Within bounds they are those of a TAO."""
