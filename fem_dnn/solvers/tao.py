"""One run of PETSc's TAO on the reduced problem, within bounds where the controls have them.

What L-BFGS, TAO's Newton types and Newton's method within bounds share.
"""

from __future__ import annotations

import math

from petsc4py import PETSc

from fem_dnn.problem import Linearisation
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers.descent import Descent
from fem_dnn.solvers.petsc import PREFIX, PetscProblem, original_errors, read_options

DEFAULTS: dict[str, object] = {
    "tao_grtol": 0.0,  # a type brings its own tolerance on |g|/|J|, whatever was set before
    "tao_max_funcs": 1_000_000,
}

_TAO = PETSc.TAO.ConvergedReason

_SMALL_ENOUGH = "at a gradient norm of {gradient_norm:.2e}; if that is small enough raise "

REASONS = {
    _TAO.DIVERGED_MAXITS: (
        "the limit of {iterations} iterations was reached; raise solver.max_iterations, or "
        "{otherwise}"
    ),
    _TAO.DIVERGED_MAXFCN: (
        "PETSc's limit of function evaluations was reached; raise -tao_max_funcs"
    ),
    _TAO.DIVERGED_LS_FAILURE: (
        f"the line search found no decrease {_SMALL_ENOUGH}solver.rtol, else {{otherwise}}"
    ),
    _TAO.DIVERGED_TR_REDUCTION: (
        f"the trust region shrank to nothing {_SMALL_ENOUGH}solver.rtol, else {{otherwise}}"
    ),
    _TAO.DIVERGED_NAN: (
        "the objective is not finite; use more layers (mesh.depth.cells) or a smaller initial guess"
    ),
    _TAO.DIVERGED_USER: "PETSc was told to stop at a gradient norm of {gradient_norm:.2e}",
    _TAO.CONVERGED_STEPTOL: (
        "the steps became too small at a gradient norm of {gradient_norm:.2e}; raise solver.rtol, "
        "or {otherwise}"
    ),
    _TAO.CONVERGED_MINF: (
        "-tao_fmin stopped it at a gradient norm of {gradient_norm:.2e}, before solver.rtol did"
    ),
    _TAO.CONVERGED_GATOL: (
        "-tao_gatol stopped it at a gradient norm of {gradient_norm:.2e}, before solver.rtol did"
    ),
    _TAO.CONVERGED_GRTOL: (
        "-tao_grtol stopped it at a gradient norm of {gradient_norm:.2e}, before solver.rtol did"
    ),
    _TAO.CONVERGED_GTTOL: (
        "-tao_gttol stopped it at a gradient norm of {gradient_norm:.2e}, before solver.rtol did"
    ),
    _TAO.CONVERGED_USER: "PETSc was told to stop at a gradient norm of {gradient_norm:.2e}",
}
"""What PETSc's reasons mean here, with advice; `otherwise` is the method's own."""


class _ShiftedHessian:
    """Context of a shell matrix: the Hessian plus what TAO adds where it is indefinite."""

    def __init__(self, petsc: PetscProblem) -> None:
        self.petsc = petsc
        self.by = 0.0

    def move(self, tao: PETSc.TAO, x: PETSc.Vec, H: PETSc.Mat, P: PETSc.Mat) -> None:
        """Move the Hessian to the iterate."""
        self.petsc.set_hessian(tao, x, H, P)
        self.by = 0.0

    def shift(self, _mat: PETSc.Mat, by: float) -> None:
        """Add a multiple of the identity."""
        self.by += by

    def mult(self, _mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """y = (H + shift) x."""
        self.petsc.hessian.mult(x, y)
        y.axpy(self.by, x)

    multTranspose = mult  # noqa: N815 (the name PETSc calls)


def descend_by_tao(
    descent: Descent, *, hessian: bool, otherwise: str = 'use solver.method = "newton"'
) -> tuple[Linearisation, str]:
    """Run TAO with the type that the options name.

    Args:
        descent: The run.
        hessian: Whether the type wants Hessian-vector products.
        otherwise: What to advise where it fails.
    """
    petsc, history, target = descent.petsc, descent.history, descent.target
    limit = descent.iterations_left
    tao = PETSc.TAO().create(petsc.comm)
    x, g = petsc.start(descent.start), petsc.vector()
    shifted = _ShiftedHessian(petsc)
    matrix = PETSc.Mat().createPython((petsc.sizes, petsc.sizes), shifted, comm=petsc.comm)
    matrix.setOption(PETSc.Mat.Option.SYMMETRIC, True)
    matrix.setUp()
    box = petsc.problem.controls.box
    bounds = [] if box is None else [petsc.vector(box.lower), petsc.vector(box.upper)]
    linear_iterations = history.linear_iterations - history.hessian_solves

    def monitor(tao: PETSc.TAO) -> None:
        if hessian:
            # petsc4py does not tell them; every one takes one product.
            history.linear_iterations = linear_iterations + history.hessian_solves
        if tao.getIterationNumber() > 0:  # the start is in the history already
            history.add(petsc.at(tao.getSolution()))
        if hessian and not any(map(descent.options.given, ("ksp_rtol", "tao_bnk_ksp_rtol"))):
            forcing = descent.forcing(petsc.at(tao.getSolution()).gradient_norm)
            tao.getKSP().setTolerances(rtol=forcing)

    def l2_convergence(tao: PETSc.TAO) -> int:
        """The L2 norm of the projected gradient, in place of |T' gradient| or TAO's own."""
        norm = petsc.at(tao.getSolution()).gradient_norm
        if not math.isfinite(norm):
            return _TAO.DIVERGED_NAN
        if norm <= target:
            return _TAO.CONVERGED_GATOL
        if tao.getIterationNumber() >= limit:
            return _TAO.DIVERGED_MAXITS
        return _TAO.CONTINUE_ITERATING

    try:
        tao.setOptionsPrefix(PREFIX)
        tao.setObjectiveGradient(petsc.objective_gradient, g)
        if hessian:
            tao.setObjective(petsc.objective)
            tao.setGradient(petsc.gradient, g)
            tao.setHessian(shifted.move, matrix, matrix)
        tao.setTolerances(gatol=target, grtol=0.0, gttol=0.0)
        tao.setMaximumIterations(limit)
        if hessian and descent.radius is not None:
            tao.setInitialTrustRegionRadius(descent.radius)
        tao.setSolution(x)
        read_options(tao)
        tao.setMonitor(monitor)  # now: -tao_monitor_cancel takes away those that are there
        if bounds:
            tao.setVariableBounds(bounds)
        if petsc.riesz is not None or bounds:
            tao.setConvergenceTest(l2_convergence)  # now: choosing the type resets the test
        descent.options.require_read()
        if descent.start.gradient_norm <= target:
            return descent.outcome(descent.start, "")
        with original_errors():
            tao.solve()
        code = tao.getConvergedReason()
        text = REASONS.get(code, f"PETSc stopped with TAO reason {code}")
        text = text.replace("{otherwise}", otherwise)
        return descent.outcome(petsc.at(x), text if petsc.failure is None else str(petsc.failure))
    except (SlabFailure, PETSc.Error) as failure:
        # PETSc's line search gives up on values that are not finite: say what made them so.
        if petsc.failure is None and isinstance(failure, PETSc.Error):
            raise
        return descent.outcome(history.at or descent.start, str(petsc.failure or failure))
    finally:
        for thing in (tao, x, g, matrix, *bounds):
            thing.destroy()
