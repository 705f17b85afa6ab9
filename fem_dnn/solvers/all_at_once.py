"""Newton's method on the optimality system with state, adjoint and controls together (PETSc SNES).

The Lagrange-Newton-Krylov-Schur method (Biros & Ghattas, SIAM J. Sci. Comput. 27, 2005): the system
is that of `optimality_system`, its linear solves are those of `schur`, its globalisation is that of
`composite_step`. State and adjoint are solved at the start; on the way they satisfy their equations
only as far as Newton's method has brought them. In the history the objective of such an iterate is
J at its own state, its gradient norm that of the Lagrangian, residuals of state and adjoint
included. Where that meets the tolerance, state and adjoint are solved for the controls reached,
and the reduced gradient decides; if it does not meet the tolerance, the method goes on from there.
The same is done where no step is found. The last line of the history is always such a point.
"""

from __future__ import annotations

import math

from petsc4py import PETSc

from fem_dnn.errors import BadInput
from fem_dnn.problem import Linearisation
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers.composite_step import CompositeStep
from fem_dnn.solvers.descent import Descent
from fem_dnn.solvers.method import Method, Way
from fem_dnn.solvers.newton import REASONS
from fem_dnn.solvers.petsc import PREFIX, original_errors, read_options
from fem_dnn.solvers.schur import SchurSystem

DEFAULTS: dict[str, object] = {
    "snes_type": "python",
    "ksp_type": "stcg",
    "ksp_norm_type": "natural",
    "ksp_cg_dtype": "preconditioned",  # the trust region's norm: the preconditioner's
    "ksp_max_it": 1000,
    "pc_type": "python",
}

SHRINKAGE = 0.25
"""Factor on the trust radius where a step has led to controls without a state."""

_SNES = PETSc.SNES.ConvergedReason


def _descend(descent: Descent) -> tuple[Linearisation, str]:
    """Run SNES."""
    system = SchurSystem(descent.start.problem)
    snes = PETSc.SNES().create(system.comm)
    x, f = system.vector(), system.vector()
    method: LagrangeNewton | None = None
    try:
        snes.setOptionsPrefix(PREFIX)
        snes.setTolerances(rtol=0.0, atol=descent.target, stol=0.0, max_it=descent.iterations_left)
        snes.setMaxFunctionEvaluations(1_000_000)
        snes.setDivergenceTolerance(1e100)  # the merit function judges, not the residual's norm
        method = LagrangeNewton(descent, system, snes)
        snes.setType(PETSc.SNES.Type.PYTHON)
        snes.setPythonContext(method)
        snes.setFunction(method.function, f)
        snes.setJacobian(method.jacobian, system.matrix, system.matrix)
        read_options(snes)
        if snes.getType() != PETSc.SNES.Type.PYTHON:
            raise BadInput(None, "PETSc option -snes_type", "all-at-once brings its own type")
        descent.options.require_read()
        if descent.start.gradient_norm <= descent.target:
            return descent.outcome(descent.start, "")
        with original_errors():
            snes.solve(None, x)
        code = snes.getConvergedReason()
        text = REASONS.get(code, f"PETSc stopped with SNES reason {code}")
        if code == _SNES.DIVERGED_TR_DELTA and method.failure is not None:
            text = str(method.failure)
        return descent.outcome(method.last_solved, text)
    except SlabFailure as failure:
        # In a linear solve, or for the state at the controls reached.
        solved = descent.start if method is None else method.last_solved
        if descent.history.at is not solved:
            descent.history.add(solved)
        return descent.outcome(solved, str(failure))
    finally:
        if method is not None:
            method.steps.destroy()
        system.destroy()
        for thing in (snes, x, f):
            thing.destroy()


solve_all_at_once = Method("all-at-once", Way(_descend, DEFAULTS), within_bounds=None)
"""State, adjoint and controls as unknowns of one system.

`hessian_solves` counts products with the system's matrix and applications of its preconditioner:
either has the matrix products of a Hessian-vector product, the first without iterating on implicit
slabs. Evaluations of the state's and the adjoint's equations count as solves, though these do not
iterate either.
"""


class LagrangeNewton:
    """Context of the SNES: the iteration.

    Args:
        descent: What is to be solved.
        system: The optimality system's matrix and preconditioner.
        snes: The SNES.

    Attributes:
        at: The iterate.
        solved: The learning problem at the iterate's controls, where state and adjoint are solved.
        last_solved: The last of these.
        failure: Why the method went back to it, if it did: there was no state.
        steps: Takes steps.
    """

    def __init__(self, descent: Descent, system: SchurSystem, snes: PETSc.SNES) -> None:
        self.descent, self.system = descent, system
        ksp = snes.getKSP()
        system.use(ksp)
        self.steps = CompositeStep(system, ksp, descent.start)
        self.solved: Linearisation | None = descent.start
        self.last_solved = descent.start
        self.failure: SlabFailure | None = None
        self.at = system.space.solved(descent.start)

    def function(self, _snes: PETSc.SNES, x: PETSc.Vec, f: PETSc.Vec) -> None:
        """f = the gradient of the Lagrangian at x."""
        space = self.system.space
        f.array_w[:] = space.coordinates(space.point(x.array_r).residual)

    def jacobian(
        self, _snes: PETSc.SNES, x: PETSc.Vec, _matrix: PETSc.Mat, _preconditioner: PETSc.Mat
    ) -> None:
        """Move the system's matrix to x."""
        self.system.at = self.system.space.point(x.array_r)

    def solve(self, snes: PETSc.SNES, _right: PETSc.Vec | None, x: PETSc.Vec) -> None:
        """Iterate, as PETSc calls it."""
        f, _ = snes.getFunction()
        descent, iteration = self.descent, 0
        while True:
            norm = self._show(snes, iteration, x, f)
            reason = _SNES.DIVERGED_FNORM_NAN
            if math.isfinite(norm):
                reason = snes.callConvergenceTest(iteration, x.norm(), 0.0, norm)
            last = iteration >= snes.max_it
            if reason or last:
                self._solve_equations()
            if iteration > 0:
                descent.history.add(self.solved or self.at)
            if self.last_solved.gradient_norm <= descent.target:
                reason = _SNES.CONVERGED_FNORM_ABS
                break
            if reason == _SNES.CONVERGED_FNORM_ABS and not descent.options.given("snes_atol"):
                reason = _SNES.CONVERGED_ITERATING  # the reduced gradient says otherwise
            if last:
                reason = _SNES.DIVERGED_MAX_IT
            if reason:
                break
            if not self._move(norm):
                reason = _SNES.DIVERGED_TR_DELTA
                break
            iteration += 1
        snes.setConvergedReason(reason)

    def _show(self, snes: PETSc.SNES, iteration: int, x: PETSc.Vec, f: PETSc.Vec) -> float:
        """Tell PETSc of the iterate."""
        space, at = self.system.space, self.at
        x.array_w[:] = space.coordinates(at.unknowns)
        f.array_w[:] = space.coordinates(at.residual)
        norm = float(f.norm())
        snes.setIterationNumber(iteration)
        snes.setFunctionNorm(norm)
        snes.monitor(iteration, norm)
        return norm

    def _move(self, norm: float) -> bool:
        """To the next iterate; False if there is none."""
        descent, steps = self.descent, self.steps
        accuracy: float | None = None
        if not descent.options.given("ksp_rtol"):
            accuracy = descent.forcing(norm)
        before = steps.linear_iterations
        while not steps.exhausted:
            try:
                following = steps.take(self.at, accuracy)
            except SlabFailure as failure:
                if self.solved is not None:
                    raise
                self._go_back(failure)
                return True
            finally:
                descent.history.linear_iterations += steps.linear_iterations - before
                before = steps.linear_iterations
            if following is not None:
                self.at, self.solved = following, None
                return True
            if self.solved is None:
                break
        moved = self.solved is None
        self._solve_equations()
        return moved

    def _solve_equations(self) -> None:
        """Solve state and adjoint for the iterate's controls, where that is not done yet."""
        if self.solved is not None:
            return
        solved = self.descent.start.problem.linearise(self.at.control)
        try:
            self.at = self.system.space.solved(solved)
        except SlabFailure as failure:
            self._go_back(failure)
        else:
            self.solved = self.last_solved = solved

    def _go_back(self, failure: SlabFailure) -> None:
        """To the last point with a state: the merit function does not see that slabs fail."""
        self.failure = failure
        self.solved = self.last_solved
        self.at = self.system.space.solved(self.last_solved)
        self.steps.radius *= SHRINKAGE
