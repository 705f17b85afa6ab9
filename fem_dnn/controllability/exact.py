"""Controls by construction that reach every target exactly (theory.md section 6).

Along the straight path f_s(t) = f_{I,s} + t v_s, v_s = (g_s - f_{I,s}) / T, the pre-activations are
u_s = sigma^{-1}(v_s), and of the controls with K f_s + b = u_s those of least cost are

    q = K(t)^{-1} u,    a = sum_s q_s(x) f_s(y) / lambda_a,    b = sum_s q_s / lambda_b.

Two hypotheses: v_s lies in the range of sigma, and K(t) > 0 along the path (or at least u in the
range of K). The state is linear in t, so every depth scheme follows it to round-off. q is never
formed: z = M' q is the least-norm solution of M z = u (`gram`), which loses half as many digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.controllability.targets import OutOfReach, targets_of
from fem_dnn.controls import ControlParts
from fem_dnn.depth import DepthLevels
from fem_dnn.gram_factor import GramFactor
from fem_dnn.problem import LearningProblem, Linearisation

Array = NDArray[np.float64]

SINGULAR = 1e-10
"""Relative singular value of M below which K counts as singular; distance of u from its range."""

MOST_ENTRIES = 2**22
"""Entries of the factors that are decomposed at one time."""


@dataclass(frozen=True, eq=False)
class ExactControls:
    """Controls that reach every target, and how near their hypotheses are to failing.

    Attributes:
        at: The learning problem at these controls, through the forward solver.
        targets: What is reached, shape (n_local, samples).
        cost: R of the controls.
        misfit: Largest |f_s(T) - g_s| in L2(Y).
        room: Distance of v from the ends of sigma's range, at its least; inf where there are none.
        lowest_eigenvalue: Of K(t) along the path, relative to the highest; 0 where K is singular.
        lowest_at: The depth of it.
    """

    at: Linearisation
    targets: Array
    cost: float
    misfit: float
    room: float
    lowest_eigenvalue: float
    lowest_at: float

    @property
    def control(self) -> Array:
        """Local control vector in L2-orthonormal coordinates."""
        return self.at.control


def exact_controls(problem: LearningProblem, targets: Array | None = None) -> ExactControls:
    """The controls of section 6 (collective).

    Where a trained control is not regularised its lambda counts as 1: it chooses among the controls
    that do the same. Derivatives in R are not looked at, but count in the cost.

    Args:
        problem: Learning problem that trains kernel or bias, or both.
        targets: g_s at this rank's nodes, shape (n_local, samples); None: those of the loss,
            see `targets_of`.

    Raises:
        OutOfReach: A hypothesis fails; its text names it. The same on all ranks.
        SlabFailure: The forward solver cannot follow the path: its slabs are too thick for K(t).
    """
    targets = targets_of(problem) if targets is None else targets
    velocity, room = _velocity(problem, targets)
    inverse = problem.network.activation.inverse
    assert inverse is not None
    wanted = inverse(velocity)
    controls, levels, space = problem.controls, problem.network.levels, problem.network.space
    R = problem.regularization
    hx = space.sqrt_weights[space.owned]
    kernel = np.empty((levels.count, space.n_nodes, space.n_local)) if controls.has_kernel else None
    bias = np.empty((levels.count, space.n_local)) if controls.has_bias else None
    lowest, lowest_at = np.inf, 0.0
    for index, (level, t) in enumerate(_depths(levels)):
        states = problem.inputs + (t - levels.points[0]) * velocity
        gathered = space.gather(hx[:, None] * states)
        factor = GramFactor.of(controls, R.kernel or 1.0, R.bias or 1.0, gathered)
        z, ratio, distance = _least_norm(factor.matrix, wanted - _given(problem, level, gathered))
        ratio = space.comm.allreduce(ratio, op=MPI.MIN)
        distance = space.comm.allreduce(distance, op=MPI.MAX)
        if ratio < lowest:
            lowest, lowest_at = ratio, t
        if distance > SINGULAR:
            raise OutOfReach("K > 0", _why_singular(problem, t, distance))
        if index >= levels.count:
            continue
        rows, shift = factor.controls_of(z)
        scale = np.sqrt(levels.weights[level]) * hx
        if kernel is not None and rows is not None:
            kernel[level] = (scale[:, None] * rows).T
        if bias is not None and shift is not None:
            bias[level] = scale * shift
    control = controls.join(ControlParts(kernel, bias, None, None))
    _require_within_bounds(problem, control)
    at = problem.linearise(control)
    squares = space.sum(space.local_weights @ (at.state.ends[-1] - targets) ** 2)
    misfit = float(np.sqrt(np.max(squares)))
    return ExactControls(at, targets, at.regularization, misfit, room, lowest**2, lowest_at)


def _depths(levels: DepthLevels) -> list[tuple[int, float]]:
    """(level, depth at which it sees the state), all of them, then (nearest level, slab end).

    The nonlinear term sees the state at the levels, but for dg0 at the slab's far end. Slab ends
    have no controls of their own; the hypothesis is about them too.
    """
    inside = levels.steps[:, None] * levels.scheme.stages.sum(axis=1)
    seen = (levels.points[:-1, None] + inside).ravel()
    ends = [(int(np.argmin(np.abs(levels.t - t))), float(t)) for t in levels.points]
    return [*((level, float(t)) for level, t in enumerate(seen)), *ends]


def _given(problem: LearningProblem, level: int, gathered: Array) -> Array:
    """What is not trained contributes to the pre-activations, shape (n_local, samples or 1)."""
    controls, given = problem.controls, problem.given
    u: Array = np.zeros((problem.network.space.n_local, 1))
    if given.operator is not None and not controls.has_kernel:
        u = u + given.operator.apply(level, gathered)
    if given.bias is not None and not controls.has_bias:
        u = u + given.bias[level]
    return u


def _velocity(problem: LearningProblem, targets: Array) -> tuple[Array, float]:
    """v, and how far it stays from the ends of sigma's range; refuses what is outside."""
    network, controls = problem.network, problem.controls
    activation, space = network.activation, network.space
    if not controls.has_kernel and not controls.has_bias:
        raise OutOfReach("trained", "neither kernel nor bias is trained")
    if controls.outputs:
        raise OutOfReach("trained", "the output layer is learned too: its targets are no states")
    if activation.inverse is None:
        raise OutOfReach("inverse", f"the inverse of the activation {activation.name} is not known")
    T = float(network.levels.points[-1] - network.levels.points[0])
    v = np.asarray((targets - problem.inputs) / T, np.float64)
    low, high = activation.range
    # ReLU takes the value at the end of its range, the others only come near.
    attained = activation.name == "relu"
    room = np.asarray(np.minimum(v - low, high - v), np.float64)
    everywhere = space.to_file_order(room, axis=0)
    least = float(np.min(everywhere))
    if least < 0 or (least == 0 and not attained):
        node, sample = np.unravel_index(int(np.argmin(everywhere)), everywhere.shape)
        moves = T * space.to_file_order(v, axis=0)[node, sample]
        x = ", ".join(f"{c:.6g}" for c in space.nodes[node])
        raise OutOfReach(
            "range",
            f"sample {sample} is to move by {moves:.6g} at x = ({x}), and {activation.name} "
            f"reaches {_interval(low * T, high * T)} within the depth T = {T:.6g}",
        )
    return v, least


def _interval(low: float, high: float) -> str:
    if np.isinf(high):
        return f"no less than {low:.6g}"
    return f"({low:.6g}, {high:.6g})"


def _least_norm(M: Array, u: Array) -> tuple[Array, float, float]:
    """z of least norm with M z = u at this rank's nodes; how singular M is, how far u from it.

    Returns:
        z, shape (n_local, columns); lowest singular value of M over the highest, 0 where K is
        singular; |M z - u| relative to |u|, at most, where |u| > 1, else absolute.
    """
    shared = len(M) == 1
    right = u.T[None] if shared else u[:, :, None]
    z = np.empty((len(M), M.shape[2], right.shape[2]))
    lowest, farthest = np.inf, 0.0
    chunk = max(1, MOST_ENTRIES // (M.shape[1] * M.shape[2]))
    for start in range(0, len(M), chunk):
        part = slice(start, start + chunk)
        left, values, rows = np.linalg.svd(M[part], full_matrices=False)
        kept = values > SINGULAR * values[:, :1]
        inverse = np.where(kept, 1 / np.where(kept, values, 1.0), 0.0)
        z[part] = rows.transpose(0, 2, 1) @ (
            inverse[:, :, None] * (left.transpose(0, 2, 1) @ right[part])
        )
        error = M[part] @ z[part] - right[part]
        farthest = max(farthest, float(np.max(np.abs(error), initial=0.0)))
        ratios = np.where(kept, values, 0.0)[values[:, 0] > 0]
        if ratios.shape[1] < M.shape[1]:
            lowest = 0.0
        lowest = min(lowest, float(np.min(ratios[:, -1:] / ratios[:, :1], initial=np.inf)))
    solution = z[0].T if shared else z[:, :, 0]
    return solution, lowest, farthest / max(1.0, float(np.max(np.abs(u), initial=0.0)))


def _why_singular(problem: LearningProblem, t: float, distance: float) -> str:
    controls, samples = problem.controls, problem.inputs.shape[1]
    nodes = problem.network.space.n_nodes
    text = (
        f"K(t) is singular at the depth {t:.6g} of the straight path, and the pre-activations that "
        f"it needs are not in its range (distance {distance:.1e})"
    )
    rank = (nodes if controls.has_kernel else 0) + (1 if controls.has_bias else 0)
    if not controls.has_kernel:
        return f"{text}: a bias alone moves all samples alike"
    if samples > rank:
        return f"{text}: {samples} samples, and {nodes} nodes give K at most the rank {rank}"
    if controls.mask is not None:
        return f"{text}: perhaps the mask leaves some neuron too few connections"
    return f"{text}: some samples coincide or depend on each other there"


def _require_within_bounds(problem: LearningProblem, control: Array) -> None:
    beyond = np.max(np.abs(problem.controls.project(control) - control), initial=0.0)
    if problem.controls.any_rank(bool(beyond > 0)):
        raise OutOfReach("bounds", "the controls of the straight path leave their box bounds")
