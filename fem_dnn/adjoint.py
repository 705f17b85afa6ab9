"""The adjoint equation and its derivative (theory.md section 3), exactly adjoint to the scheme.

With P_i the adjoint at the levels, p_n at the slab ends, r_k = mu (f - g) at the tracking points,

    P_i = p_{n+1} + tau sum_k A*_ik K_k'(sigma'(U_k) P_k) + (tau / w_i) sum_k omega_k B_ki r_k,
    p_n = p_{n+1} + tau sum_k w_k K_k'(sigma'(U_k) P_k) + tau sum_k omega_k r_k,

where A*_ik = w_k A_ki / w_i. No factor w_s (sample weight) is in p.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fem_dnn.slab import combine, solve_stages
from fem_dnn.state import LayerWeights, Network, StateTrajectory, TangentTrajectory

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


def march_back(
    network: Network,
    terminal: Array,
    residuals: Array,
    slopes: Callable[[slice, Array], Array],
) -> Iterator[tuple[int, slice, Array, Array]]:
    """March the adjoint scheme -d_t p = slopes + r, p(T) = terminal, from T to 0.

    Args:
        network: Width space, depth levels, activation.
        terminal: p(T), shape (n_local, samples).
        residuals: r at the tracking points; empty where nothing is tracked.
        slopes: (a slab's levels as a slice, P there) -> slopes there. Called last, on every slab,
            at the P that solves it.

    Yields:
        Slab by slab, the last first: its number n, its levels, P there, and p(t_n).
    """
    levels, scheme = network.levels, network.levels.scheme
    stage_shape = (scheme.levels, *terminal.shape)
    guess = np.zeros(stage_shape)
    points = len(scheme.tracking_points)
    backwards = scheme.extrapolation[::-1, ::-1]
    p = terminal
    for n in reversed(range(levels.layers)):
        tau = levels.steps[n]
        slab = levels.of_slab(n)
        part = slice(slab.start, slab.stop)
        start = np.broadcast_to(p, stage_shape)
        if len(residuals):
            r = residuals[n * points : (n + 1) * points]
            start = start + tau * combine(scheme.adjoint_tracking, r)
            p = p + tau * combine(scheme.tracking_weights, r)
        if scheme.explicit:
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
        p = p + combine(tau * scheme.weights, slope)
        yield n, part, P, p


def _solve(
    network: Network,
    terminal: Array,
    residuals: Array,
    weights: LayerWeights,
    to_q: Callable[[slice, Array], Array],
    source: Array | None = None,
) -> AdjointTrajectory:
    """March back with the slopes K'q plus a source, and keep everything.

    Args:
        network: Width space, depth levels, activation.
        terminal: p(T), shape (n_local, samples).
        residuals: r at the tracking points; empty where nothing is tracked.
        weights: Kernel and bias.
        to_q: (slab's levels as a slice, P) -> q.
        source: What else drives the adjoint, shape (levels, n_local, samples).
    """
    levels = network.levels
    adjoint = AdjointTrajectory(
        ends=np.empty((levels.layers + 1, *terminal.shape)),
        levels=np.empty((levels.count, *terminal.shape)),
        q=np.empty((levels.count, *terminal.shape)),
    )

    def slopes(part: slice, P: Array) -> Array:
        adjoint.q[part] = to_q(part, P)
        slope = transpose(weights, part, adjoint.q[part])
        if source is not None:
            slope += source[part]
        return slope

    adjoint.ends[-1] = terminal
    for n, part, P, p in march_back(network, terminal, residuals, slopes):
        adjoint.levels[part], adjoint.ends[n] = P, p
    return adjoint


def transpose(weights: LayerWeights, levels: slice, q: Array) -> Array:
    """K_k' q_k at some levels k (collective); shape of q, (levels, n_local, samples)."""
    if weights.operator is None:
        return np.zeros_like(q)
    return weights.operator.apply_transpose(levels, q)


def solve_adjoint(
    network: Network,
    weights: LayerWeights,
    state: StateTrajectory,
    terminal: Array,
    residuals: Array,
    source: Array | None = None,
) -> AdjointTrajectory:
    """Solve -d_t p = K'(sigma'(u) P) + r, p(T) = terminal, where P = p + source at the levels.

    Args:
        network: Width space, depth levels, activation.
        weights: Kernel and bias.
        state: The state at them.
        terminal: Gradient of the terminal loss, shape (n_local, samples).
        residuals: mu (f - g) at the tracking points, shape (points, n_local, samples) or empty.
        source: What is added to p at the control levels, shape (levels, n_local, samples).
    """
    if source is None:
        return _solve(network, terminal, residuals, weights, lambda part, P: state.slope[part] * P)
    adjoint = _solve(
        network,
        terminal,
        residuals,
        weights,
        lambda part, P: state.slope[part] * (P + source[part]),
    )
    adjoint.levels += source
    return adjoint


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
) -> AdjointTrajectory:
    """Solve the derivative of the adjoint equation in a direction of the controls.

    -d_t dp = K' dq + dK' q + dr with dq = sigma'(u) dp + sigma''(u) du p, dp(T) = terminal.

    Args:
        network, weights, state, adjoint: The linearisation point.
        curvature: sigma''(u) p at the levels, shape (levels, n_local, samples).
        tangent: Derivative of the state in the direction.
        direction: Change dK, db of kernel and bias.
        terminal: Derivative of the terminal condition, shape (n_local, samples).
        residuals: mu df at the tracking points, or empty.
    """
    fixed = curvature * tangent.u

    return _solve(
        network,
        terminal,
        residuals,
        weights,
        lambda part, dP: state.slope[part] * dP + fixed[part],
        transpose(direction, slice(None), adjoint.q),
    )
