"""A step of the Lagrange-Newton method: normal and tangential, in a trust region.

At a point (z, P, c) with residuals F, H and A as in `schur`:

    normal       n = (dz, 0) with A n = -L_P: a Newton step for the state equation;
    tangential   t with A t = 0 minimises <F + H n, t> + <t, H t>/2 within the trust region, by
                 truncated conjugate gradients (Steihaug), which follow negative curvature;
    multipliers  dP from the linearised adjoint equation, once n + t is taken.

The step is judged by the augmented Lagrangian L(., P) + (rho/2)|L_P|^2 with the old multipliers P,
whose decrease its model predicts to third order, so that good steps are taken whole (Dennis,
El-Alem & Maciel, SIAM J. Optim. 7, 1997). A tangential step that does not do is shortened rather
than solved for anew (Nocedal & Yuan, 1998).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from petsc4py import PETSc

from fem_dnn.problem import Linearisation
from fem_dnn.solvers.optimality_system import OptimalityPoint, Unknowns
from fem_dnn.solvers.petsc import NOISE, original_errors
from fem_dnn.solvers.schur import SchurSystem, set_trust_radius

Array = NDArray[np.float64]

ACCEPTED, POOR, GOOD = 1e-4, 0.25, 0.75
"""Parts of the predicted decrease at which a step is taken, the region shrinks, and grows."""

DELTA_0 = 0.1
"""First trust radius, relative. Long first steps leave single nodes with large pre-activations,
which hardly count in the objective and take Newton's method many iterations to bring back."""

SHORTEST = 2.0**-8
"""Part of a tangential step below which it is given up."""

LESS = 0.9
"""Part of the residuals that a step has to leave at the most, where they judge."""

BOUNDARY = {
    PETSc.KSP.ConvergedReason.CONVERGED_STEP_LENGTH,
    PETSc.KSP.ConvergedReason.CONVERGED_NEG_CURVE,
}
"""How conjugate gradients end on the region's boundary."""


class CompositeStep:
    """Takes steps; remembers radius and penalty from one to the next.

    Args:
        system: The optimality system's matrix and preconditioner.
        ksp: The Krylov solver for both.
        start: Where the method starts, with state and adjoint solved.

    Attributes:
        radius: Trust radius for the controls, in the regulariser's norm. At first a tenth of
            (2 J)^(1/2), the size of the largest control with a lower objective.
        penalty: rho. At first |p|^2/(2 loss): for a loss w|f - g|^2/2 this is w T.
        linear_iterations: Krylov iterations so far.
    """

    def __init__(self, system: SchurSystem, ksp: PETSc.KSP, start: Linearisation) -> None:
        self.system, self.ksp = system, ksp
        self.radius = DELTA_0 * math.sqrt(2 * max(start.objective, 0.0)) or 1.0
        self._first_radius = self.radius
        P = start.adjoint.levels
        size, loss = system.space.level_dot(P, P), start.loss
        self.penalty = size / (2 * loss) if size > 0 and loss > 0 else 1.0
        self.linear_iterations = 0
        self._right, self._solution = system.vector(), system.vector()

    @property
    def exhausted(self) -> bool:
        """Whether the trust region has shrunk to nothing."""
        return self.radius < 1e-12 * self._first_radius

    def take(self, at: OptimalityPoint, accuracy: float | None) -> OptimalityPoint | None:
        """The next point; None, and a smaller radius, if no step of sensible length does.

        Collective.

        Args:
            at: The point.
            accuracy: Relative accuracy of the linear solve; None: as the Krylov solver has it.
        """
        space, system = self.system.space, self.system
        system.at = at
        F, nothing = at.residual, np.zeros_like(at.slopes)
        at.problem.work.states += 1
        slopes = at.solve_linearised_state(-F.multipliers)
        normal = Unknowns(slopes, nothing, np.zeros_like(at.control))
        of_normal = system.product(normal)
        right = Unknowns(-(F.slopes + of_normal.slopes), nothing, -(F.control + of_normal.control))
        tangential, on_boundary = self._minimise(right, accuracy)
        of_tangential = system.product(tangential)

        n, t, r, f, Hn, Ht = map(
            space.coordinates, (normal, tangential, right, F, of_normal, of_tangential)
        )
        constant = space.dot(f, n) + 0.5 * space.dot(n, Hn)
        slope, curvature = -space.dot(r, t), space.dot(t, Ht)
        infeasibility = space.level_dot(F.multipliers, F.multipliers)
        if constant > 0.25 * self.penalty * infeasibility:
            self.penalty = 4 * constant / infeasibility
        merit = self._merit(at, at.multipliers)
        length = self.radius
        if not on_boundary:
            length = min(length, system.metric.norm(tangential.control))

        part = 1.0
        while part >= SHORTEST:
            trial = OptimalityPoint(
                at.problem,
                Unknowns(
                    at.slopes + normal.slopes + part * tangential.slopes,
                    at.multipliers,
                    at.control + part * tangential.control,
                ),
            )
            adjoint_change = F.slopes + of_normal.slopes + part * of_tangential.slopes
            model = constant + part * slope + 0.5 * part**2 * curvature
            predicted = 0.5 * self.penalty * infeasibility - model
            if predicted <= NOISE * (abs(merit) + abs(at.objective)):
                # The merit's values are no evidence here, the residuals are.
                moved = self._with_new_multipliers(at, trial, adjoint_change)
                if moved.gradient_norm < LESS * at.gradient_norm:
                    return moved
                break
            decrease = merit - self._merit(trial, at.multipliers)
            if decrease >= ACCEPTED * predicted:
                self._adjust(decrease / predicted, part, length, on_boundary)
                return self._with_new_multipliers(at, trial, adjoint_change)
            part /= 2
        self.radius = SHORTEST * length
        return None

    def _minimise(self, right: Unknowns, accuracy: float | None) -> tuple[Unknowns, bool]:
        """The tangential step, its multipliers left out, and whether it ends on the boundary."""
        space, ksp = self.system.space, self.ksp
        self._right.array_w[:] = space.coordinates(right)
        set_trust_radius(ksp, self.radius)
        if accuracy is not None:
            ksp.setTolerances(rtol=accuracy)
        with original_errors():
            ksp.solve(self._right, self._solution)
        self.linear_iterations += ksp.getIterationNumber()
        t = space.values(np.array(self._solution.array_r))
        tangential = Unknowns(t.slopes, np.zeros_like(t.slopes), t.control)
        return tangential, ksp.getConvergedReason() in BOUNDARY

    def _merit(self, at: OptimalityPoint, multipliers: Array) -> float:
        """The augmented Lagrangian; infinite where the state overflows."""
        with np.errstate(over="ignore", invalid="ignore"):
            E, dot = at.state_residual, self.system.space.level_dot
            value = at.objective + dot(multipliers, E) + 0.5 * self.penalty * dot(E, E)
        return value if math.isfinite(value) else math.inf

    def _with_new_multipliers(
        self, at: OptimalityPoint, trial: OptimalityPoint, right: Array
    ) -> OptimalityPoint:
        at.problem.work.adjoints += 1
        change = at.solve_linearised_adjoint(-right).levels
        return trial.with_multipliers(at.multipliers + change)

    def _adjust(self, ratio: float, part: float, length: float, on_boundary: bool) -> None:
        if ratio < POOR:
            self.radius = 0.5 * part * length
        elif part < 1:
            self.radius = part * length
        elif ratio > GOOD and on_boundary:
            self.radius *= 2

    def destroy(self) -> None:
        """Free the PETSc objects, at the same moment on all ranks."""
        self._right.destroy()
        self._solution.destroy()
