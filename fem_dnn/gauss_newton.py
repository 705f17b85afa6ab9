"""The Gauss-Newton term J' W J of the reduced Hessian, by the pre-activations.

J is the derivative of the outputs of all samples by the controls, W the loss's second derivative by
the outputs times the samples' weights. The adjoint with W^{1/2} times an output's function for its
terminal value, times sigma'(u), is a column of J' W^{1/2}: a sweep of all samples for each output.

The l2 loss has an output for every node, but there

    p(t) = p(T) + integral of K' sigma'(u) p,

so J' W^{1/2} is sigma'(u), pointwise in width, plus an operator that is compact however fine the
mesh, and small but on the few functions Q that the kernels map to at all. With D pointwise and A
the adjoints that start from Q,

    J' W J = D D' + A A' - (D Q)(D Q)'

but for what K' does to functions orthogonal to Q.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.adjoint import solve_adjoint
from fem_dnn.losses import L2Loss
from fem_dnn.nonlocal_operator import NonlocalOperator
from fem_dnn.problem import LearningProblem, Linearisation

Array = NDArray[np.float64]

MEMORY_BYTES = 1e9
"""Memory that the slopes of all outputs, or the nodewise part and what it takes to invert it, may
have on all ranks together."""

MAX_RANK = 16
"""Coordinates of the pre-activations at a level and node, at most."""

SWEPT = 1024
"""Samples times outputs that are swept at once."""

FEW_COLUMNS = 128
"""Samples times parts up to which all of them are looked at, wherever the point is."""

MAX_SAMPLES = 256
"""Samples up to which the nodewise part is inverted."""

NEAR = 0.3
"""Gradient, relative to the regulariser's part of it, from which on more of them pay: before, steps
are limited by the model and need few products each."""

LEADING = 4
"""Functions that adjoints start from where every node is an output."""

NONE = 1e-12
"""Curvature by a part of the outputs, relative to the largest, that is none."""


@dataclass(frozen=True, eq=False)
class OutputSlopes:
    """J' W J = D D' + sum_k sign_k A_k A_k' by coordinates of the pre-activations.

    Attributes:
        parts: A, shape (levels, samples, parts, n_local).
        signs: +1 or -1, shape (parts,).
        nodewise: D, shape (levels, n_local, samples); None: 0.
    """

    parts: Array
    signs: Array
    nodewise: Array | None = None

    @property
    def few(self) -> bool:
        """Whether samples times parts are few."""
        _, samples, parts, _ = self.parts.shape
        return _few(samples, parts)

    def strength(self, comm: MPI.Comm) -> float:
        """The largest weight of a square of a change of pre-activation (collective)."""
        squares = np.einsum("lskn,k->lns", self.parts**2, self.signs)
        if self.nodewise is not None:
            squares += self.nodewise**2
        return float(comm.allreduce(np.max(squares, initial=0.0), op=MPI.MAX))


def output_slopes(at: Linearisation) -> OutputSlopes | None:
    """The Gauss-Newton term at a point; None where it costs too much for its use (collective)."""
    loss = at.problem.loss
    if isinstance(loss, L2Loss):
        return _of_nodes(at, loss.weight)
    roots = _roots(at)
    return _of_outputs(at, roots) if _worth_sweeping(at, len(roots)) else None


def few_output_slopes(at: Linearisation) -> OutputSlopes | None:
    """The same where the outputs are few, not every node; None elsewhere (collective)."""
    if isinstance(at.problem.loss, L2Loss):
        return None
    roots = _roots(at)
    return _of_outputs(at, roots) if _few(roots.shape[2], len(roots)) else None


def _roots(at: Linearisation) -> Array:
    """W^{1/2} of a loss of outputs by parts that have curvature: (parts, outputs, samples)."""
    curvature = at.loss_point.curvature
    assert curvature is not None, "a loss of outputs has it"
    values, vectors = np.linalg.eigh(curvature.transpose(2, 0, 1))
    # Softmax sees differences of its outputs alone: one part of them has no curvature.
    some = np.max(values, axis=0) > NONE * np.max(values)
    roots: Array = vectors[:, :, some] * np.sqrt(np.maximum(values[:, None, some], 0.0))
    return roots.transpose(2, 1, 0)


def _of_outputs(at: Linearisation, roots: Array) -> OutputSlopes:
    layer = at.output_layer
    assert layer is not None, "a loss of outputs has it"
    parts = _swept(at, [layer.functions.T @ root for root in roots])
    return OutputSlopes(parts, np.ones(parts.shape[2]))


def _of_nodes(at: Linearisation, weight: float) -> OutputSlopes | None:
    """The same where the outputs are the state itself, sqrt(h) f(T)."""
    problem, slope, operator = at.problem, at.state.slope, at.weights.operator
    space, (levels, nodes, samples) = problem.network.space, slope.shape
    if samples > MAX_SAMPLES or nodewise_bytes(space.n_nodes, levels, samples) > _room(problem):
        return None
    roots = np.sqrt(weight) / space.sqrt_weights[space.owned, None]
    nodewise = finite(_scale(at) * roots * slope)
    count = min(LEADING, space.n_nodes)
    if operator is None or not _worth_sweeping(at, 2 * count):
        return OutputSlopes(np.empty((levels, samples, 0, nodes)), np.empty(0), nodewise)
    leading = leading_functions(operator, count)[space.owned]
    every = np.ones(samples)
    swept = _swept(at, [roots * function[:, None] * every for function in leading.T])
    unmoved = nodewise.swapaxes(1, 2)[:, :, None] * leading.T
    signs = np.repeat([1.0, -1.0], count)
    return OutputSlopes(np.concatenate([swept, unmoved], axis=2), signs, nodewise)


def nodewise_bytes(nodes: int, levels: int, samples: int) -> float:
    """Memory of the nodewise part, its factor by coordinates and its inverse, in their making.

    The factor is there once, with as much again twice while directions are looked for; of the
    matrices by samples there are five.
    """
    return 8.0 * nodes * samples * (5 * samples + 3 * levels * MAX_RANK)


def finite(curvature: Array) -> Array:
    """What is finite, 0 elsewhere: overflow at one rank's nodes must not fail there alone."""
    return np.nan_to_num(curvature, posinf=0.0, neginf=0.0)


def _scale(at: Linearisation) -> Array:
    """Of slopes by coordinates and samples' weights, shape (levels, n_local, samples)."""
    problem = at.problem
    return problem.controls.bias_scale[:, :, None] * np.sqrt(problem.sample_weights)


def _room(problem: LearningProblem) -> float:
    """Bytes on all ranks together, no more than a memory limit leaves."""
    if problem.remembered is None:
        return MEMORY_BYTES
    return min(MEMORY_BYTES, problem.remembered * problem.controls.comm.size)


def _few(samples: int, parts: int) -> bool:
    """Whether samples times parts are few."""
    return samples * parts <= FEW_COLUMNS


def _worth_sweeping(at: Linearisation, parts: int) -> bool:
    """Whether that many parts are few, or worth their cost here (collective)."""
    problem, (levels, _, samples) = at.problem, at.state.slope.shape
    if _few(samples, parts):
        return True
    if 8.0 * levels * samples * parts * problem.network.space.n_nodes > _room(problem):
        return False
    penalty = problem.controls.norm(problem.regularization.action(at.control))
    return at.gradient_norm < NEAR * penalty


def _swept(at: Linearisation, terminals: Sequence[Array]) -> Array:
    """sigma'(u) p of adjoints by coordinates: (levels, samples, parts, n_local) (collective).

    Args:
        at: The point.
        terminals: p(T) of every part, shape (n_local, samples).
    """
    problem, slope = at.problem, at.state.slope
    levels, nodes, samples = slope.shape
    problem.work.adjoints += len(terminals)
    result = np.empty((levels, samples, len(terminals), nodes))
    scale = (_scale(at) * slope).swapaxes(1, 2)
    block = max(1, SWEPT // samples)
    for first in range(0, len(terminals), block):
        some = terminals[first : first + block]
        terminal = np.concatenate(some, axis=1)
        nothing = np.empty((0, *terminal.shape))
        adjoint = solve_adjoint(
            problem.network, at.weights, np.tile(slope, len(some)), terminal, nothing
        )
        P = adjoint.levels.reshape(levels, nodes, len(some), samples)
        for number in range(len(some)):
            part = P[:, :, number].swapaxes(1, 2)
            np.multiply(scale, part, out=result[:, :, first + number])
    return result


def leading_functions(operator: NonlocalOperator, count: int) -> Array:
    """Functions that span most of what the kernels of all levels map to (collective).

    The leading eigenvectors of sum_levels omega K K', by a subspace iteration.

    Returns:
        sqrt(h) times their nodal values, orthonormal columns: (n_nodes, count), on every rank.
    """
    space, coefficients = operator.space, operator.coefficients
    width = min(2 * count, space.n_nodes)
    block = np.random.default_rng(0).standard_normal((space.n_nodes, width))
    for _ in range(3):
        transposed = space.sum(coefficients @ block[space.owned])
        image = np.sum(coefficients.swapaxes(1, 2) @ transposed, axis=0)
        block, triangle = np.linalg.qr(space.gather(image))
    # Its singular vectors are sorted; the leading ones are found best.
    left, _, _ = np.linalg.svd(triangle)
    return (block @ left)[:, :count]
