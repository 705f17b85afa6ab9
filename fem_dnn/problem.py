"""The learning problem: objective, reduced gradient and Hessian action (theory.md sections 2, 3).

    J(a, b) = sum_s w_s ell_s(f_s(T)) + (mu / 2) sum_s w_s int_0^T |f_s - g_s|^2 dt + R(a, b)

State and adjoint are eliminated by sweeps. `LearningProblem.linearise` makes a `Linearisation`,
which owns everything that is known at one control, so that nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.adjoint import AdjointTrajectory, curvature_of, solve_adjoint, solve_second_adjoint
from fem_dnn.controls import ControlParts, ControlSpace, ControlValues
from fem_dnn.coordinates import Coordinates, Metric
from fem_dnn.losses import LossPoint, LossTangent, OutputLayer, TerminalLoss
from fem_dnn.network import LayerWeights, Network
from fem_dnn.nonlocal_operator import NonlocalOperator
from fem_dnn.regularization import Regularization
from fem_dnn.sample_groups import SampleGroups
from fem_dnn.sample_sums import sample_sums
from fem_dnn.slab import SlabFailure
from fem_dnn.state import solve_state, solve_tangent
from fem_dnn.tracking import Tracking
from fem_dnn.trajectories import Levelwise, StateTrajectory, TangentTrajectory, levelwise
from fem_dnn.work import Work

Array = NDArray[np.float64]
Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class LearningProblem:
    """The discrete learning problem.

    Attributes:
        network: Width space, depth levels, activation.
        controls: Which of kernel, bias and outputs are controls.
        inputs: f_I at this rank's nodes, shape (n_local, samples).
        sample_weights: w_s, shape (samples,).
        loss: Terminal loss.
        regularization: R.
        tracking: Tracking term or None.
        given: Kernel and bias that are given, not trained; None where there are none.
        given_outputs: The output layer where it is not learned; None for the l2 loss.
        work: Counts the sweeps.
        remembered: Bytes per rank for what solvers remember besides the vectors that they need:
            pairs of L-BFGS, bases of eigensolvers; None: as each of them likes (`room_for`).
        typical: Samples that may stand for all where curvature is only measured by, weighted as
            all, the same in every group of ranks and with controls of one group; None: all do.
    """

    network: Network
    controls: ControlSpace
    inputs: Array
    sample_weights: Array
    loss: TerminalLoss
    regularization: Regularization
    tracking: Tracking | None = None
    given: LayerWeights = field(default_factory=lambda: LayerWeights(None, None))
    given_outputs: OutputLayer | None = None
    work: Work = field(default_factory=Work)
    remembered: float | None = None
    typical: LearningProblem | None = None

    @property
    def groups(self) -> SampleGroups:
        """Over which the samples are distributed; inputs, weights and losses are this group's."""
        return self.controls.groups

    def direction(self, parts: ControlParts) -> LayerWeights:
        """Kernel and bias of a control vector's parts, without what is given."""
        space, omega = self.network.space, self.network.levels.weights
        operator = bias = None
        if parts.kernel is not None:
            operator = NonlocalOperator(space, omega, parts.kernel)
        if parts.bias is not None:
            bias = (parts.bias / self.controls.bias_scale)[:, :, None]
        return LayerWeights(operator, bias)

    def layer_weights(self, parts: ControlParts) -> LayerWeights:
        """Kernel and bias, from the control where they are trained and as given where not."""
        trained = self.direction(parts)
        return LayerWeights(
            trained.operator or self.given.operator,
            trained.bias if trained.bias is not None else self.given.bias,
        )

    def output_direction(self, parts: ControlParts) -> OutputLayer | None:
        """The learned output layer of a control vector's parts; None where it is given."""
        if parts.outputs is None or parts.offsets is None:
            return None
        space = self.network.space
        return OutputLayer(parts.outputs / space.sqrt_weights[space.owned], parts.offsets)

    def control_of(self, values: ControlValues) -> Array:
        """The local control vector of nodal values (collective)."""
        return self.controls.coordinates(values)

    def state(self, weights: LayerWeights) -> StateTrajectory:
        """Solve the state equation for all samples."""
        self.work.states += 1
        tracked = self.tracking is not None
        with self.groups.failing_together(SlabFailure):
            return solve_state(self.network, weights, self.inputs, tracked=tracked)

    def parts(self) -> dict[str, Any]:
        """What a learning problem is made of, by name, to make one in another form."""
        return {each.name: getattr(self, each.name) for each in fields(LearningProblem)}

    def room_for(self, usual: float) -> int:
        """How many vectors of controls solvers may remember (collective).

        Args:
            usual: Bytes per rank where nothing has been said.
        """
        room = usual if self.remembered is None else self.remembered
        vectors = int(room / (8 * max(self.controls.n_local, 1)))
        return self.controls.comm.allreduce(vectors, op=MPI.MIN)

    def of_samples(self, some: slice, weights: Array | None = None) -> LearningProblem:
        """The problem for some of the samples, R and all; its work is counted by itself.

        Args:
            some: Which.
            weights: Their weights w_s, where not as here.
        """
        w = self.sample_weights[some] if weights is None else weights
        tracking = self.tracking
        return replace(
            self,
            inputs=np.ascontiguousarray(self.inputs[:, some]),
            sample_weights=w,
            loss=self.loss.of_samples(some, w),
            tracking=None if tracking is None else tracking.of_samples(some),
            typical=None,
            work=Work(),
        )

    def count_work_of(self, part: LearningProblem) -> None:
        """Count what has been done for some samples, as the part that they are of this group's."""
        self.work.take_over(part.work, len(part.sample_weights) / len(self.sample_weights))

    def tracking_costs(self, misfit: Array) -> Array:
        """The tracking term on every slab, of this group's samples (`Tracking.costs`)."""
        if self.tracking is None:
            return np.zeros(self.network.levels.layers)
        return self.tracking.costs(self.network, self.sample_weights, misfit)

    def linearise(self, control: Array) -> Linearisation:
        """Everything known at a control, computed when asked for. The control is not copied."""
        return Linearisation(self, control)

    @property
    def frugal(self) -> bool:
        """Whether solvers should hold few vectors of controls, because these are the problem."""
        return False

    @property
    def operations(self) -> float:
        """Operations of the largest matrix product that one rank does at once."""
        space = self.network.space
        return 2.0 * space.n_local * space.n_nodes * self.inputs.shape[1]

    @property
    def samples_meet_in_sums(self) -> bool:
        """Whether sweeps may be made for some samples at a time."""
        return True

    def distance(self, at: Linearisation, before: Linearisation) -> float:
        """L2 length of the step from one point to another (collective)."""
        return self.controls.norm(at.control - before.control)

    def moved(self, at: Linearisation, step: Array) -> Array:
        """The control after a step from a point: of what the gradient and the Hessian speak."""
        return at.control + step

    def metric(self, at: Linearisation) -> Metric | None:
        """How steps from a point are measured; None: in L2, whatever the point."""
        return None

    def objective(self, control: Array) -> float:
        """J at a control (collective)."""
        return self.linearise(control).objective


class Linearisation:
    """The learning problem at one control: state, adjoint, objective, gradient, Hessian action.

    Args:
        problem: The learning problem.
        control: Local control vector in L2-orthonormal coordinates; kept, not copied.
    """

    def __init__(self, problem: LearningProblem, control: Array) -> None:
        self.problem = problem
        self.control = control
        self._parts = problem.controls.split(control)
        self.weights = problem.layer_weights(self._parts)
        self.output_layer = problem.output_direction(self._parts) or problem.given_outputs

    @cached_property
    def state(self) -> StateTrajectory:
        """The state at this control."""
        return self.problem.state(self.weights)

    @cached_property
    def loss_point(self) -> LossPoint:
        """The terminal loss at the state's end."""
        return self.problem.loss.at(self.state.ends[-1], self.output_layer)

    @cached_property
    def misfit(self) -> Array:
        """f - g at the tracking points; empty without tracking."""
        tracking = self.problem.tracking
        return self.state.tracked if tracking is None else self.state.tracked - tracking.targets

    @cached_property
    def loss(self) -> float:
        """Terminal loss and tracking term, weighted by the samples."""
        problem = self.problem
        value = float(problem.sample_weights @ self.loss_point.values)
        if problem.tracking is not None:
            value += float(problem.tracking_costs(self.misfit).sum())
        return float(problem.groups.sum(value))

    @cached_property
    def regularization(self) -> float:
        """R at this control."""
        return self.problem.regularization.value(self.control)

    @property
    def objective(self) -> float:
        """J at this control."""
        return self.loss + self.regularization

    def _tracked(self, misfit: Array) -> Array:
        tracking = self.problem.tracking
        return misfit if tracking is None else tracking.weight * misfit

    @cached_property
    def adjoint(self) -> AdjointTrajectory:
        """The adjoint at this control."""
        self.problem.work.adjoints += 1
        with self.problem.groups.failing_together(SlabFailure):
            return solve_adjoint(
                self.problem.network,
                self.weights,
                self.state.slope,
                self.loss_point.terminal,
                self._tracked(self.misfit),
            )

    @cached_property
    def gradient(self) -> Array:
        """The reduced gradient in L2-orthonormal coordinates, shape (controls.n_local,).

        The derivative of J, whether it points out of the controls' bounds or not.
        """
        gradient = self.loss_gradient()
        self.problem.regularization.add_action(self.control, gradient)
        return gradient

    def loss_gradient(self) -> Array:
        """The reduced gradient of the loss alone, a new array (collective)."""
        loss = self.loss_point
        pairs = [(self.adjoint.slopes, self.state.functions)]
        return self.sums(pairs, loss.functions, loss.offsets)

    @cached_property
    def projected_gradient(self) -> Array:
        """The reduced gradient where the controls are free to follow it (`box`), else 0."""
        box = self.problem.controls.box
        if box is None:
            return self.gradient
        return box.projected_gradient(self.control, self.gradient)

    @cached_property
    def gradient_norm(self) -> float:
        """L2 norm of the reduced gradient, projected where the controls have bounds."""
        return self.problem.controls.norm(self.projected_gradient)

    def of_typical(self, make: Callable[[Linearisation], Made]) -> Made:
        """What is made of samples that may stand for all: of all where there are no such.

        Args:
            make: Called with the linearisation of a problem whose samples these are, and whose
                controls are all of this rank's rows (collective).
        """
        problem, typical = self.problem, self.problem.typical
        if typical is None:
            return make(self)
        control = problem.groups.gather(self.control, problem.controls.n_rows)
        made = make(typical.linearise(control))
        problem.count_work_of(typical)
        return made

    @property
    def at_rest(self) -> bool:
        """Whether all pre-activations are zero on this rank."""
        return not np.any(self.state.u)

    def forget(self) -> None:
        """Called where a solver has left this point for good; what is large may be dropped."""

    @property
    def length(self) -> float:
        """L2 norm of the controls."""
        return self.problem.controls.norm(self.control)

    @cached_property
    def curvature(self) -> Array:
        """sigma''(u) p at the control levels, shape (levels, n_local, samples)."""
        return curvature_of(self.problem.network, self.weights, self.state, self.adjoint)

    def hessian_action(self, direction: Array) -> Array:
        """The reduced Hessian applied to a direction (exact; collective).

        Args:
            direction: Local control vector in L2-orthonormal coordinates.

        Returns:
            Local vector of the same shape.
        """
        return self._change_of_gradient(direction, None)

    def hessian_in(self, coordinates: Coordinates, z: Array, out: Array) -> None:
        """The same by coordinates z of a step T z: out = T' H T z (collective)."""
        out[...] = coordinates.apply_transpose(self.hessian_action(coordinates.apply(z)))

    def descent_in(self, coordinates: Coordinates) -> Array:
        """-T' gradient: steepest descent by coordinates z of a step T z, a new array."""
        return -coordinates.apply_transpose(self.gradient)

    def gradient_by_inputs(self, inputs: Array) -> Array:
        """Derivative of the gradient in a direction of the inputs (exact; collective).

        Args:
            inputs: df_I at this rank's nodes, shape (n_local, samples).

        Returns:
            Local control vector in L2-orthonormal coordinates.
        """
        return self._change_of_gradient(np.zeros(self.problem.controls.n_local), inputs)

    def _change_of_gradient(self, direction: Array, inputs: Array | None) -> Array:
        self.problem.work.hessians += 1
        change = self.change_of_loss_gradient(direction, inputs)
        self.problem.regularization.add_action(direction, change)
        return change

    def change_of_loss_gradient(self, direction: Array, inputs: Array | None = None) -> Array:
        """Derivative of the loss's gradient in a direction of control and inputs (collective).

        Args:
            direction: Local control vector in L2-orthonormal coordinates.
            inputs: df_I at this rank's nodes, shape (n_local, samples); None: 0.

        Returns:
            Local control vector, a new array.
        """
        problem, network = self.problem, self.problem.network
        adjoint, curvature = self.adjoint, self.curvature
        parts = problem.controls.split(direction)
        change = problem.direction(parts)
        with problem.groups.failing_together(SlabFailure):
            tangent = solve_tangent(network, self.weights, self.state, change, inputs=inputs)
            loss = self.loss_point.tangent(tangent.ends[-1], problem.output_direction(parts))
            dq = solve_second_adjoint(
                network,
                self.weights,
                self.state,
                adjoint,
                curvature,
                tangent,
                change,
                loss.terminal,
                self._tracked(tangent.tracked),
            )
        return self._loss_gradient_tangent(tangent, dq, loss)

    def _loss_gradient_tangent(
        self, tangent: TangentTrajectory, dq: Array, loss: LossTangent
    ) -> Array:
        """Derivative of the loss's gradient where those of state, adjoint and loss are known."""
        pairs: list[tuple[Levelwise, Levelwise]] = [
            (levelwise(dq), self.state.functions),
            (self.adjoint.slopes, tangent.functions),
        ]
        return self.sums(pairs, loss.functions, loss.offsets)

    def sums(
        self,
        pairs: Sequence[tuple[Levelwise, Levelwise]],
        functions: Array | None,
        offsets: Array | None,
    ) -> Array:
        """The control vector of sums over the samples (`sample_sums`), as a gradient is one."""
        problem = self.problem
        controls, w, compiled = problem.controls, problem.sample_weights, problem.network.compiled
        return sample_sums(controls, w, pairs, functions, offsets, compiled)
