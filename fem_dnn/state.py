"""The state equation d_t f = sigma(Kf + b), f(0) = f_I, and its tangent (theory.md section 1).

Both are marched slab by slab with the depth scheme's tableau:

    U_i = K_i F_i + b_i,
    F_i = f_n + tau sum_j A_ij sigma(U_j),     f_{n+1} = f_n + tau sum_j w_j sigma(U_j).

Arrays are ordered (level, node, sample).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fem_dnn.activations import Activation
from fem_dnn.depth import DepthLevels
from fem_dnn.nonlocal_operator import NonlocalOperator
from fem_dnn.slab import Slopes, combine, solve_stages
from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Network:
    """The network without its weights: width space, depth levels, activation."""

    space: WidthSpace
    levels: DepthLevels
    activation: Activation


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """Kernel and bias as the sweeps use them, or a direction in which they change.

    Attributes:
        operator: The nonlocal operator K; None where there is no kernel.
        bias: Values b at this rank's nodes, shape (levels, n_local, 1); None where there is none.
    """

    operator: NonlocalOperator | None
    bias: Array | None


@dataclass(eq=False)
class StateTrajectory:
    """The state along the depth.

    Attributes:
        ends: f(t_n^-) at the slab ends, shape (layers + 1, n_local, samples).
        u: Pre-activations at the levels, shape (levels, n_local, samples).
        slope: sigma'(u), same shape.
        gathered: sqrt(h) f at the levels on all nodes, shape (levels, n_nodes, samples); None
            without a kernel.
        tracked: f at the tracking points, shape (tracking points, n_local, samples).
    """

    ends: Array
    u: Array
    slope: Array
    gathered: Array | None
    tracked: Array


@dataclass(eq=False)
class TangentTrajectory:
    """Derivative of the state in a direction of the controls; attributes as in the state's."""

    ends: Array
    u: Array
    gathered: Array | None
    tracked: Array = field(repr=False)


# An overflow shows in the state, which the caller judges: no warnings on the way.
@np.errstate(over="ignore", invalid="ignore")
def march(
    network: Network,
    start: Array,
    slopes_of_slab: Callable[[int], Slopes],
    tracked: Array,
    ends: Array,
) -> None:
    """March d_t y = slope from y(0) = start, filling `ends` and `tracked`."""
    levels, scheme = network.levels, network.levels.scheme
    guess: Array = np.zeros((scheme.levels, *start.shape))
    ends[0] = start
    points = len(scheme.tracking_points)
    for n, tau in enumerate(levels.steps):
        incoming = np.broadcast_to(ends[n], guess.shape)
        if scheme.explicit:
            slopes = slopes_of_slab(n)(incoming)
        else:
            interval = (float(levels.points[n]), float(levels.points[n + 1]))
            _, slopes = solve_stages(
                scheme.stages, interval, incoming, slopes_of_slab(n), guess, network.space.sum
            )
            guess = combine(scheme.extrapolation, slopes)
        np.add(ends[n], combine(tau * scheme.weights, slopes), out=ends[n + 1])
        if len(tracked):
            inside = tau * combine(scheme.tracking_stages, slopes)
            tracked[n * points : (n + 1) * points] = ends[n] + inside


def solve_state(
    network: Network, weights: LayerWeights, inputs: Array, *, tracked: bool = False
) -> StateTrajectory:
    """Solve the state equation for all samples at once.

    Args:
        network: Width space, depth levels, activation.
        weights: Kernel and bias.
        inputs: f_I at this rank's nodes, shape (n_local, samples).
        tracked: Whether to keep the states at the tracking points.

    Raises:
        SlabFailure: An implicit slab did not converge.
    """
    shape = inputs.shape
    levels, operator = network.levels, weights.operator
    trajectory = StateTrajectory(
        ends=np.empty((levels.layers + 1, *shape)),
        u=np.zeros((levels.count, *shape)),
        slope=np.empty((levels.count, *shape)),
        gathered=None
        if operator is None
        else np.empty((levels.count, operator.gathered_rows, shape[1])),
        tracked=np.empty((len(levels.tracking_t) if tracked else 0, *shape)),
    )

    def slopes_of_slab(n: int) -> Slopes:
        slab = levels.of_slab(n)
        u = trajectory.u[slab.start : slab.stop]
        slope = trajectory.slope[slab.start : slab.stop]

        def slopes(F: Array) -> Array:
            for i, level in enumerate(slab):
                if operator is not None and trajectory.gathered is not None:
                    trajectory.gathered[level] = operator.gather(F[i])
                    u[i] = operator.apply(level, trajectory.gathered[level])
                    if weights.bias is not None:
                        u[i] += weights.bias[level]
                elif weights.bias is not None:
                    u[i] = weights.bias[level]
            value, slope[...] = network.activation.evaluate(u, 1)
            return value

        return slopes

    march(network, inputs, slopes_of_slab, trajectory.tracked, trajectory.ends)
    return trajectory


def pre_activations(weights: LayerWeights, state: StateTrajectory) -> Array:
    """Kf + b along a state, with other weights or a change of them: shape of the state's u."""
    if weights.operator is None or state.gathered is None:
        u = np.zeros_like(state.u)
    else:
        u = weights.operator.apply(slice(None), state.gathered)
    if weights.bias is not None:
        u += weights.bias
    return u


def solve_tangent(
    network: Network,
    weights: LayerWeights,
    state: StateTrajectory,
    direction: LayerWeights,
    source: Array | None = None,
    inputs: Array | None = None,
) -> TangentTrajectory:
    """Solve the linearised state equation d_t df = sigma'(u)(K df + dK f + db) + r, df(0) = df_I.

    Args:
        network: Width space, depth levels, activation.
        weights: Kernel and bias at which the equation is linearised.
        state: The state there.
        direction: Change dK, db of kernel and bias.
        source: r at the control levels, shape (levels, n_local, samples); None: 0.
        inputs: df_I, shape (n_local, samples); None: 0.
    """
    levels, operator = network.levels, weights.operator
    keep = operator is not None
    driven = pre_activations(direction, state)
    tangent = TangentTrajectory(
        ends=np.empty_like(state.ends),
        u=driven.copy() if keep and not levels.scheme.explicit else driven,
        gathered=np.empty_like(state.gathered) if keep and state.gathered is not None else None,
        tracked=np.empty_like(state.tracked),
    )

    def slopes_of_slab(n: int) -> Slopes:
        slab = levels.of_slab(n)
        part = slice(slab.start, slab.stop)

        def slopes(dF: Array) -> Array:
            if operator is not None and tangent.gathered is not None:
                for i, level in enumerate(slab):
                    tangent.gathered[level] = operator.gather(dF[i])
                    change = operator.apply(level, tangent.gathered[level])
                    np.add(driven[level], change, out=tangent.u[level])
            result = state.slope[part] * tangent.u[part]
            return result if source is None else result + source[part]

        return slopes

    start = np.zeros_like(state.ends[0]) if inputs is None else inputs
    march(network, start, slopes_of_slab, tangent.tracked, tangent.ends)
    return tangent
