"""The optimality system with state, adjoint and controls as unknowns (theory.md section 3).

The state is known by its slopes z = d_t f at the control levels, f = f_I + int_0^t z. With a
multiplier P for its equation, in the inner product sum_s w_s sum_k omega_k int_Y . . dx, the
Lagrangian is

    L(z, P, c) = J(f(z), c) + <P, sigma(K f(z) + b) - z>,        c = (a, b) and learned outputs,

and the optimality system is its gradient:

    L_z   Q*(grad ell, mu (f - g), K' q) - P = 0,   q = sigma'(u) P      (adjoint equation)
    L_P   sigma(K f + b) - z = 0                                         (state equation)
    L_c   R'(c) + (sum_s w_s q_s f_s, sum_s w_s q_s) = 0                 (stationarity)

with Q* the adjoint of the integration (`integration.integrate_back`). So P is the adjoint state of
`adjoint` at the control levels. Evaluating the gradient or its derivative solves nothing, not even
a slab: one application of the nonlocal operator per level and equation. Both equations are of the
second kind (the identity plus an integral operator), so with all unknowns and equations in
L2-orthonormal coordinates, sqrt(w_s omega_k h_x) z, the system is well conditioned on any mesh; and
its matrix is symmetric, the Hessian of L.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fem_dnn.adjoint import AdjointTrajectory, solve_adjoint, transpose
from fem_dnn.integration import integrate, integrate_back
from fem_dnn.network import LayerWeights
from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.state import solve_tangent
from fem_dnn.trajectories import StateTrajectory, TangentTrajectory, levelwise, pre_activations

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Unknowns:
    """A point (z, P, c), a direction, or the three equations' residuals.

    Attributes:
        slopes: z, or L_z, at the control levels, shape (levels, n_local, samples).
        multipliers: P, or L_P, same shape.
        control: c, or L_c, local control vector in L2-orthonormal coordinates.
    """

    slopes: Array
    multipliers: Array
    control: Array


class SystemSpace:
    """Vectors of unknowns in L2-orthonormal coordinates: slopes, multipliers, controls.

    Args:
        problem: The learning problem.
    """

    def __init__(self, problem: LearningProblem) -> None:
        space, omega = problem.network.space, problem.network.levels.weights
        self.problem = problem
        self._scale = np.sqrt(
            omega[:, None, None] * space.local_weights[:, None] * problem.sample_weights
        )
        self.n_local = 2 * self._scale.size + problem.controls.n_local
        self.n_global = int(space.sum(np.array(self.n_local)))

    def coordinates(self, values: Unknowns) -> Array:
        """The local vector; residuals of equations are treated as points are."""
        z, P = (self._scale * part for part in (values.slopes, values.multipliers))
        return np.concatenate([z.reshape(-1), P.reshape(-1), values.control])

    def values(self, vector: Array) -> Unknowns:
        """The inverse of `coordinates`; nothing is shared but the control."""
        size, shape = self._scale.size, self._scale.shape
        z, P = (vector[k * size : (k + 1) * size].reshape(shape) / self._scale for k in (0, 1))
        return Unknowns(z, P, vector[2 * size :])

    def point(self, vector: Array) -> OptimalityPoint:
        """The system at a vector, of which it keeps nothing."""
        return OptimalityPoint(self.problem, self.values(np.array(vector)))

    def solved(self, at: Linearisation) -> OptimalityPoint:
        """The system at a control with state and adjoint solved."""
        return OptimalityPoint(
            self.problem,
            Unknowns(
                self.problem.network.activation(at.state.u), at.adjoint.levels, at.control.copy()
            ),
        )

    def level_dot(self, a: Array, b: Array) -> float:
        """sum_s w_s sum_k omega_k int_Y a b dx of slopes or multipliers (collective)."""
        local = np.vdot(self._scale * a, self._scale * b)
        return float(self.problem.network.space.sum(np.array(local)))

    def dot(self, a: Array, b: Array) -> float:
        """Inner product of two vectors (collective)."""
        return float(self.problem.network.space.sum(np.dot(a, b)))

    def norm(self, a: Array) -> float:
        """Norm of a vector (collective)."""
        return float(np.sqrt(self.dot(a, a)))


class OptimalityPoint(Linearisation):
    """The learning problem at a point (z, P, c), whose state and adjoint solve no equation.

    What it inherits holds at such points too: `objective` is J(f(z), c) and `gradient` L_c. But
    for the inherited `hessian_action`: the matrix of the system is `product`.

    Args:
        problem: The learning problem.
        unknowns: The point.
    """

    def __init__(self, problem: LearningProblem, unknowns: Unknowns) -> None:
        super().__init__(problem, unknowns.control)
        self.slopes, self.multipliers = unknowns.slopes, unknowns.multipliers
        self._nothing = np.zeros_like(unknowns.slopes[0])

    @cached_property
    @np.errstate(over="ignore", invalid="ignore")
    def state(self) -> StateTrajectory:
        """f(z) and u = K f + b."""
        problem, operator = self.problem, self.weights.operator
        problem.work.states += 1
        tracked = problem.tracking is not None
        f = integrate(problem.network.levels, problem.inputs, self.slopes, tracked=tracked)
        u, gathered = self._image(self.weights, f.stages)
        if self.weights.bias is not None:
            u += self.weights.bias
        slope = problem.network.activation.evaluate(u, 1)[1]
        return StateTrajectory(f.ends, u, slope, gathered if operator else None, f.tracked)

    @cached_property
    def state_residual(self) -> Array:
        """L_P = sigma(u) - z at the control levels."""
        return self.problem.network.activation(self.state.u) - self.slopes

    @cached_property
    def adjoint(self) -> AdjointTrajectory:
        """P, q = sigma'(u) P, and at the slab ends what the adjoint equation makes of them."""
        return self._integrated_back[0]

    @property
    def adjoint_residual(self) -> Array:
        """L_z = Q*(grad ell, mu (f - g), K' q) - P at the control levels."""
        return self._integrated_back[1]

    @cached_property
    def _integrated_back(self) -> tuple[AdjointTrajectory, Array]:
        self.problem.work.adjoints += 1
        q = self.state.slope * self.multipliers
        driven = transpose(self.weights, slice(None), q)
        misfit = self._tracked(self.misfit)
        levels = self.problem.network.levels
        ends, stages = integrate_back(levels, self.loss_point.terminal, driven, misfit)
        return AdjointTrajectory(ends, self.multipliers, q), stages - self.multipliers

    @property
    def unknowns(self) -> Unknowns:
        """(z, P, c)."""
        return Unknowns(self.slopes, self.multipliers, self.control)

    @property
    def residual(self) -> Unknowns:
        """(L_z, L_P, L_c)."""
        return Unknowns(self.adjoint_residual, self.state_residual, self.gradient)

    @cached_property
    def gradient_norm(self) -> float:
        """L2 norm of the Lagrangian's gradient, all three parts."""
        system = SystemSpace(self.problem)
        return system.norm(system.coordinates(self.residual))

    def with_multipliers(self, multipliers: Array) -> OptimalityPoint:
        """The point with the same state and controls; what is known of the state is shared."""
        unknowns = Unknowns(self.slopes, multipliers, self.control)
        other = OptimalityPoint(self.problem, unknowns)
        other.__dict__["state"] = self.state
        return other

    def product(self, direction: Unknowns) -> Unknowns:
        """The system's matrix, the Hessian of L, applied to a direction (collective)."""
        problem, network = self.problem, self.problem.network
        problem.work.hessians += 1
        parts = problem.controls.split(direction.control)
        change = problem.direction(parts)
        tracked = problem.tracking is not None
        df = integrate(network.levels, self._nothing, direction.slopes, tracked=tracked)
        du, gathered = self._image(self.weights, df.stages)
        du += pre_activations(change, self.state)
        tangent = TangentTrajectory(
            df.ends, du, gathered if self.weights.operator else None, df.tracked
        )
        loss = self.loss_point.tangent(df.ends[-1], problem.output_direction(parts))
        dq = self.state.slope * direction.multipliers + self.curvature * du
        everywhere = slice(None)
        driven = transpose(self.weights, everywhere, dq)
        driven += transpose(change, everywhere, self.adjoint.q)
        _, stages = integrate_back(network.levels, loss.terminal, driven, self._tracked(df.tracked))
        control = self._loss_gradient_tangent(tangent, dq, loss)
        problem.regularization.add_action(direction.control, control)
        return Unknowns(
            stages - direction.multipliers, self.state.slope * du - direction.slopes, control
        )

    def solve_linearised_state(self, right: Array, control: Array | None = None) -> Array:
        """dz with L_Pz dz + L_Pc dc = right, by one tangent sweep (collective).

        Args:
            right: Shape (levels, n_local, samples).
            control: dc; None: 0.
        """
        problem = self.problem
        change = LayerWeights(None, None)
        if control is not None:
            change = problem.direction(problem.controls.split(control))
        tangent = solve_tangent(problem.network, self.weights, self.state, change, -right)
        return self.state.slope * tangent.u - right

    def solve_linearised_adjoint(self, right: Array) -> AdjointTrajectory:
        """dP with L_zP dP = right, by one adjoint sweep (collective)."""
        network, nothing = self.problem.network, self._nothing
        return solve_adjoint(
            network, self.weights, self.state.slope, nothing, nothing[None][:0], -right
        )

    def stationarity_part(self, q: Array) -> Array:
        """L_cP dP with q = sigma'(u) dP: the stationarity equation's change with the adjoint."""
        K, n = self.problem.controls.outputs, len(self._nothing)
        pairs = [(levelwise(q), self.state.functions)]
        return self.sums(pairs, np.zeros((K, n)), np.zeros(K))

    def _image(self, weights: LayerWeights, stages: Array) -> tuple[Array, Array]:
        """K f at all levels, and sqrt(h) f on all nodes, from f there; zeros without a kernel."""
        operator = weights.operator
        if operator is None:
            return np.zeros_like(stages), np.empty((len(stages), 0, stages.shape[-1]))
        gathered = np.stack([operator.gather(f) for f in stages])
        return operator.apply(slice(None), gathered), gathered
