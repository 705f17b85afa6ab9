"""What is kept along the depth of a state and of its tangent: f and sigma'(u).

Arrays are ordered (level, node, sample). What can be had again for a pass over these is made when
asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fem_dnn.network import LayerWeights
from fem_dnn.nonlocal_operator import NonlocalOperator
from fem_dnn.team import several

Array = NDArray[np.float64]


def put(values: Array, out: Array | None) -> Array:
    """The values themselves; where `out` is given, a copy of them there."""
    if out is None:
        return values
    np.copyto(out, values)
    return out


@dataclass(frozen=True, eq=False)
class Levelwise:
    """Values at the levels, shape (levels, nodes, samples), made when asked for.

    Attributes:
        put: Puts those at some levels into an array.
        factors: One or two arrays whose product they are, but for the sqrt(h) of `gather`; none
            where they are not had so.
    """

    put: Callable[[slice, Array], Array | None]
    factors: tuple[Array, ...] = ()


def levelwise(values: Array) -> Levelwise:
    """Values that are known at all levels."""
    return Levelwise(lambda levels, out: put(values[levels], out), (values,))


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

    @property
    def functions(self) -> Levelwise:
        """`gathered`, level by level."""
        return Levelwise(self.gathered_at)

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

    @property
    def functions(self) -> Levelwise:
        """`gathered`, level by level."""
        return Levelwise(self.gathered_at, (self.ends[:-1],) if self.kept is None else ())


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

    @property
    def functions(self) -> Levelwise:
        """`gathered`, level by level."""
        return Levelwise(self.gathered_at)


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


def pre_activations(weights: LayerWeights, state: StateTrajectory) -> Array:
    """Kf + b along a state, with other weights or a change of them: shape of the state's slope."""
    u = np.empty_like(state.slope)
    for part in several(slice(0, len(u)), u[0].size):
        gathered = None if weights.operator is None else state.gathered_at(part)
        weights.pre_activation(part, gathered, u[part])
    return u
