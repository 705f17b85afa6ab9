"""The state equation d_t f = sigma(Kf + b), f(0) = f_I, and its tangent (theory.md section 1).

Both are marched slab by slab with the depth scheme's tableau:

    U_i = K_i F_i + b_i,
    F_i = f_n + tau sum_j A_ij sigma(U_j),     f_{n+1} = f_n + tau sum_j w_j sigma(U_j).

Arrays are ordered (level, node, sample). What is kept is what cannot be had again for a pass over
it: f and sigma'(u). Threads of a `team` march some of the samples each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fem_dnn.activations import Activation
from fem_dnn.depth import DepthLevels
from fem_dnn.nonlocal_operator import NonlocalOperator
from fem_dnn.slab import Slopes, combine, solve_stages
from fem_dnn.team import at_once, several, share
from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Network:
    """The network without its weights: width space, depth levels, activation."""

    space: WidthSpace
    levels: DepthLevels
    activation: Activation

    @property
    def stages_are_ends(self) -> bool:
        """Whether sqrt(h) f at the levels can be had from f at the slab ends by scaling."""
        return self.levels.scheme.explicit and self.space.comm.size == 1


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """Kernel and bias as the sweeps use them, or a direction in which they change.

    Attributes:
        operator: The nonlocal operator K; None where there is no kernel.
        bias: Values b at this rank's nodes, shape (levels, n_local, 1); None where there is none.
    """

    operator: NonlocalOperator | None
    bias: Array | None

    def pre_activation(self, levels: int | slice, gathered: Array | None, out: Array) -> None:
        """Put Kf + b at some levels into `out`, from sqrt(h) f there on all nodes."""
        if self.operator is None or gathered is None:
            out[...] = 0.0 if self.bias is None else self.bias[levels]
        else:
            self.operator.apply(levels, gathered, out=out)
            if self.bias is not None:
                out += self.bias[levels]


def put(values: Array, out: Array | None) -> Array:
    """The values themselves; where `out` is given, a copy of them there."""
    if out is None:
        return values
    np.copyto(out, values)
    return out


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

    def gathered_at(self, levels: slice, out: Array | None = None) -> Array | None:
        """`gathered` at some levels, put into `out` where it is given."""
        return None if self.gathered is None else put(self.gathered[levels], out)

    def of_samples(self, part: slice) -> StateTrajectory:
        """The same for some samples; views."""
        gathered = None if self.gathered is None else self.gathered[..., part]
        ends, u, slope = (a[..., part] for a in (self.ends, self.u, self.slope))
        return StateTrajectory(ends, u, slope, gathered, self.tracked[..., part])


class _MarchedStages:
    """sqrt(h) f at the levels of a march: kept, or made when asked for from f at the slab ends.

    Args:
        operator: K; None where there is no kernel.
        ends: f at the slab ends.
        kept: sqrt(h) f at the levels on all nodes; None where it is to be made.
    """

    def __init__(self, operator: NonlocalOperator | None, ends: Array, kept: Array | None) -> None:
        self.operator, self.ends, self.kept = operator, ends, kept

    @cached_property
    def gathered(self) -> Array | None:
        """sqrt(h) f at the levels on all nodes."""
        return self.gathered_at(slice(0, len(self.ends) - 1 if self.kept is None else None))

    def gathered_at(self, levels: slice, out: Array | None = None) -> Array | None:
        """`gathered` at some levels."""
        if self.operator is None:
            return None
        if self.kept is None:
            return self.operator.gather(self.ends[levels], out=out)
        return put(self.kept[levels], out)


class MarchedState(_MarchedStages, StateTrajectory):  # type: ignore[misc]
    """A state that solves its equation: what follows from it at once is made when asked for.

    Args:
        weights: Kernel and bias. `u` must be asked for before they change.
        ends, slope, tracked: As in `StateTrajectory`.
        kept: As in `_MarchedStages`.
    """

    def __init__(
        self, weights: LayerWeights, ends: Array, slope: Array, tracked: Array, kept: Array | None
    ) -> None:
        super().__init__(weights.operator, ends, kept)
        self.weights, self.slope, self.tracked = weights, slope, tracked

    @cached_property
    def u(self) -> Array:  # type: ignore[override]
        """Pre-activations at the levels."""
        return pre_activations(self.weights, self)

    def of_samples(self, part: slice) -> MarchedState:
        """The same for some samples; views."""
        ends, slope, tracked = (a[..., part] for a in (self.ends, self.slope, self.tracked))
        kept = None if self.kept is None else self.kept[..., part]
        return MarchedState(self.weights, ends, slope, tracked, kept)


@dataclass(eq=False)
class TangentTrajectory:
    """Derivative of the state in a direction of the controls; attributes as in the state's."""

    ends: Array
    u: Array
    gathered: Array | None
    tracked: Array = field(repr=False)

    def gathered_at(self, levels: slice, out: Array | None = None) -> Array | None:
        """`gathered` at some levels, put into `out` where it is given."""
        return None if self.gathered is None else put(self.gathered[levels], out)


class MarchedTangent(_MarchedStages, TangentTrajectory):  # type: ignore[misc]
    """A tangent that solves its equation; see `MarchedState`."""

    def __init__(
        self,
        operator: NonlocalOperator | None,
        ends: Array,
        u: Array,
        tracked: Array,
        kept: Array | None,
    ) -> None:
        super().__init__(operator, ends, kept)
        self.u, self.tracked = u, tracked

    def of_samples(self, part: slice) -> MarchedTangent:
        """The same for some samples; views."""
        ends, u, tracked = (a[..., part] for a in (self.ends, self.u, self.tracked))
        kept = None if self.kept is None else self.kept[..., part]
        return MarchedTangent(self.operator, ends, u, tracked, kept)


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


def pre_activations(weights: LayerWeights, state: StateTrajectory) -> Array:
    """Kf + b along a state, with other weights or a change of them: shape of the state's slope."""
    u = np.empty_like(state.slope)
    for part in several(slice(0, len(u)), u[0].size):
        gathered = None if weights.operator is None else state.gathered_at(part)
        weights.pre_activation(part, gathered, u[part])
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
