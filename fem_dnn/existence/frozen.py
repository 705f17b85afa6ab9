"""Neurons whose inputs do not move: a convex problem, but for the velocity set (theory.md 9.6).

Where every input that a neuron may read stays at rest, K is constant in depth and the neuron's
states y_s(t) = f_s(x, t) are driven by the velocities alone,

    y' = v(t),  y(0) = f_I,   J = int_0^T r(v) dt + sum_s (omega_s / 2) (y_s(T) - g_s)^2
                                  + sum_s (mu_s / 2) int_0^T (y_s - k_s - l_s t)^2 dt.

All but r is convex in v, so replacing r by its envelope r** gives the infimum exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fem_dnn.checks.features import pointwise, why_not_pointwise
from fem_dnn.checks.subject import Subject
from fem_dnn.controls import ControlValues
from fem_dnn.existence.velocity_set import VelocitySet
from fem_dnn.losses import L2Loss
from fem_dnn.problem import LearningProblem

Array = NDArray[np.float64]


class NotFrozen(ValueError):
    """A problem in which the inputs of some neuron move, or that is not covered otherwise."""


@dataclass(frozen=True, eq=False)
class FrozenNeuron:
    """One neuron whose inputs are at rest; its part of J, per unit of width.

    Attributes:
        velocities: Its velocity set.
        depth: T.
        start: f_I, shape (S,).
        weights: omega_s, shape (S,).
        targets: g_s, shape (S,).
        tracking: mu_s, shape (S,); 0 where nothing is tracked.
        intercept, slope: k_s and l_s, shape (S,).
    """

    velocities: VelocitySet
    depth: float
    start: Array
    weights: Array
    targets: Array
    tracking: Array
    intercept: Array
    slope: Array

    @property
    def tracks(self) -> bool:
        """Whether there is a tracking term."""
        return bool(np.any(self.tracking))


@dataclass(frozen=True, eq=False)
class FrozenProblem:
    """A learning problem all of whose neurons are frozen or at rest.

    Attributes:
        problem: The learning problem, on one process.
        neurons: The moving neurons by their number in file order.
        constant: What the neurons at rest contribute to J.
    """

    problem: LearningProblem
    neurons: dict[int, FrozenNeuron]
    constant: float

    @classmethod
    def of(cls, problem: LearningProblem) -> FrozenProblem:
        """The frozen neurons of a learning problem.

        Raises:
            NotFrozen: Inputs move, or the problem has parts that are not covered; says which.
        """
        why = _why_not(problem)
        if why is not None:
            raise NotFrozen(why)
        assert isinstance(problem.loss, L2Loss)
        space, levels = problem.network.space, problem.network.levels
        at = problem.linearise(np.zeros(problem.controls.n_local))
        subject = Subject.of_linearisation(at)
        factor = pointwise(subject, 0, subject.level_states()).factor
        factor = np.broadcast_to(factor, (space.n_local, *factor.shape[1:]))
        w, samples = problem.sample_weights, problem.inputs.shape[1]
        zero = np.zeros(samples)
        neurons: dict[int, FrozenNeuron] = {}
        rest = 0.0
        sigma_0 = float(problem.network.activation(np.zeros(1))[0])
        for local in range(space.n_local):
            intercept, slope = _affine(problem, local)
            mu = zero if problem.tracking is None else w * problem.tracking.weight
            neuron = FrozenNeuron(
                VelocitySet.of_factor(problem.network.activation, factor[local]),
                float(levels.points[-1] - levels.points[0]),
                problem.inputs[local],
                w * problem.loss.weight,
                problem.loss.targets[local],
                mu,
                intercept + slope * levels.points[0],
                slope,
            )
            if neuron.velocities.rank == 0 and sigma_0 == 0:
                rest += float(space.local_weights[local]) * _at_rest(neuron)
            else:
                neurons[int(space.file_position[local])] = neuron
        return cls(problem, neurons, rest)

    def objective(self, parts: dict[int, float]) -> float:
        """J from every moving neuron's part."""
        weights = self.problem.network.space.node_weights
        return self.constant + sum(float(weights[n]) * part for n, part in parts.items())

    def control(self, z: dict[int, Array]) -> Array:
        """The learning problem's control vector of every neuron's controls z, (levels, rank).

        q = K^{-1} u, a = sum_s q_s f_s / lambda_a, b = sum_s q_s / lambda_b (theory.md section 3).
        """
        problem = self.problem
        controls, R, space = problem.controls, problem.regularization, problem.network.space
        N, count = space.n_nodes, problem.network.levels.count
        inputs = space.to_file_order(problem.inputs, axis=0)
        kernel, bias = np.zeros((count, N, N)), np.zeros((count, N))
        for node, values in z.items():
            q = values @ np.linalg.pinv(self.neurons[node].velocities.factor)
            if controls.has_kernel:
                kernel[:, node] = q @ inputs.T / R.kernel
            if controls.has_bias:
                bias[:, node] = q.sum(axis=1) / R.bias
        return controls.coordinates(ControlValues(kernel, bias))


def _why_not(problem: LearningProblem) -> str | None:
    """Why the problem is not one of frozen neurons."""
    space, controls = problem.network.space, problem.controls
    if space.comm.size > 1:
        return "the problem is distributed: make it on MPI.COMM_SELF"
    if not isinstance(problem.loss, L2Loss):
        return "the loss couples the neurons (only l2 does not)"
    if problem.regularization.smooth:
        return "derivatives of the controls are penalised"
    if problem.given.operator is not None or problem.given.bias is not None:
        return "a kernel or bias is given, not trained"
    at = problem.linearise(np.zeros(controls.n_local))
    why = why_not_pointwise(Subject.of_linearisation(at))
    if why is not None:
        return why
    if not controls.has_kernel:
        return None
    if controls.mask is None:
        return "every neuron reads every other, so inputs move: a kernel mask has to hold them"
    mask = controls.mask.T  # [x, y]
    read = np.any(mask, axis=0)
    moving = np.any(mask, axis=1) | controls.has_bias
    if float(problem.network.activation(np.zeros(1))[0]) != 0:
        moving[:] = True
    if np.any(read & moving):
        return "some neuron reads one that moves"
    return None


def _affine(problem: LearningProblem, local: int) -> tuple[Array, Array]:
    """k and l of tracking targets k + l t at one node."""
    zero = np.zeros(problem.inputs.shape[1])
    tracking = problem.tracking
    if tracking is None:
        return zero, zero
    values = tracking.targets[:, local]
    if len(values) == 1:
        return values[0], zero
    t = problem.network.levels.tracking_t
    design = np.column_stack([np.ones_like(t), t])
    fitted, *_ = np.linalg.lstsq(design, values, rcond=None)
    if np.max(np.abs(design @ fitted - values)) > 1e-12 * (1 + np.max(np.abs(values))):
        raise NotFrozen("the tracking targets are not affine in depth")
    return fitted[0], fitted[1]


def _at_rest(neuron: FrozenNeuron) -> float:
    """J of a neuron that stays where it is."""
    e = neuron.start - neuron.targets
    T = neuron.depth
    a, b = neuron.start - neuron.intercept, neuron.slope
    squares = a * a * T - a * b * T**2 + b * b * T**3 / 3
    return float(0.5 * neuron.weights @ e**2 + 0.5 * neuron.tracking @ squares)
