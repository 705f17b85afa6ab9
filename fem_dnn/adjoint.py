"""The adjoint equation and its derivative (theory.md section 3), exactly adjoint to the scheme.

With P_i the adjoint at the levels, p_n at the slab ends, r_k = mu (f - g) at the tracking points,

    P_i = p_{n+1} + tau sum_k A*_ik K_k'(sigma'(U_k) P_k) + (tau / w_i) sum_k omega_k B_ki r_k,
    p_n = p_{n+1} + tau sum_k w_k K_k'(sigma'(U_k) P_k) + tau sum_k omega_k r_k,

where A*_ik = w_k A_ki / w_i. No factor w_s (sample weight) is in p.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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


def _march_back(
    network: Network,
    terminal: Array,
    residuals: Array,
    weights: LayerWeights,
    to_q: Callable[[slice, Array], Array],
    source: Array | None = None,
) -> AdjointTrajectory:
    """March the adjoint scheme from T to 0.

    Args:
        network: Width space, depth levels, activation.
        terminal: p(T), shape (n_local, samples).
        residuals: r at the tracking points; empty where nothing is tracked.
        weights: Kernel and bias.
        to_q: (slab's levels as a slice, P) -> q; the slopes are K'q plus the source.
        source: What else drives the adjoint, shape (levels, n_local, samples).
    """
    levels, scheme = network.levels, network.levels.scheme
    stage_shape = (scheme.levels, *terminal.shape)
    adjoint = AdjointTrajectory(
        ends=np.empty((levels.layers + 1, *terminal.shape)),
        levels=np.empty((levels.count, *terminal.shape)),
        q=np.empty((levels.count, *terminal.shape)),
    )
    adjoint.ends[-1] = terminal
    guess = np.zeros(stage_shape)
    points = len(scheme.tracking_points)
    backwards = scheme.extrapolation[::-1, ::-1]
    for n in reversed(range(levels.layers)):
        tau = levels.steps[n]
        slab = levels.of_slab(n)
        part = slice(slab.start, slab.stop)
        start = np.broadcast_to(adjoint.ends[n + 1], stage_shape)
        adjoint.ends[n] = adjoint.ends[n + 1]
        if len(residuals):
            r = residuals[n * points : (n + 1) * points]
            start = start + tau * combine(scheme.adjoint_tracking, r)
            adjoint.ends[n] += tau * combine(scheme.tracking_weights, r)

        def slopes(P: Array, part: slice = part) -> Array:
            adjoint.q[part] = to_q(part, P)
            slope = transpose(weights, part, adjoint.q[part])
            if source is not None:
                slope += source[part]
            return slope

        if scheme.explicit:
            P, slope = start, slopes(start)
        else:
            interval = (float(levels.points[n]), float(levels.points[n + 1]))
            P, slope = solve_stages(
                scheme.adjoint_stages, interval, start, slopes, guess, network.space.sum
            )
            guess = combine(backwards, slope)
        adjoint.levels[part] = P
        adjoint.ends[n] += combine(tau * scheme.weights, slope)
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
        return _march_back(
            network, terminal, residuals, weights, lambda part, P: state.slope[part] * P
        )
    adjoint = _march_back(
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

    return _march_back(
        network,
        terminal,
        residuals,
        weights,
        lambda part, dP: state.slope[part] * dP + fixed[part],
        transpose(direction, slice(None), adjoint.q),
    )
