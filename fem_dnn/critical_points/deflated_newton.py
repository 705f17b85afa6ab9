"""Newton's method on the deflated gradient (PETSc SNES), and plain Newton to polish its result.

Nothing here descends: the line search looks at the norm of the deflated gradient, and linear
systems with indefinite Hessians are solved by MINRES, so saddles are found as well as minimisers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from petsc4py import PETSc

from fem_dnn.critical_points.deflation import Deflation
from fem_dnn.problem import Linearisation
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers.petsc import (
    PREFIX,
    OptionsInUse,
    PetscProblem,
    original_errors,
    read_options,
)

Array = NDArray[np.float64]

DEFAULTS: dict[str, object] = {
    "snes_type": "newtonls",
    "snes_linesearch_type": "bt",
    "ksp_type": "minres",
    "ksp_max_it": 1000,
    "pc_type": "none",
    "snes_max_linear_solve_fail": 1_000_000,
}

FORCING = 1e-2
"""Relative accuracy of linear solves: the deflated step magnifies their error by its stretch."""

LOOSE = 1e-6
"""Deflated gradients below this part of the reference are left to the polishing."""

STALLED = (8, 0.5)
"""A solve has failed if so many steps do not reduce the deflated gradient to this part."""

EPSILON = float(np.finfo(float).eps)

STEPS = 30
"""Limit on polishing steps: at a fold they gain a factor of four each."""

SNES_REASON = PETSc.SNES.ConvergedReason

REASONS = {
    SNES_REASON.DIVERGED_MAX_IT: "the limit of iterations was reached",
    SNES_REASON.DIVERGED_LINE_SEARCH: "the deflated gradient falls no more",
    SNES_REASON.DIVERGED_FNORM_NAN: "the gradient is not finite",
    SNES_REASON.DIVERGED_FUNCTION_DOMAIN: "the gradient is not finite",
}


@dataclass(frozen=True, eq=False)
class Attempt:
    """How a Newton solve ended.

    Attributes:
        at: Where.
        converged: Whether its tolerance was met there.
        reason: Why it ended, where that is no success.
        iterations: Newton steps taken.
    """

    at: Linearisation
    converged: bool
    reason: str
    iterations: int


class HessianSolve:
    """H y = r at the iterate by MINRES, an own KSP that reads the user's -ksp_ options."""

    def __init__(self, petsc: PetscProblem) -> None:
        self.petsc = petsc
        self.ksp = PETSc.KSP().create(petsc.comm)
        self.ksp.setOptionsPrefix(PREFIX)
        self.ksp.setOperators(petsc.hessian)
        read_options(self.ksp)

    def control_step(self, y: PETSc.Vec) -> Array:
        """The change of the control that a vector stands for."""
        riesz = self.petsc.riesz
        return y.array_r.copy() if riesz is None else riesz.apply(y.array_r)

    def destroy(self) -> None:
        """Free the PETSc object."""
        self.ksp.destroy()


class DeflatedSolve:
    """Context of SNES's own KSP: G' y = r by Hessian solves and the Sherman-Morrison formula.

        y = z - <grad log M, z> / (1 + <grad log M, h>) h,    H z = r / M,    H h = F

    For the Newton step r = G, z = h, and this is a multiple of h.
    """

    def __init__(self, inner: HessianSolve, deflated: DeflatedGradient) -> None:
        self.inner, self.deflated = inner, deflated
        self.step: PETSc.Vec | None = None

    def solve(self, ksp: PETSc.KSP, right: PETSc.Vec, y: PETSc.Vec) -> None:
        """G' y = right."""
        deflated, roots = self.deflated, self.deflated.deflation.roots
        scaled = right.duplicate()
        right.copy(scaled)
        scaled.scale(1.0 / deflated.factor)
        self.inner.ksp.solve(scaled, y)
        scaled.destroy()
        ksp.setConvergedReason(PETSc.KSP.ConvergedReason.CONVERGED_ITS)
        if not roots:
            return
        if self.step is None or deflated.moved:
            # SNES asks for the Newton step first: right = G.
            self.step = self.step or y.duplicate()
            y.copy(self.step)
            deflated.moved = False
        # Where G' is singular although H is not, the step is far too long, and the search shortens.
        pivot = 1.0 + self.slope(self.step) or EPSILON
        y.axpy(-self.slope(y) / pivot, self.step)

    def destroy(self, _ksp: PETSc.KSP) -> None:
        """Free the vector that is kept; PETSc calls this with the KSP's end."""
        if self.step is not None:
            self.step.destroy()

    def slope(self, vector: PETSc.Vec) -> float:
        """<grad log M, vector> at the iterate."""
        deflated = self.deflated
        return deflated.deflation.slope(deflated.at.control, self.inner.control_step(vector))


class DeflatedGradient:
    """SNES callbacks: G = M F and the product with G' = M (H + F <grad log M, .>)."""

    def __init__(self, petsc: PetscProblem, deflation: Deflation, solve: HessianSolve) -> None:
        self.petsc, self.deflation, self.inner = petsc, deflation, solve
        self.at: Linearisation
        self.factor, self.moved = 1.0, True

    def evaluate(self, snes: PETSc.SNES, x: PETSc.Vec, g: PETSc.Vec) -> None:
        """g = M F at x."""
        self.petsc.gradient(snes, x, g)
        g.scale(self.deflation.factor(self.petsc.at(x).control))

    def move(self, snes: PETSc.SNES, x: PETSc.Vec, J: PETSc.Mat, P: PETSc.Mat) -> None:
        """Linearise at the iterate."""
        self.petsc.set_hessian(snes, x, J, P)
        self.at = self.petsc.at(x)
        self.factor = self.deflation.factor(self.at.control)
        self.moved = True

    def mult(self, _mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """y = G' x."""
        self.petsc.hessian.mult(x, y)
        slope = self.deflation.slope(self.at.control, self.inner.control_step(x))
        riesz, gradient = self.petsc.riesz, self.at.gradient
        y.array_w[:] += slope * (gradient if riesz is None else riesz.apply_transpose(gradient))
        y.scale(self.factor)


def deflated_newton(
    petsc: PetscProblem,
    start: Linearisation,
    deflation: Deflation,
    target: float,
    max_iterations: int,
    options: OptionsInUse,
) -> Attempt:
    """Look for a zero of the deflated gradient (collective).

    Args:
        petsc: The learning problem for PETSc.
        start: Where to start, at no root.
        deflation: The deflation operator.
        target: L2 norm of the deflated gradient at which to end.
        max_iterations: Limit on Newton steps.
        options: The PETSc options in use.

    Raises:
        BadInput: A PETSc option that nothing reads.
    """
    snes = PETSc.SNES().create(petsc.comm)
    x, g = petsc.start(start), petsc.vector()
    inner = HessianSolve(petsc)
    gradient = DeflatedGradient(petsc, deflation, inner)
    jacobian = PETSc.Mat().createPython((petsc.sizes, petsc.sizes), gradient, comm=petsc.comm)
    jacobian.setUp()

    norms: list[float] = []

    def convergence(snes: PETSc.SNES, iteration: int, _norms: object) -> int:
        at = petsc.at(snes.getSolution())
        norm = at.gradient_norm * deflation.factor(at.control)
        if not math.isfinite(norm):
            return SNES_REASON.DIVERGED_FNORM_NAN
        if norm <= target:
            return SNES_REASON.CONVERGED_FNORM_ABS
        norms.append(norm)
        steps, part = STALLED
        if len(norms) > steps and norm > part * norms[-1 - steps]:
            return SNES_REASON.DIVERGED_LINE_SEARCH
        if iteration >= max_iterations:
            return SNES_REASON.DIVERGED_MAX_IT
        return SNES_REASON.CONVERGED_ITERATING

    last = start
    try:
        snes.setOptionsPrefix(PREFIX)
        snes.setFunction(gradient.evaluate, g)
        snes.setJacobian(gradient.move, jacobian, jacobian)
        snes.setTolerances(max_it=max_iterations)
        snes.setMaxFunctionEvaluations(1_000_000)
        snes.setConvergenceTest(convergence)
        read_options(snes)
        options.require_read()
        if not options.given("ksp_rtol"):
            inner.ksp.setTolerances(rtol=FORCING)
        snes.getKSP().setType(PETSc.KSP.Type.PYTHON)
        snes.getKSP().setPythonContext(DeflatedSolve(inner, gradient))
        with original_errors():
            snes.solve(None, x)
        last = petsc.at(x)
        code = snes.getConvergedReason()
        reason = "" if code > 0 else REASONS.get(code, f"PETSc stopped with SNES reason {code}")
        if code < 0 and petsc.failure is not None:
            reason = str(petsc.failure)
        return Attempt(last, code > 0, reason, snes.getIterationNumber())
    except SlabFailure as failure:
        return Attempt(last, False, str(failure), 0)
    finally:
        for thing in (snes, x, g, jacobian, inner):
            thing.destroy()


def polish(petsc: PetscProblem, at: Linearisation, target: float) -> Attempt:
    """Plain Newton steps, without deflation, as long as they halve the gradient (collective).

    So the point is as good as round-off allows, and what counts as a zero eigenvalue or as the
    same point can be told from it.

    Args:
        petsc: The learning problem for PETSc.
        at: Near a critical point.
        target: L2 norm of the gradient at which a point is critical.
    """
    inner = HessianSolve(petsc)
    inner.ksp.setTolerances(rtol=1e-8)
    steps = 0
    try:
        while steps < STEPS and at.gradient_norm > 0:
            x, g = petsc.start(at), petsc.vector()
            petsc.set_hessian(inner.ksp, x, petsc.hessian, petsc.hessian)
            petsc.gradient(inner.ksp, x, g)
            inner.ksp.solve(g, x)
            trial = at.problem.linearise(at.control - inner.control_step(x))
            x.destroy()
            g.destroy()
            try:
                better = trial.gradient_norm <= 0.5 * at.gradient_norm
            except SlabFailure:
                better = False
            if not better:
                break
            at, steps = trial, steps + 1
    except SlabFailure as failure:
        return Attempt(at, False, str(failure), steps)
    finally:
        inner.destroy()
    converged = at.gradient_norm <= target
    reason = "" if converged else "plain Newton steps do not reach the tolerance"
    return Attempt(at, converged, reason, steps)
