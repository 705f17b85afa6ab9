"""Bounds of state and adjoint along the depth, each with its explicit constant.

Theory.md section 1, L = Lip(sigma), norms in L2(Y), Hilbert-Schmidt for the kernel:

    |f(t)| <= (|f_I| + int_0^t (|sigma(0)| |Y|^{1/2} + L|b|)) exp(L int_0^t |a|)
    |p(t)| <= (|p(T)| + mu int_t^T |f - g|) exp(L int_t^T |a|)
    |f(t)|_inf <= |f_I|_inf + t sup|sigma|

The norms of a discrete solution are those of the discrete problem: depth integrals are sums over
the control levels; states at the levels inside a slab are held against the bound at its far end.
resnet obeys the first and the last exactly (1 + x <= e^x); dg schemes do once they resolve the
depth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.checks.causes import likely_cause
from fem_dnn.checks.check import ROUND_OFF, Check, not_applicable
from fem_dnn.checks.subject import Subject

Array = NDArray[np.float64]

SOURCE = "theory.md section 1 (Gronwall)"


@dataclass(frozen=True, eq=False)
class Growth:
    """A norm along the depth and its bound.

    Attributes:
        t: Slab ends, shape (layers + 1,).
        norms: Largest norm per slab end and the slab that it closes, (layers + 1, samples).
        bounds: Their bounds, same shape.
        start: Slab end at which both are the same number, by definition.
    """

    t: Array
    norms: Array
    bounds: Array
    start: int = 0

    @property
    def excess(self) -> Array:
        """norm / bound - 1, (layers + 1, samples); 0 / 0 counts as attained."""
        ratio = np.ones_like(self.norms)
        positive = self.bounds > 0
        np.divide(self.norms, self.bounds, out=ratio, where=positive)
        ratio[~positive & (self.norms > 0)] = np.inf
        return ratio - 1

    @property
    def worst(self) -> tuple[int, int]:
        """Slab end and sample where the bound is closest, or violated most."""
        excess = self.excess
        excess[self.start] = -np.inf
        n, s = np.unravel_index(int(np.argmax(excess)), excess.shape)
        return int(n), int(s)


def _with_levels(ends: Array, levels: Array, layers: int, *, backwards: bool = False) -> Array:
    """The larger of a slab's far end and its levels: (layers + 1, S) and (levels, S)."""
    inside = levels.reshape(layers, -1, levels.shape[-1]).max(axis=1)
    result: Array = ends.copy()
    far = slice(None, -1) if backwards else slice(1, None)
    result[far] = np.maximum(result[far], inside)
    return result


def state_growth(subject: Subject) -> Growth:
    """|f_s(t)| and its bound along the depth (collective)."""
    network, levels = subject.network, subject.levels
    L = network.activation.lipschitz
    at_zero = abs(float(network.activation(np.zeros(1))[0]))
    area = float(np.sum(network.space.weights))
    source = subject.integral(at_zero * np.sqrt(area) + L * subject.bias_norms())
    growth = np.exp(L * subject.integral(subject.kernel_norms()))
    ends = subject.norms(subject.state.ends)
    bounds = (subject.norms(subject.inputs) + source[:, None]) * growth[:, None]
    inside = subject.norms(subject.level_states())
    return Growth(levels.points, _with_levels(ends, inside, levels.layers), bounds)


def adjoint_growth(subject: Subject) -> Growth:
    """|p_s(t)| and its bound along the depth (collective)."""
    at, levels = subject.at, subject.levels
    assert at is not None, "there is no adjoint without a loss"
    mu = 0.0
    source: Array = np.zeros((levels.layers + 1, subject.inputs.shape[1]))
    tracking = at.problem.tracking
    if tracking is not None:
        mu = tracking.weight
        source = subject.integral(subject.norms(at.state.tracked - tracking.targets))
    grown = subject.network.activation.lipschitz * subject.integral(subject.kernel_norms())
    ends = subject.norms(at.adjoint.ends)
    start = subject.norms(at.loss_point.terminal)
    to_come = mu * (source[-1] - source)
    bounds = (start + to_come) * np.exp(grown[-1] - grown)[:, None]
    inside = subject.norms(at.adjoint.levels)
    norms = _with_levels(ends, inside, levels.layers, backwards=True)
    return Growth(levels.points, norms, bounds, start=-1)


def sup_growth(subject: Subject) -> Growth:
    """|f_s(t)|_inf at the nodes and its bound along the depth (collective)."""
    levels, comm = subject.levels, subject.network.space.comm

    def sup(values: Array) -> Array:
        local = np.max(np.abs(values), axis=-2, initial=0.0)
        result = np.empty_like(local)
        comm.Allreduce(local, result, op=MPI.MAX)
        return result

    rise = levels.points[:, None] - levels.points[0]
    bounds = sup(subject.inputs) + rise * subject.network.activation.supremum
    norms = _with_levels(sup(subject.state.ends), sup(subject.level_states()), levels.layers)
    return Growth(levels.points, norms, bounds)


def state_bound(subject: Subject) -> Check:
    """|f_s(t)| <= (|f_I| + int (|sigma(0)| |Y|^{1/2} + L|b|)) exp(L int |a|) (collective)."""
    statement = "|f(t)| <= (|f_I| + int_0^t (|sigma(0)| |Y|^(1/2) + L|b|)) exp(L int_0^t |a|)"
    if not np.isfinite(subject.network.activation.lipschitz):
        return not_applicable("state_bound", "the activation is not Lipschitz", SOURCE)
    return _judge("state_bound", statement, subject, state_growth)


def adjoint_bound(subject: Subject) -> Check:
    """|p_s(t)| <= (|p_s(T)| + mu int |f - g|) exp(L int |a|) (collective)."""
    statement = "|p(t)| <= (|p(T)| + mu int_t^T |f - g|) exp(L int_t^T |a|)"
    if subject.at is None:
        return not_applicable("adjoint_bound", "there are no targets, so no adjoint", SOURCE)
    if not np.isfinite(subject.network.activation.lipschitz):
        return not_applicable("adjoint_bound", "the activation is not Lipschitz", SOURCE)
    return _judge("adjoint_bound", statement, subject, adjoint_growth)


def sup_bound(subject: Subject) -> Check:
    """|f_s(t)|_inf <= |f_I|_inf + t sup|sigma| (collective)."""
    activation = subject.network.activation
    if not np.isfinite(activation.supremum):
        return not_applicable("sup_bound", f"{activation.name} is not bounded", SOURCE)
    return _judge("sup_bound", "|f(t)|_inf <= |f_I|_inf + t sup|sigma|", subject, sup_growth)


def _judge(
    name: str, statement: str, subject: Subject, growth_of: Callable[[Subject], Growth]
) -> Check:
    growth = growth_of(subject)
    n, s = growth.worst
    value, bound = float(growth.norms[n, s]), float(growth.bounds[n, s])
    excess = float(growth.excess[n, s])
    holds = excess <= ROUND_OFF
    text = f"{statement}; closest at t = {growth.t[n]:.6g}, sample {s}: ratio {1 + excess:.6g}"
    if not holds:
        why = likely_cause(subject, lambda other: float(np.max(growth_of(other).excess)))
        text = f"{text}; {why}"
    return Check(name, holds, value, bound, text, SOURCE)
