"""The adjoint equation and its derivative (theory.md section 3), exactly adjoint to the scheme.

With P_i the adjoint at the levels, p_n at the slab ends, r_k = mu (f - g) at the tracking points,

    P_i = p_{n+1} + tau sum_k A*_ik K_k'(sigma'(U_k) P_k) + (tau / w_i) sum_k omega_k B_ki r_k,
    p_n = p_{n+1} + tau sum_k w_k K_k'(sigma'(U_k) P_k) + tau sum_k omega_k r_k,

where A*_ik = w_k A_ki / w_i. No factor w_s (sample weight) is in p.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from fem_dnn.network import LayerWeights, Network
from fem_dnn.slab import combine, solve_stages
from fem_dnn.state import for_samples
from fem_dnn.team import at_once, several, share
from fem_dnn.trajectories import (
    Levelwise,
    MarchedState,
    StateTrajectory,
    TangentTrajectory,
    levelwise,
    put,
)

Array = NDArray[np.float64]


@dataclass(eq=False)
class AdjointTrajectory:
    """The adjoint along the depth.

    Attributes:
        ends: p(t_n) at the slab ends, shape (layers + 1, n_local, samples).
        levels: P at the control levels, shape (levels, n_local, samples).
        q: sigma'(u) P at the control levels, same shape: the gradient's left factor.
    """

    ends: Array
    levels: Array
    q: Array

    def q_at(self, levels: slice, out: Array | None = None) -> Array:
        """`q` at some levels, put into `out` where it is given."""
        return put(self.q[levels], out)

    @property
    def slopes(self) -> Levelwise:
        """`q`, level by level."""
        return levelwise(self.q)

    def of_samples(self, part: slice) -> AdjointTrajectory:
        """The same for some samples; views."""
        return AdjointTrajectory(*(a[..., part] for a in (self.ends, self.levels, self.q)))


class MarchedAdjoint(AdjointTrajectory):
    """An adjoint that solves its equation: its q is made when asked for.

    Args:
        ends, levels: As in `AdjointTrajectory`; where they agree, views of the same memory.
        slope: sigma'(u) at the control levels.
    """

    def __init__(self, ends: Array, levels: Array, slope: Array) -> None:
        self.ends, self.levels, self.slope = ends, levels, slope

    @cached_property
    def q(self) -> Array:  # type: ignore[override]
        """sigma'(u) P at the control levels."""
        return self.slope * self.levels

    def q_at(self, levels: slice, out: Array | None = None) -> Array:
        """`q` at some levels, put into `out` where it is given."""
        return np.multiply(self.slope[levels], self.levels[levels], out=out)

    @property
    def slopes(self) -> Levelwise:
        """`q`, level by level."""
        return Levelwise(self.q_at, (self.slope, self.levels))

    def of_samples(self, part: slice) -> MarchedAdjoint:
        """The same for some samples; views."""
        return MarchedAdjoint(*(a[..., part] for a in (self.ends, self.levels, self.slope)))


def march_back(
    network: Network,
    terminal: Array,
    residuals: Array,
    slopes: Callable[[slice, Array], Array],
    ends: Array | None = None,
) -> Iterator[tuple[int, slice, Array, Array]]:
    """March the adjoint scheme -d_t p = slopes + r, p(T) = terminal, from T to 0.

    Args:
        network: Width space, depth levels, activation.
        terminal: p(T), shape (n_local, samples).
        residuals: r at the tracking points; empty where nothing is tracked.
        slopes: (a slab's levels as a slice, P there) -> slopes there. Called last, on every slab,
            at the P that solves it.
        ends: Where p at the slab ends is wanted, shape (layers + 1, n_local, samples).

    Yields:
        Slab by slab, the last first: its number n, its levels, P there, and p(t_n).
    """
    levels, scheme = network.levels, network.levels.scheme
    explicit = scheme.explicit
    stage_shape = (scheme.levels, *terminal.shape)
    guess = np.zeros((0 if explicit else scheme.levels, *terminal.shape))
    step, points = np.empty(terminal.shape), len(scheme.tracking_points)
    backwards = scheme.extrapolation[::-1, ::-1]
    p = terminal
    if ends is not None:
        ends[-1] = terminal
        p = ends[-1]
    weights = levels.steps[:, None] * scheme.weights
    for n in reversed(range(levels.layers)):
        tau = levels.steps[n]
        slab = levels.of_slab(n)
        part = slice(slab.start, slab.stop)
        start = p[None] if explicit else np.broadcast_to(p, stage_shape)
        if len(residuals):
            r = residuals[n * points : (n + 1) * points]
            start = start + tau * combine(scheme.adjoint_tracking, r)
            p = p + tau * combine(scheme.tracking_weights, r)
        if explicit:
            P, slope = start, slopes(part, start)
        else:
            interval = (float(levels.points[n]), float(levels.points[n + 1]))
            P, slope = solve_stages(
                scheme.adjoint_stages,
                interval,
                start,
                partial(slopes, part),
                guess,
                network.space.sum,
            )
            guess = combine(backwards, slope)
        combine(weights[n], slope, out=step)
        p = np.add(p, step, out=None if ends is None else ends[n])
        yield n, part, P, p


def transpose(weights: LayerWeights, levels: slice, q: Array, out: Array | None = None) -> Array:
    """K_k' q_k at some levels k (collective); shape of q, (levels, n_local, samples)."""
    if weights.operator is not None:
        return weights.operator.apply_transpose(levels, q, out=out)
    if out is None:
        return np.zeros_like(q)
    out[...] = 0.0
    return out


def solve_adjoint(
    network: Network,
    weights: LayerWeights,
    slope: Array,
    terminal: Array,
    residuals: Array,
    source: Array | None = None,
) -> AdjointTrajectory:
    """Solve -d_t p = K'(sigma'(u) P) + r, p(T) = terminal, where P = p + source at the levels.

    Args:
        network: Width space, depth levels, activation.
        weights: Kernel and bias.
        slope: sigma'(u) at the levels, shape (levels, n_local, samples).
        terminal: Gradient of the terminal loss, shape (n_local, samples).
        residuals: mu (f - g) at the tracking points, shape (points, n_local, samples) or empty.
        source: What is added to p at the control levels, shape (levels, n_local, samples).
    """
    count, compiled = network.levels.count, network.sweeps(weights)
    ends = np.empty((network.levels.layers + 1, *terminal.shape))
    # Without stages, residuals and source P is p at the end of the slab.
    same = network.levels.scheme.explicit and not len(residuals) and source is None
    P_at = ends[1:] if same else np.empty((count, *terminal.shape))

    def work(samples: slice) -> None:
        ours, stored = slope[..., samples], P_at[..., samples]
        if compiled is not None:
            added, fed = None if source is None else source[..., samples], residuals[..., samples]
            ends[-1, :, samples] = terminal[:, samples]
            stages = None if same else stored
            compiled.adjoint(weights.kernel, ours, fed, added, ends[..., samples], stages)
            return
        added = None if source is None else source[..., samples]
        shape = (network.levels.scheme.levels, *ours.shape[1:])
        q, image = np.empty(shape), np.empty(shape)

        def slopes(part: slice, P: Array) -> Array:
            if added is not None:
                P = np.add(P, added[part], out=q)
            np.multiply(ours[part], P, out=q)
            return transpose(weights, part, q, out=image)

        start, fed = terminal[:, samples], residuals[..., samples]
        for _, part, P, _ in march_back(network, start, fed, slopes, ends[..., samples]):
            if not same:
                stored[part] = P

    for_samples(network, work, terminal)
    if source is not None and compiled is None:
        P_at += source
    return MarchedAdjoint(ends, P_at, slope)


def curvature_of(
    network: Network, weights: LayerWeights, state: StateTrajectory, adjoint: AdjointTrajectory
) -> Array:
    """sigma''(u) P at the control levels, shape (levels, n_local, samples).

    Args:
        network: Width space, depth levels, activation.
        weights: Kernel and bias.
        state, adjoint: Those of the weights.
    """
    activation, compiled = network.activation, network.sweeps(weights)
    curvature = np.empty(state.slope.shape)
    marched = isinstance(state, MarchedState)

    def work(levels: slice) -> None:
        if compiled is not None and activation.compiled is not None and marched:
            known = weights.kernel, weights.bias
            trajectories = state.ends, adjoint.levels, curvature
            compiled.curvature(levels, activation.compiled, known, *trajectories)
            return
        for part in several(levels, curvature[0].size):
            u = np.empty_like(curvature[part])
            weights.pre_activation(part, state.gathered_at(part), u)
            np.multiply(activation.evaluate(u, 2)[2], adjoint.levels[part], out=curvature[part])

    share(work, len(curvature))
    return curvature


def solve_second_adjoint(
    network: Network,
    weights: LayerWeights,
    state: StateTrajectory,
    adjoint: AdjointTrajectory,
    curvature: Array,
    tangent: TangentTrajectory,
    direction: LayerWeights,
    terminal: Array,
    residuals: Array,
) -> Array:
    """Solve the derivative of the adjoint equation in a direction of the controls.

    -d_t dp = K' dq + dK' q + dr with dq = sigma'(u) dp + sigma''(u) du p, dp(T) = terminal.

    Args:
        network, weights, state, adjoint: The linearisation point.
        curvature: sigma''(u) p at the levels, shape (levels, n_local, samples).
        tangent: Derivative of the state in the direction; its u is overwritten.
        direction: Change dK, db of kernel and bias.
        terminal: Derivative of the terminal condition, shape (n_local, samples).
        residuals: mu df at the tracking points, or empty.

    Returns:
        dq at the levels, shape (levels, n_local, samples), in the place of the tangent's u.
    """
    levels = network.levels
    per_slab, explicit = levels.scheme.levels, levels.scheme.explicit
    compiled = network.sweeps(weights, direction)

    def work(samples: slice) -> None:
        slope, bend, u = (a[..., samples] for a in (state.slope, curvature, tangent.u))
        known = adjoint.of_samples(samples)
        if compiled is not None and isinstance(known, MarchedAdjoint):
            end, fed, matrices = terminal[:, samples], residuals[..., samples], direction.kernel
            compiled.second_adjoint(
                weights.kernel, matrices, slope, bend, known.levels, fed, end, u
            )
            return
        size = min(levels.count, at_once(u[0].size * per_slab) * per_slab)
        driven = np.empty((size, *u.shape[1:]))
        q, image = np.empty((2, per_slab, *u.shape[1:]))
        reached = levels.count

        def slopes(part: slice, dP: Array) -> Array:
            nonlocal reached
            if part.start < reached:
                reached = max(0, part.stop - size)
                some = slice(reached, part.stop)
                transpose(direction, some, known.q_at(some), driven[: part.stop - reached])
                u[some] *= bend[some]
            dq = u[part] if explicit else q
            np.multiply(slope[part], dP, out=image)
            np.add(u[part], image, out=dq)
            transpose(weights, part, dq, out=image)
            return np.add(image, driven[part.start - reached : part.stop - reached], out=image)

        start, fed = terminal[:, samples], residuals[..., samples]
        for _, part, _, _ in march_back(network, start, fed, slopes):
            if not explicit:
                u[part] = q

    for_samples(network, work, terminal)
    return tangent.u
