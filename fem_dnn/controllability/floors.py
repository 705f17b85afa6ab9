"""Loss that no controls can remove (theory.md sections 1 and 6).

Two things bind whatever kernel and bias do. A sigma with values in [low, high] moves every state by

    low T <= f_s(x, T) - f_{I,s}(x) <= high T,

and samples with equal inputs stay equal. Where there is no kernel at all, every sample is moved by
the same displacement. The least loss that is compatible with these is a lower bound of the loss, in
closed form per group of samples that move together: with the l2 loss at every node

    min over d in [low T, high T] of sum_s w_s (d - (g_s - f_{I,s}))^2 / 2,

attained at the weighted mean, clipped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, logsumexp

from fem_dnn.losses import L2Loss, OutputLayer, OutputLoss, logistic, mse
from fem_dnn.problem import LearningProblem

Array = NDArray[np.float64]
Box = tuple[Array | float, Array | float]
Groups = list[NDArray[np.intp]]


@dataclass(frozen=True)
class LossFloor:
    """A lower bound of the terminal loss, weighted by the samples.

    Attributes:
        value: The bound.
        by_range: What the range of the activation alone gives.
        by_groups: What the samples that move together alone give.
        together: Samples that move together with some other.
    """

    value: float
    by_range: float
    by_groups: float
    together: int


def loss_floor(problem: LearningProblem, layer: OutputLayer | None = None) -> LossFloor:
    """A lower bound of the terminal loss over all kernels and biases (collective).

    Args:
        problem: The learning problem.
        layer: The output layer; None: the one that is given. A learned one binds nothing but equal
            samples.
    """
    samples = problem.inputs.shape[1]
    alone: Groups = [np.array([s]) for s in range(samples)]
    groups = samples_that_move_together(problem)
    free: Box = (-np.inf, np.inf)
    if isinstance(problem.loss, L2Loss):
        wanted = problem.loss.targets - problem.inputs
        h = problem.network.space.local_weights[:, None]

        def least(box: Box, groups: Groups) -> float:
            squares = _least_squares(problem, wanted, box, groups, h)
            return float(problem.network.space.sum(np.array(squares)))

        box: Box = displacement_range(problem)
    else:
        layer = layer or problem.given_outputs

        def least(box: Box, groups: Groups) -> float:
            return _least_of_outputs(problem, box, groups)

        box = free if layer is None else output_range(problem, layer)
    weight = problem.loss.weight if isinstance(problem.loss, L2Loss | OutputLoss) else 1.0
    by_range, by_groups = least(box, alone), least(free, groups)
    value = max(least(box, groups), by_range, by_groups)
    return LossFloor(
        weight * value,
        weight * by_range,
        weight * by_groups,
        sum(len(group) for group in groups if len(group) > 1),
    )


def displacement_range(problem: LearningProblem) -> tuple[float, float]:
    """low T, high T: by how much a state can move."""
    levels = problem.network.levels
    T = float(levels.points[-1] - levels.points[0])
    low, high = problem.network.activation.range
    return low * T, high * T


def output_range(problem: LearningProblem, layer: OutputLayer) -> tuple[Array, Array]:
    """Between what the outputs lie, two arrays of shape (K, samples) (collective)."""
    space = problem.network.space
    start = space.sum((layer.functions * space.local_weights) @ problem.inputs)
    low, high = displacement_range(problem)
    up, down = np.maximum(layer.functions, 0), np.maximum(-layer.functions, 0)
    masses = space.sum(np.stack([up @ space.local_weights, down @ space.local_weights]))

    def reach(of_up: float, of_down: float) -> Array:
        terms = [
            np.multiply(mass, by, out=np.zeros_like(mass), where=mass > 0)
            for mass, by in zip(masses, (of_up, of_down), strict=True)
        ]
        total: Array = start + layer.offsets[:, None] + (terms[0] + terms[1])[:, None]
        return total

    return reach(low, -high), reach(high, -low)


def samples_that_move_together(problem: LearningProblem) -> Groups:
    """Groups of samples that no controls can part (collective): equal inputs, or no kernel.

    Without a kernel all displacements are equal, which says that outputs are where the inputs are.
    """
    no_kernel = not problem.controls.has_kernel and problem.given.operator is None
    if no_kernel and isinstance(problem.loss, L2Loss):
        return [np.arange(problem.inputs.shape[1])]
    columns = problem.network.space.gather(problem.inputs).T
    _, inverse = np.unique(columns, axis=0, return_inverse=True)
    inverse = inverse.ravel()
    order = np.argsort(inverse, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(inverse[order])) + 1)


def _least_squares(
    problem: LearningProblem, wanted: Array, box: Box, groups: Groups, h: Array
) -> float:
    """sum over groups and rows of min_d sum_s w_s (d - wanted_s)^2 h / 2, d in the box."""
    w, total = problem.sample_weights, 0.0
    for group in groups:
        low, high = (np.broadcast_to(side, wanted.shape)[:, group[:1]] for side in box)
        part, weights = wanted[:, group], w[group]
        mean = part if len(group) == 1 else (part @ weights / weights.sum())[:, None]
        best = np.clip(mean, low, high)
        total += 0.5 * float(np.sum(weights * (best - part) ** 2 * h))
    return total


def _least_of_outputs(problem: LearningProblem, box: Box, groups: Groups) -> float:
    loss, w = problem.loss, problem.sample_weights
    assert isinstance(loss, OutputLoss)
    if loss.pointwise is mse:
        return _least_squares(problem, loss.targets, box, groups, np.ones((1, 1)))
    shape = loss.targets.shape
    low, high = (np.broadcast_to(side, shape) for side in box)
    if loss.pointwise is logistic:
        return sum(_least_logistic(loss.targets[0], w, low[0], high[0], g) for g in groups)
    # Softmax: every sample by the box alone, or every group by its share of the classes.
    right = np.where(loss.targets > 0, high, low)
    z_y = np.sum(np.where(loss.targets > 0, right, 0.0), axis=0)
    bounded = np.isfinite(z_y)
    singly = np.zeros_like(w)
    singly[bounded] = logsumexp(right[:, bounded], axis=0) - z_y[bounded]
    total = 0.0
    for group in groups:
        share = loss.targets[:, group] @ w[group]
        entropy = w[group].sum() * float(np.sum(entr(share / w[group].sum())))
        total += max(float(w[group] @ singly[group]), entropy)
    return total


def _least_logistic(y: Array, w: Array, low: Array, high: Array, group: NDArray[np.intp]) -> float:
    """min over z in the box of sum_s w_s log(1 + exp(-y_s z)), at z = log(w_+ / w_-) clipped."""
    labels, weights = y[group], w[group]
    positive, negative = weights[labels > 0].sum(), weights[labels < 0].sum()
    with np.errstate(divide="ignore"):
        best = np.log(positive) - np.log(negative)
    z = np.clip(best, low[group[0]], high[group[0]])
    return float(weights @ np.logaddexp(0, -labels * z))
