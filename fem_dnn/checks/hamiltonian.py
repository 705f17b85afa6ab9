"""The Hamiltonian along the depth (theory.md section 7).

    H(t) = sum_s w_s <p_s, sigma(u_s)> + (lambda_a/2)|a|^2 + (lambda_b/2)|b|^2
           + (mu/2) sum_s w_s |f_s - g_s|^2

is constant at critical points of problems in which nothing but the controls depends on t.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fem_dnn.checks.check import Check, not_applicable
from fem_dnn.checks.subject import Subject
from fem_dnn.depth import lagrange_basis
from fem_dnn.error_estimate import improve
from fem_dnn.problem import Linearisation
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers import Tolerances, solve_newton

Array = NDArray[np.float64]

EXCUSED = 1e-6
"""Relative variation of H that the gradient left over may explain at a critical point."""

WITHIN_BOUNDS = 20
"""Newton steps to better controls within bounds."""

SOURCE = "theory.md section 7 (Pontryagin)"


def hamiltonian(subject: Subject) -> Array:
    """H at the control levels, shape (levels,) (collective).

    The tracking cost is that at the level's tracking point (for resnet the slab's middle).
    """
    at = subject.at
    assert at is not None, "there is no Hamiltonian without a loss"
    problem, space, state = at.problem, subject.network.space, subject.state
    w, R = problem.sample_weights, problem.regularization
    slope = subject.network.activation(state.u)
    density = (at.adjoint.levels * slope) @ w @ space.local_weights
    H = space.sum(density)
    H = H + 0.5 * R.kernel * subject.kernel_norms() ** 2 + 0.5 * R.bias * subject.bias_norms() ** 2
    if problem.tracking is not None:
        misfit = subject.norms(state.tracked - problem.tracking.targets)
        H = H + 0.5 * problem.tracking.weight * misfit**2 @ w
    result: Array = H
    return result


def why_not_autonomous(subject: Subject) -> str | None:
    """What besides the controls depends on the depth, or derives them in it (collective)."""
    at = subject.at
    if at is None:
        return "there are no targets, so no adjoint"
    if subject.smoothed:
        return "derivatives of the controls are penalised: H has further terms"
    tracking, weights, controls = at.problem.tracking, subject.weights, at.problem.controls
    any_rank = controls.any_rank
    if tracking is not None and any_rank(_varies(tracking.targets)):
        return "the tracking targets depend on t"
    if weights.bias is not None and not controls.has_bias and any_rank(_varies(weights.bias)):
        return "the given bias depends on t"
    if weights.operator is not None and not controls.has_kernel:
        root = np.sqrt(subject.levels.weights)[:, None, None]
        if any_rank(_varies(weights.operator.coefficients / root)):
            return "the given kernel depends on t"
    return None


def _varies(values: Array) -> bool:
    size = float(np.max(np.abs(values), initial=0.0))
    return bool(np.max(np.abs(values - values[:1]), initial=0.0) > 1e-13 * size)


def hamiltonian_constant(subject: Subject) -> Check:
    """(max H - min H) / max |H| over the levels is a discretisation error (collective).

    The error is measured on halved slabs: where an error of order p >= 1 falls to half or less, its
    variation is at most twice that of the difference. At a critical point the controls are
    optimised there too, as the error is also theirs; others are kept, so that they cannot excuse
    themselves.
    """
    name = "hamiltonian_constant"
    why = why_not_autonomous(subject)
    if why is not None:
        return not_applicable(name, why, SOURCE)
    at = subject.at
    assert at is not None
    H = hamiltonian(subject)
    size = max(float(np.max(np.abs(H))), 1e-14)
    value = float(np.max(H) - np.min(H)) / size
    critical = _gradient_part(at) <= EXCUSED * size
    try:
        finer = _at_coarse_levels(subject, hamiltonian(_refined(subject, critical)))
    except SlabFailure as failure:
        why = f"the same controls cannot be run on halved slabs: {failure}"
        return Check(name, None, value, None, why, SOURCE)
    change = H - finer
    difference = float(np.max(change) - np.min(change)) / size
    bound = 2 * difference + 1e-11
    holds = bool(value <= bound)
    again = "optimised again" if critical else "the same"
    text = (
        f"relative variation of H over the levels (mean {np.mean(H):.10g}); bound: twice the "
        f"variation of its change on halved slabs, the controls {again} ({difference:.2e})"
    )
    if not holds:
        text += f"; likely cause: {_why_varying(at, size)}"
    return Check(name, holds, value, bound, text, SOURCE)


def _why_varying(at: Linearisation, size: float) -> str:
    if not at.problem.controls.n_global:
        return "nothing is trained, and H is constant at critical points only"
    if _gradient_part(at) / size > EXCUSED:
        return f"these controls are not a critical point (|grad J| = {at.gradient_norm:.2e})"
    return (
        "the depth mesh is too coarse for the estimate, the controls jump (pontryagin_minimum then "
        "fails too), or state and adjoint were altered"
    )


def _refined(subject: Subject, critical: bool) -> Subject:
    """On halved slabs with the same controls or, at a critical point, with better ones."""
    finer = subject.refined()
    if not critical or finer.at is None or not finer.at.problem.controls.n_global:
        return finer
    assert subject.at is not None
    better = _better(finer.at, subject.at)
    return replace(finer, weights=better.weights, state=better.state, at=better)


def _better(at: Linearisation, coarse: Linearisation) -> Linearisation:
    """A better control on halved slabs, within the bounds where there are any."""
    if at.problem.controls.box is None:
        return improve(at, coarse.objective)[0]
    enough = Tolerances(rtol=0.0, atol=coarse.gradient_norm, max_iterations=WITHIN_BOUNDS)
    return solve_newton(at.problem, at.control, enough, escape=False).at


def _at_coarse_levels(subject: Subject, fine: Array) -> Array:
    """H on halved slabs, at the levels of the whole ones: by each half's own polynomial."""
    points = subject.levels.scheme.points
    halves = fine.reshape(subject.levels.layers, 2, len(points))
    result = np.empty((subject.levels.layers, len(points)))
    for i, c in enumerate(points):
        half = int(c > 0.5)
        local = 2 * c - half
        result[:, i] = halves[:, half] @ np.array([phi(local) for phi in lagrange_basis(points)])
    return result.ravel()


def _gradient_part(at: Linearisation) -> float:
    """|grad J|^2 / (lambda omega): what a gradient left at one level can do to H there."""
    weight = at.problem.regularization.least_weight
    if weight is None:
        return 0.0
    omega = float(np.min(at.problem.network.levels.weights))
    return at.gradient_norm**2 / (weight * omega)
