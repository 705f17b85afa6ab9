"""A critical point that violates Pontryagin's principle can be improved on: by how much.

Where other controls make the Hamiltonian lower on a set of depths, taking them there lowers J to
first order in the set's length; on a depth mesh that length may be too large for the first order to
count. So descents start where the pointwise minimisers are taken over all the depth, over its
halves, and at the one level with the largest gap.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fem_dnn.checks.check import ROUND_OFF, Check, not_applicable
from fem_dnn.checks.features import pointwise, why_not_pointwise
from fem_dnn.checks.pontryagin import SOURCE, lowest_found, pontryagin_minimum
from fem_dnn.checks.second_order import stationarity
from fem_dnn.checks.subject import Subject
from fem_dnn.controls import ControlParts
from fem_dnn.problem import Linearisation
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers import Tolerances, solve_newton

Array = NDArray[np.float64]


def pontryagin_improvement(subject: Subject, tolerances: Tolerances, *, seed: int = 0) -> Check:
    """Lowest change of J, relative, by descents from the pointwise minimisers (collective).

    Args:
        subject: What is checked.
        tolerances: When the descent ends; the initial gradient norm is that of its own start.
        seed: Seed of the search for the minimisers.
    """
    name = "pontryagin_improvement"
    why = why_not_pointwise(subject)
    if why is None and not np.isfinite(subject.network.activation.curvature):
        why = f"{subject.network.activation.name} has a kink"
    if why is None and not stationarity(subject, tolerances).holds:
        why = "these are no critical controls: any descent improves on them (see stationarity)"
    if why is None and pontryagin_minimum(subject, seed=seed).holds:
        why = "no controls are known that make the Hamiltonian lower (see pontryagin_minimum)"
    if why is not None:
        return not_applicable(name, why, SOURCE)
    at = subject.at
    assert at is not None, "why_not_pointwise says so"
    best, where = at.objective, ""
    for taken, start in _trials(at, subject, seed):
        try:
            solution = solve_newton(at.problem, start, tolerances)
        except SlabFailure:
            continue
        if solution.objective < best:
            best, where = solution.objective, taken
    change = (best - at.objective) / max(abs(at.objective), 1e-300)
    holds = change > -ROUND_OFF
    text = (
        "controls are known that make the Hamiltonian lower, but descents that start from them do "
        "not end lower on this depth mesh: a finer one may show that they do"
    )
    if not holds:
        text = (
            f"a descent from the minimisers of the Hamiltonian taken {where} ends at "
            f"J = {best:.8g} instead of {at.objective:.8g}: the computed controls are no global "
            "minimiser"
        )
    return Check(name, holds, change, 0.0, text, SOURCE)


def _trials(at: Linearisation, subject: Subject, seed: int) -> Iterator[tuple[str, Array]]:
    """Where in depth the minimisers are taken, and the control that takes them there."""
    minimisers, gaps = _pointwise_minimisers(at, subject, seed)
    count, levels = subject.levels.count, np.arange(subject.levels.count)
    worst = int(np.argmax(gaps))
    trials = {
        "at all depths": levels >= 0,
        "in the first half of the depth": levels < count // 2,
        "in the second half of the depth": levels >= count // 2,
        f"at t = {subject.levels.t[worst]:.6g}": levels == worst,
    }
    controls, own = at.problem.controls, at.problem.controls.split(at.control)
    for name, taken in trials.items():
        kernel = bias = None
        if own.kernel is not None and minimisers.kernel is not None:
            kernel = np.where(taken[:, None, None], minimisers.kernel, own.kernel)
        if own.bias is not None and minimisers.bias is not None:
            bias = np.where(taken[:, None], minimisers.bias, own.bias)
        yield name, controls.join(ControlParts(kernel, bias, own.outputs, own.offsets))


def _pointwise_minimisers(
    at: Linearisation, subject: Subject, seed: int
) -> tuple[ControlParts, Array]:
    """Controls that minimise H at every level and node, and how much lower H is, (levels,).

    At a minimiser u the controls are a = Sum_s q_s f_s / lambda_a and b = Sum_s q_s / lambda_b with
    q = -c sigma'(u); nodes where the computed controls are the best keep them.
    """
    problem, space, activation = at.problem, subject.network.space, subject.network.activation
    controls, R, operator = problem.controls, problem.regularization, subject.weights.operator
    parts = controls.split(at.control)
    kernel = None if parts.kernel is None else parts.kernel.copy()
    bias = None if parts.bias is None else parts.bias.copy()
    states, gaps = subject.level_states(), np.zeros(subject.levels.count)
    rng = np.random.default_rng(seed)
    for level in range(subject.levels.count):
        point = pointwise(subject, level, states)
        lowest, u = lowest_found(activation, point, rng)
        gap = point.cost - lowest
        gaps[level] = float(space.sum(space.local_weights @ gap))
        better = gap > 0
        q = -point.c * activation.evaluate(u, 1)[1]
        if kernel is not None and operator is not None:
            fresh = operator.outer(level, q, operator.gather(states[level])) / R.kernel
            if controls.mask is not None:
                fresh *= controls.mask
            kernel[level][:, better] = fresh[:, better]
        if bias is not None:
            fresh = controls.bias_scale[level] * q.sum(axis=1) / R.bias
            bias[level, better] = fresh[better]
    return ControlParts(kernel, bias, parts.outputs, parts.offsets), gaps
