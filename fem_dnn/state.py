"""The state equation d_t f = sigma(Kf + b), f(0) = f_I, and its tangent (theory.md section 1).

Both are marched slab by slab with the depth scheme's tableau:

    U_i = K_i F_i + b_i,
    F_i = f_n + tau sum_j A_ij sigma(U_j),     f_{n+1} = f_n + tau sum_j w_j sigma(U_j).

Arrays are ordered (level, node, sample). What is kept is what cannot be had again for a pass over
it: f and sigma'(u). Threads of a `team` march some of the samples each.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fem_dnn.network import LayerWeights, Network
from fem_dnn.nonlocal_operator import NonlocalOperator
from fem_dnn.slab import Slopes, combine, solve_stages
from fem_dnn.team import at_once, share
from fem_dnn.trajectories import (
    MarchedState,
    MarchedTangent,
    StateTrajectory,
    TangentTrajectory,
)

Array = NDArray[np.float64]


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
    explicit = scheme.explicit
    guess: Array = np.zeros((0 if explicit else scheme.levels, *start.shape))
    ends[0] = start
    step, points = np.empty(start.shape), len(scheme.tracking_points)
    weights = levels.steps[:, None] * scheme.weights
    for n, tau in enumerate(levels.steps):
        if explicit:
            slopes = slopes_of_slab(n)(ends[n : n + 1])
        else:
            incoming = np.broadcast_to(ends[n], guess.shape)
            interval = (float(levels.points[n]), float(levels.points[n + 1]))
            _, slopes = solve_stages(
                scheme.stages, interval, incoming, slopes_of_slab(n), guess, network.space.sum
            )
            guess = combine(scheme.extrapolation, slopes)
        if len(tracked):
            inside = tau * combine(scheme.tracking_stages, slopes)
            tracked[n * points : (n + 1) * points] = ends[n] + inside
        np.add(ends[n], combine(weights[n], slopes, out=step), out=ends[n + 1])


def solve_state(
    network: Network, weights: LayerWeights, inputs: Array, *, tracked: bool = False
) -> StateTrajectory:
    """Solve the state equation for all samples at once.

    Args:
        network: Width space, depth levels, activation.
        weights: Kernel and bias; kept, not copied.
        inputs: f_I at this rank's nodes, shape (n_local, samples).
        tracked: Whether to keep the states at the tracking points.

    Raises:
        SlabFailure: An implicit slab did not converge.
    """
    levels = network.levels
    state = MarchedState(
        weights,
        np.empty((levels.layers + 1, *inputs.shape)),
        np.empty((levels.count, *inputs.shape)),
        np.empty((len(levels.tracking_t) if tracked else 0, *inputs.shape)),
        _room(network, weights.operator, inputs.shape[1]),
    )
    for_samples(
        network, lambda part: _march_state(network, state.of_samples(part), inputs[:, part]), inputs
    )
    return state


def for_samples(network: Network, work: Callable[[slice], None], like: Array) -> None:
    """Do work on all samples, which threads share on one rank: ranks talk in one thread only.

    Args:
        network: The network.
        work: Called with parts of the samples.
        like: An array whose last axis is the samples.
    """
    samples = like.shape[-1]
    if network.space.comm.size == 1:
        share(work, samples)
    else:
        work(slice(0, samples))


def _room(network: Network, operator: NonlocalOperator | None, samples: int) -> Array | None:
    """Room for sqrt(h) f at the levels on all nodes, where it is kept."""
    if operator is None or network.stages_are_ends:
        return None
    return np.empty((network.levels.count, operator.gathered_rows, samples))


def _march_state(network: Network, state: MarchedState, inputs: Array) -> None:
    weights, per_slab = state.weights, network.levels.scheme.levels
    number, compiled = network.activation.compiled, network.sweeps(weights)
    if compiled is not None and number is not None:
        state.ends[0] = inputs
        known = weights.kernel, weights.bias
        compiled.state(number, known, state.ends, state.slope, state.tracked)
        return
    operator, kept = weights.operator, state.kept
    u = np.empty((per_slab, *inputs.shape))

    def slopes_of_slab(n: int) -> Slopes:
        first = n * per_slab

        def slopes(F: Array) -> Array:
            for i in range(per_slab):
                level, here = first + i, u[i]
                if operator is None:
                    weights.pre_activation(level, None, here)
                else:
                    operator.image(level, F[i], None if kept is None else kept[level], here)
                    if weights.bias is not None:
                        here += weights.bias[level]
                network.activation.write(here, here, state.slope[level])
            return u

        return slopes

    march(network, inputs, slopes_of_slab, state.tracked, state.ends)


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
    ends, u, tracked = (np.empty_like(a) for a in (state.ends, state.slope, state.tracked))
    room = _room(network, weights.operator, ends.shape[-1])
    tangent = MarchedTangent(weights.operator, ends, u, tracked, room)
    start = np.zeros_like(ends[0]) if inputs is None else inputs

    def work(part: slice) -> None:
        driving = None if source is None else source[..., part]
        here, change = state.of_samples(part), tangent.of_samples(part)
        _march_tangent(network, weights, here, direction, driving, start[:, part], change)

    for_samples(network, work, ends)
    return tangent


def _march_tangent(
    network: Network,
    weights: LayerWeights,
    state: StateTrajectory,
    direction: LayerWeights,
    source: Array | None,
    start: Array,
    tangent: MarchedTangent,
) -> None:
    u, kept = tangent.u, tangent.kept
    compiled = network.sweeps(weights, direction)
    if compiled is not None and isinstance(state, MarchedState):
        tangent.ends[0] = start
        step, into = (direction.kernel, direction.bias), (tangent.ends, u, tangent.tracked)
        compiled.tangent(weights.kernel, step, state.ends, state.slope, source, *into)
        return
    operator, per_slab = weights.operator, network.levels.scheme.levels
    slabs = at_once(start.size * per_slab)
    driven = np.empty((slabs * per_slab, *start.shape))
    slope = np.empty((per_slab, *start.shape))
    change = np.empty_like(start)

    def slopes_of_slab(n: int) -> Slopes:
        first, offset = n * per_slab, n % slabs * per_slab
        part = slice(first, first + per_slab)
        if offset == 0:
            several_slabs = slice(first, min(first + len(driven), len(u)))
            room = driven[: several_slabs.stop - first]
            gathered = None if direction.operator is None else state.gathered_at(several_slabs)
            direction.pre_activation(several_slabs, gathered, room)

        def slopes(dF: Array) -> Array:
            for i in range(per_slab):
                if operator is None:
                    u[first + i] = driven[offset + i]
                else:
                    room = None if kept is None else kept[first + i]
                    operator.image(first + i, dF[i], room, change)
                    np.add(driven[offset + i], change, out=u[first + i])
            np.multiply(state.slope[part], u[part], out=slope)
            if source is not None:
                np.add(slope, source[part], out=slope)
            return slope

        return slopes

    march(network, start, slopes_of_slab, tangent.tracked, tangent.ends)
