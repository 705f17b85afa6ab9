"""Is the computed control a critical point, and of which kind (theory.md section 4)?"""

from __future__ import annotations

import numpy as np

from fem_dnn.active_set import ActiveSet
from fem_dnn.checks.check import Check, not_applicable
from fem_dnn.checks.subject import Subject
from fem_dnn.solvers import Tolerances
from fem_dnn.solvers.curvature import lowest_eigenpair
from fem_dnn.solvers.petsc import PetscProblem

SOURCE = "theory.md section 4"


def stationarity(subject: Subject, tolerances: Tolerances) -> Check:
    """|grad J| <= max(atol, rtol |grad J| at the initial guess) (collective)."""
    name, at = "stationarity", subject.at
    if at is None or at.problem.controls.n_global == 0:
        return not_applicable(name, "nothing is trained", SOURCE)
    start = at
    if subject.initial is not None:
        start = at.problem.linearise(at.problem.controls.project(subject.initial))
    bound = tolerances.target(start.gradient_norm)
    value = at.gradient_norm
    holds = bool(value <= bound)
    which = "projected reduced" if subject.bounded else "reduced"
    text = (
        f"L2 norm of the {which} gradient against the case's tolerance max(solver.atol, "
        f"solver.rtol times {start.gradient_norm:.6g}, its value at the initial guess)"
    )
    if not holds:
        text += "; this is not a critical point: what the other checks say of optima need not hold"
    return Check(name, holds, value, bound, text, SOURCE)


def second_order(subject: Subject, *, tolerance: float = 1e-6) -> Check:
    """The lowest eigenvalue of the reduced Hessian in L2 is positive (collective).

    The computed pair (value, v), |v| = 1, has the residual r = |Hv - value v|: an eigenvalue lies
    within r of the value, and the lowest one is at most the value. So value < 0 proves a direction
    of descent; value > r is evidence, by a converged Lanczos process, of a strict local minimum.

    Args:
        subject: What is checked.
        tolerance: Residual asked of the eigensolver, relative to the largest Tikhonov weight.
    """
    name, at = "second_order", subject.at
    if at is None or at.problem.controls.n_global == 0:
        return not_applicable(name, "nothing is trained", SOURCE)
    activation = subject.network.activation
    scale = max([*at.problem.regularization.weights, 1e-6])
    active, where = ActiveSet.of(at), ""
    if active is not None:
        if active.free_count == 0:
            return not_applicable(name, "a bound holds every control: first order decides", SOURCE)
        where = f" on the {active.free_count} controls that no bound holds"
        if active.weak_count:
            where += f", {active.weak_count} of them at a bound with the multiplier 0"
    petsc = PetscProblem(at.problem)
    free = None if active is None else active.free
    pair = lowest_eigenpair(petsc, at, free=free, tolerance=tolerance * scale)
    petsc.destroy()
    if pair is None:
        why = "the eigensolver did not converge in its limit of restarts"
        return not_applicable(name, why, SOURCE)
    text = (
        f"lowest eigenvalue of the reduced Hessian in L2{where}, with an eigenvalue within "
        f"{pair.residual:.1e} of it"
    )
    if not activation.smooth:
        kinks = at.problem.network.space.sum(np.array(np.count_nonzero(at.state.u == 0)))
        text += (
            f"; {activation.name} has a kink: the Hessian is that of the smooth pieces, and "
            f"{int(kinks)} of the pre-activations are exactly at the kink, where it proves nothing"
        )
        if kinks:
            return Check(name, None, pair.value, 0.0, text, SOURCE)
    if pair.value < -pair.residual:
        text += "; negative: J falls along its eigenvector, this is a saddle or a maximum"
        holds: bool | None = False
    elif pair.value > pair.residual:
        text += (
            "; positive: a strict local minimum of the discrete problem if it is stationary (see "
            "stationarity). For the continuous problem in L2 that is not enough: its objective is "
            "twice differentiable only in a stronger norm (two-norm discrepancy)"
        )
        holds = True
    else:
        text += "; zero to this accuracy: degenerate, the second order does not decide"
        holds = False
    return Check(name, holds, pair.value, 0.0, text, SOURCE)
