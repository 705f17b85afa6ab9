"""What no controls can change: the range of f(t) - f_I, its price in the loss, equal samples.

As d_t f = sigma(u), a sigma with values in [low, high] moves f by between low t and high t
(theory.md section 1):

    ReLU f(t) >= f_I,    sigmoid 0 < f(t) - f_I < t,    tanh |f(t) - f_I| < t.

At the slab ends every scheme obeys this exactly, its weights being positive. Between them a dg
state is a polynomial, which overshoots where sigma(u) changes much within one slab. The strict
inequalities are those of exact arithmetic: a saturated sigma equals its supremum in round-off.
"""

from __future__ import annotations

import math

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.checks.causes import likely_cause
from fem_dnn.checks.check import ROUND_OFF, Check, not_applicable
from fem_dnn.checks.subject import Subject
from fem_dnn.controllability import floors

Array = NDArray[np.float64]

SOURCE = "theory.md section 1 (invariants)"


def _excess(subject: Subject) -> float:
    """max over nodes and samples of how far f(t) - f_I leaves [low t, high t], relative to T."""
    low, high = subject.network.activation.range
    levels, state, comm = subject.levels, subject.state, subject.network.space.comm
    T = float(levels.points[-1] - levels.points[0])

    def beyond(t: Array, f: Array) -> float:
        moved = f - subject.inputs
        worst = -math.inf
        for depth, change in zip(t - levels.points[0], moved, strict=True):
            if math.isfinite(low):
                worst = max(worst, float(np.max(low * depth - change, initial=-math.inf)))
            if math.isfinite(high):
                worst = max(worst, float(np.max(change - high * depth, initial=-math.inf)))
        return worst

    worst = beyond(levels.points[1:], state.ends[1:])
    if not levels.scheme.explicit:
        # The depth that a level's state stands for: dg0's is the slab's far end.
        inside = levels.steps[:, None] * levels.scheme.stages.sum(axis=1)
        t = (levels.points[:-1, None] + inside).ravel()
        worst = max(worst, beyond(t, subject.level_states()))
    return comm.allreduce(worst, op=MPI.MAX) / T


def state_range(subject: Subject) -> Check:
    """low t <= f(t) - f_I <= high t with low, high the range of sigma (collective)."""
    name = "state_range"
    low, high = subject.network.activation.range
    if not math.isfinite(low) and not math.isfinite(high):
        why = f"{subject.network.activation.name} takes all values"
        return not_applicable(name, why, SOURCE)
    value = _excess(subject)
    scale = float(np.max(subject.norms(subject.state.ends))) / subject.levels.points[-1]
    holds = bool(value <= ROUND_OFF * max(1.0, scale))
    upper = "" if math.isinf(high) else f" <= {high:.4g} t"
    statement = f"{low:.4g} t <= f(t) - f_I{upper} at slab ends and levels"
    text = f"{statement}; value: the excess over it, divided by T (negative where it is kept)"
    if not holds:
        text = f"{text}; {likely_cause(subject, _excess)}"
    return Check(name, holds, value, 0.0, text, SOURCE)


def loss_floor(subject: Subject) -> Check:
    """The terminal loss is at least what no controls can remove (collective).

    For the l2 loss and one sample (weight / 2) |g - [f_I + low T, f_I + high T]|^2, with the
    distance of a number from an interval; see `controllability.floors`.
    """
    name = "loss_floor"
    if subject.at is None:
        return not_applicable(name, "there are no targets, so no loss", SOURCE)
    problem = subject.at.problem
    floor = floors.loss_floor(problem)
    value = float(problem.sample_weights @ subject.at.loss_point.values)
    holds = value >= floor.value * (1 - ROUND_OFF)
    share = floor.value / value if value > 0 else 0.0
    text = (
        "the terminal loss (value) is at least what no kernel or bias can remove (bound, "
        f"{share:.3%} of it): {floor.by_range:.6g} because of targets beyond f_I + T [low, high]"
    )
    if floor.together:
        text += f", {floor.by_groups:.6g} because {floor.together} samples cannot part"
    if not holds:
        text = f"{text}; {likely_cause(subject, lambda other: _floor_excess(other, floor.value))}"
    return Check(name, holds, value, floor.value, text, SOURCE)


def _floor_excess(subject: Subject, bound: float) -> float:
    at = subject.at
    assert at is not None
    return bound - float(at.problem.sample_weights @ at.loss_point.values)


def identical_samples(subject: Subject) -> Check:
    """Samples with equal inputs have equal states at every depth (collective).

    Tested on samples of the data that coincide; where there are none, on a copy of the first one.
    """
    name = "identical_samples"
    pairs = _equal_columns(subject)
    if pairs:
        where = f"{len(pairs)} samples of the data that repeat another"
        ends = subject.state.ends
        differences = [ends[:, :, a] - ends[:, :, b] for a, b in pairs]
        distance = max(float(np.max(subject.norms(d[..., None]))) for d in differences)
        tested = subject
    else:
        where = "a copy of sample 0, solved among the others"
        kept = min(subject.inputs.shape[1], 32)
        inputs = np.concatenate([subject.inputs[:, :kept], subject.inputs[:, :1]], axis=1)
        tested = subject.with_weights(subject.weights, inputs)
        difference = tested.state.ends[:, :, :1] - tested.state.ends[:, :, -1:]
        distance = float(np.max(subject.norms(difference)))
    size = max(float(np.max(subject.norms(subject.state.ends))), 1e-14)
    lipschitz = subject.network.activation.lipschitz
    growth = math.exp(min(lipschitz * float(subject.integral(subject.kernel_norms())[-1]), 700.0))
    value, bound = distance / size, ROUND_OFF * growth
    holds = bool(value <= bound)
    text = (
        f"equal inputs give equal states; tested on {where}; value: relative distance, bound: "
        "round-off grown by exp(L int |a|)"
    )
    if not holds:
        text = f"{text}; {likely_cause(tested, lambda _: value)}"
    return Check(name, holds, value, bound, text, SOURCE)


def _equal_columns(subject: Subject, most: int = 32) -> list[tuple[int, int]]:
    """Pairs of samples with exactly equal inputs, up to a number; the same on every rank."""
    space = subject.network.space
    columns = space.gather(subject.inputs).T
    _, first, inverse = np.unique(columns, axis=0, return_index=True, return_inverse=True)
    partner = first[inverse.ravel()]
    repeated = np.flatnonzero(partner != np.arange(len(partner)))
    return [(int(partner[s]), int(s)) for s in repeated[:most]]
