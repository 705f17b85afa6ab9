"""Marching equations whose nodes meet in S x S matrices, block of nodes by block of nodes.

State, tangent and adjoints in Gram form are all of one kind: the slope at a node depends on the
node's own data and on a few S x S matrices M per level, which are sums over the nodes,

    d_t y = slopes(M),   M = sum over nodes of what `Flow.meet` says.

So a slab is two passes over the nodes: one that sums M, one that takes the step. Both go by blocks
of nodes that stay in the processor's cache. Where M is known already the first pass has nothing to
sum, and implicit slabs nothing to solve. Their stages couple the samples: `slab.solve_stages` is
given them as one long sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fem_dnn.gram.form import GramForm
from fem_dnn.slab import combine, solve_stages

Array = NDArray[np.float64]


class Flow(Protocol):
    """An equation d_t y = slopes(M)."""

    keeps: bool
    """Whether `meet` has something to keep of a solved slab."""

    def meet(self, part: slice, *, solved: bool) -> Callable[[slice, Array], Array]:
        """(nodes, y there at a slab's levels) -> their part of M, shape (levels, ..., S, S).

        Args:
            part: The slab's levels.
            solved: Whether y solves the slab: what is wanted of it can be kept.
        """

    def slopes(self, part: slice, M: Array) -> Callable[[slice], Array]:
        """Nodes -> the slopes there at a slab's levels, (levels, nodes, S), a new array."""


# An overflow shows in the state, which the caller judges: no warnings on the way.
@np.errstate(over="ignore", invalid="ignore")
def march(
    form: GramForm,
    flow: Flow,
    ends: Array,
    stages: Array,
    tracked: Array,
    known: Array | None = None,
) -> Array:
    """March forward from ends[0] (collective, unless M is known).

    Args:
        form: Levels and blocks.
        flow: The equation.
        ends: y at the slab ends, shape (layers + 1, n_local, S): the first given, others filled.
        stages: Filled with y at the levels; a view of `ends` where the scheme is explicit.
        tracked: Filled with y at the tracking points, or empty.
        known: M where it is known.

    Returns:
        M at the levels, shape (levels, ..., S, S).
    """
    levels, scheme = form.network.levels, form.network.levels.scheme
    guess, points, found = None, len(scheme.tracking_points), []
    for n, part in enumerate(form.slabs()):
        y, tau = ends[n], levels.steps[n]
        start = np.broadcast_to(y, (scheme.levels, *y.shape))
        M = None if known is None else known[part]
        Y, guess = _stages(form, flow, n, part, start, scheme.stages, M, guess)
        if not scheme.explicit:
            stages[part] = Y
            guess = None if guess is None else combine(scheme.extrapolation, guess)
        M = _meet(form, flow, part, Y, M)
        slopes = flow.slopes(part, M)
        inside = tracked[n * points : (n + 1) * points]
        for rows in reversed(form.blocks):
            z = slopes(rows)
            if len(inside):
                inside[:, rows] = y[rows] + tau * combine(scheme.tracking_stages, z)
            _advance(y[rows], tau * scheme.weights, z, ends[n + 1, rows])
        found.append(M)
    return np.concatenate(found)


@np.errstate(over="ignore", invalid="ignore")
def march_back(
    form: GramForm, flow: Flow, p: Array, residuals: Array, known: Array | None = None
) -> Array:
    """March an adjoint back, -d_t p = slopes + r (collective, unless M is known).

    Args:
        form: Levels and blocks.
        flow: The equation.
        p: Its value at the end, shape (n_local, S); overwritten by that at the start.
        residuals: r, what the tracking points feed, shape (points, n_local, S) or empty.
        known: M where it is known.

    Returns:
        M at the levels, shape (levels, ..., S, S).
    """
    levels, scheme = form.network.levels, form.network.levels.scheme
    guess, points, found = None, len(scheme.tracking_points), []
    for n, part in reversed(list(enumerate(form.slabs()))):
        tau = levels.steps[n]
        start = np.broadcast_to(p, (scheme.levels, *p.shape))
        if len(residuals):
            r = residuals[n * points : (n + 1) * points]
            start = start + tau * combine(scheme.adjoint_tracking, r)
            p += tau * combine(scheme.tracking_weights, r)
        M = None if known is None else known[part]
        P, guess = _stages(form, flow, n, part, start, scheme.adjoint_stages, M, guess)
        guess = None if guess is None else combine(scheme.extrapolation[::-1, ::-1], guess)
        M = _meet(form, flow, part, P, M)
        slopes = flow.slopes(part, M)
        for rows in reversed(form.blocks):
            _advance(p[rows], tau * scheme.weights, slopes(rows), p[rows])
        found.append(M)
    return np.concatenate(found[::-1])


def _stages(
    form: GramForm,
    flow: Flow,
    n: int,
    part: slice,
    start: Array,
    tableau: Array,
    M: Array | None,
    guess: Array | None,
) -> tuple[Array, Array | None]:
    """The stages of slab n, and the slopes there where they had to be found."""
    levels, shape = form.network.levels, start.shape
    if levels.scheme.explicit:
        return start, None

    def everywhere(M: Array) -> Array:
        slopes, z = flow.slopes(part, M), np.empty(shape)
        for rows in form.blocks:
            z[:, rows] = slopes(rows)
        return z

    if M is not None:
        return start + levels.steps[n] * combine(tableau, everywhere(M)), None

    def slopes(Y: Array) -> Array:
        meet = flow.meet(part, solved=False)
        return _joined(everywhere(_summed(form, meet, Y.reshape(shape))))

    interval = (float(levels.points[n]), float(levels.points[n + 1]))
    first = np.zeros(shape) if guess is None else guess
    Y, z = solve_stages(
        tableau, interval, _joined(start), slopes, _joined(first), form.network.space.sum
    )
    return Y.reshape(shape), z.reshape(shape)


def _meet(form: GramForm, flow: Flow, part: slice, Y: Array, M: Array | None) -> Array:
    """M at the stages that solve a slab; what is wanted there is kept."""
    if M is None:
        return _summed(form, flow.meet(part, solved=True), Y)
    if flow.keeps:
        meet = flow.meet(part, solved=True)
        for rows in form.blocks:
            meet(rows, Y[:, rows])
    return M


def _summed(form: GramForm, meet: Callable[[slice, Array], Array], Y: Array) -> Array:
    total = sum(meet(rows, Y[:, rows]) for rows in form.blocks)
    return form.network.space.sum(np.asarray(total))


def _advance(y: Array, weights: Array, z: Array, out: Array) -> None:
    """out = y + sum_i weights_i z_i; overwrites z."""
    step = np.multiply(z[0], weights[0], out=z[0])
    for weight, slope in zip(weights[1:], z[1:], strict=True):
        step += weight * slope
    np.add(y, step, out=out)


def _joined(f: Array) -> Array:
    """(levels, n_local, S) as (levels, n_local S, 1); a view where f is contiguous."""
    return f.reshape(*f.shape[:-2], f.shape[-2] * f.shape[-1], 1)
