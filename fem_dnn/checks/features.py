"""The pointwise minimisation behind Pontryagin's principle and the existence of minimisers.

At one depth and one neuron x, with c_s = w_s p_s(x), the controls are a vector z of cost |z|^2 / 2
(`gram`) and act by u = u_given + M z, M M' = K; min over the controls is

    min_z  sum_s c_s sigma(u_s) + |z|^2 / 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fem_dnn.checks.subject import Subject
from fem_dnn.gram_factor import GramFactor

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pointwise:
    """The pointwise problems at one control level.

    Attributes:
        level: The control level.
        factor: M, shape (1 or n_local, samples, rank bound); K = M M'.
        c: w_s p_s, shape (n_local, samples).
        u: Pre-activations at the computed controls, same shape.
        u_given: What is not trained contributes to u, same shape.
        cost: Density of sum_s c_s sigma(u_s) + cost of the trained controls, shape (n_local,).
    """

    level: int
    factor: Array
    c: Array
    u: Array
    u_given: Array
    cost: Array

    @property
    def rank(self) -> int:
        """Smallest rank of K over this rank's nodes with K not 0."""
        s = np.linalg.svd(self.factor, compute_uv=False)
        largest = s[:, :1]
        ranks = np.sum(s > 1e-10 * largest, axis=1)[largest[:, 0] > 0]
        return int(ranks.min(initial=self.c.shape[1]))


def why_not_pointwise(subject: Subject) -> str | None:
    """Why the pointwise problem is not the one above, or there is none."""
    at = subject.at
    if at is None:
        return "there are no targets, so no adjoint"
    controls, R = at.problem.controls, at.problem.regularization
    if not controls.has_kernel and not controls.has_bias:
        return "neither kernel nor bias is trained"
    if subject.smoothed:
        return "derivatives of the controls are penalised: the minimum is not pointwise"
    if subject.bounded:
        return "the controls carry box bounds: the minimum is a constrained one"
    if (controls.has_kernel and R.kernel == 0) or (controls.has_bias and R.bias == 0):
        return "a trained control is not regularised: K is infinite"
    return None


def pointwise(subject: Subject, level: int, states: Array) -> Pointwise:
    """The pointwise problems at one control level (collective).

    Args:
        subject: Where `why_not_pointwise` is None.
        level: The control level.
        states: `subject.level_states()`.
    """
    at = subject.at
    assert at is not None
    problem, space = at.problem, subject.network.space
    controls, R, operator = problem.controls, problem.regularization, subject.weights.operator
    samples = states.shape[-1]
    u_given: Array = np.zeros((space.n_local, samples))
    bias, u = subject.weights.bias, subject.state.u[level]
    c = at.adjoint.levels[level] * problem.sample_weights
    cost = np.sum(c * subject.network.activation(u), axis=1)
    if controls.has_bias and bias is not None:
        cost = cost + 0.5 * R.bias * bias[level, :, 0] ** 2
    elif bias is not None:
        u_given = u_given + bias[level]
    gathered: Array = np.zeros((space.n_nodes, samples))
    if operator is not None:
        gathered = operator.gather(states[level])
        if controls.has_kernel:
            squares = np.sum(operator.coefficients[level] ** 2, axis=0)
            a_squared = squares / (subject.levels.weights[level] * space.local_weights)
            cost = cost + 0.5 * R.kernel * a_squared
        else:
            u_given = u_given + operator.apply(level, gathered)
    factor = GramFactor.of(controls, R.kernel, R.bias, gathered).matrix
    if factor.shape[2] > samples:
        # Only M M' matters: M' = Q R, M M' = R'R.
        triangle: Array = np.asarray(np.linalg.qr(factor.transpose(0, 2, 1), mode="r"))
        factor = triangle.transpose(0, 2, 1)
    return Pointwise(level, factor, c, u, u_given, cost)
