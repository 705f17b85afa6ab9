"""A stretch of the depth at one control: its state and adjoint, kept or made anew.

    d_t f = sigma(u),   u = K q
    -d_t (w p)_s = sum_s' <q_s', r_s> f_s' / lambda_a,   r = w sigma'(u) p

A stretch knows f where it starts, w p where it ends and, once they have been met, the S x S
matrices of its levels. With these all its nodes go by themselves: state and adjoint are made again
without a solve, without a sum over ranks. So the depth can be cut into stretches of which only one
is at hand at a time (`Desk`), and what is kept is O(nodes S) per stretch instead of per level.

Arrays [level, node, sample] are in L2-orthonormal coordinates (`form`): sqrt(h) f, sqrt(h) w p.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from weakref import ReferenceType, ref

import numpy as np
from numpy.typing import NDArray

from fem_dnn.gram.form import GramForm, products
from fem_dnn.gram.march import march, march_back

Array = NDArray[np.float64]
Blockwise = Callable[[slice], Array]

ARRAYS = 6
"""Numbers per level, node and sample of a stretch that a Hessian product needs at hand: f, sigma',
sigma'', w p, df and du."""

STARTS = 3
"""Numbers per node and sample kept where a stretch starts: f, w p and df."""


@dataclass(eq=False)
class StretchState:
    """The state on a stretch.

    Attributes:
        ends: sqrt(h) f at the slab ends, shape (layers + 1, n_local, S).
        stages: The same at the levels; a view of `ends` where the scheme is explicit.
        slope: sigma'(u) at the levels.
        bend: sigma''(u) / sqrt(h) there.
    """

    ends: Array
    stages: Array
    slope: Array
    bend: Array


class Shelf:
    """Arrays that nobody uses.

    What has been in use is not given back to the system, which would clear every page that it hands
    out again: that takes as long as marching through it.
    """

    def __init__(self) -> None:
        self._arrays: dict[int, list[Array]] = {}

    def take(self, size: int) -> Array:
        """An array of so many numbers, to be filled."""
        arrays = self._arrays.get(size)
        return arrays.pop() if arrays else np.empty(size)

    def put(self, array: Array) -> None:
        """Put an array back that nobody looks at any more."""
        self._arrays.setdefault(len(array), []).append(array)


class Desk:
    """Room for the arrays of one stretch, which the next one takes over.

    Args:
        shelf: Where room comes from, and goes back to when the desk is cleared or dropped.
    """

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self._room: dict[str, Array] = {}
        self._holder: ReferenceType[Stretch] | None = None

    def array(self, name: str, shape: tuple[int, ...]) -> Array:
        """An array to be filled; its contents are those of the last one of this name."""
        size = int(np.prod(shape))
        room = self._room.get(name)
        if room is None or len(room) < size:
            if room is not None:
                self.shelf.put(room)
            room = self._room[name] = self.shelf.take(size)
        return room[:size].reshape(shape)

    def hand_to(self, stretch: Stretch) -> None:
        """Let a stretch have the room; whoever had it has to make its arrays anew."""
        holder = None if self._holder is None else self._holder()
        if holder is not None and holder is not stretch:
            holder.clear()
        self._holder = ref(stretch)

    def drop(self, *names: str) -> None:
        """Give up arrays that the holder needs no more."""
        for name in names:
            if name in self._room:
                self.shelf.put(self._room.pop(name))

    def __del__(self) -> None:
        self.drop(*list(self._room))


class Stretch:
    """Some neighbouring slabs at one control.

    `solve` comes first, then `solve_back`; from then on `state` and `costate` are there when asked
    for.

    Args:
        form: The form on these slabs.
        desk: Where the arrays of all levels are.
        coordinates: Of q, sqrt(omega h) q, shape (levels, n_local, S); a view, kept.
        given: Values of a bias that is no control, shape (levels, n_local, 1), or None.

    Attributes:
        gram, qq: <f_s, f_s'> and <q_s, q_s'> at the levels, shape (levels, S, S).
        qr, ee: <q_s, r_s'> and <e_s, e_s'>, e = q + r.
    """

    gram: Array
    qr: Array
    ee: Array

    def __init__(self, form: GramForm, desk: Desk, coordinates: Array, given: Array | None) -> None:
        self.form, self.desk = form, desk
        self.coordinates, self.given = coordinates, given
        self.qq = form.inner(coordinates, coordinates) / form.root_omega**2
        self._state: StretchState | None = None
        self._costate: Array | None = None

    def clear(self) -> None:
        """Leave the arrays of all levels to others."""
        self._state = self._costate = None

    def room(self, name: str) -> Array:
        """An array of the desk: one value per level, node and sample."""
        return self._room(name)[: len(self.coordinates)]

    def room_for_ends(self, name: str) -> tuple[Array, Array]:
        """Arrays for an equation's values at the slab ends and at the levels."""
        levels = self.form.network.levels
        ends = self._room(name)[: levels.layers + 1]
        return ends, ends[:-1] if levels.scheme.explicit else self.room(f"stages of {name}")

    def _room(self, name: str) -> Array:
        levels = self.form.network.levels
        most = max(levels.count, levels.layers + 1)
        return self.desk.array(name, (most, *self.coordinates.shape[1:]))

    def q(self, part: slice, rows: slice) -> Array:
        """sqrt(h) q at some levels and nodes, a new array."""
        return np.asarray(self.coordinates[part, rows] * (1 / self.form.root_omega[part]))

    def u(self, part: slice, rows: slice, gram: Array) -> Array:
        """Values of u there, K q and what is given; a new array."""
        u = self.coordinates[part, rows] @ (self.form.K(gram) / self.form.root_omega[part])
        u /= self.form.root[rows]
        if self.given is not None:
            u += self.given[part, rows]
        return np.asarray(u)

    def solve(self, start: Array, tracked: Array) -> Array:
        """Solve the state equation on this stretch (collective).

        Args:
            start: sqrt(h) f where it starts; kept.
            tracked: Filled with sqrt(h) f at the tracking points, or empty.

        Returns:
            sqrt(h) f where the stretch ends.

        Raises:
            SlabFailure: An implicit slab did not converge.
        """
        self._start = start
        state = self._march(tracked, None)
        return state.ends[-1].copy()

    @property
    def state(self) -> StretchState:
        """The state, made anew where it is not at hand."""
        if self._state is None:
            self._march(self._start[:0], self.gram)
        assert self._state is not None
        return self._state

    def _march(self, tracked: Array, known: Array | None) -> StretchState:
        self.desk.hand_to(self)
        ends, stages = self.room_for_ends("state")
        state = StretchState(ends, stages, self.room("slope"), self.room("bend"))
        ends[0] = self._start
        self.gram = march(self.form, _StateFlow(self, state), ends, stages, tracked, known)
        self._state = state
        return state

    def solve_back(self, end: Array, residuals: Array) -> Array:
        """Solve the adjoint equation on this stretch (collective).

        Args:
            end: sqrt(h) w p where it ends; kept.
            residuals: sqrt(h) w mu (f - g) at the tracking points, or empty; kept.

        Returns:
            sqrt(h) w p where the stretch starts.
        """
        self._end, self._residuals = end, residuals
        return self._march_back(None)

    @property
    def solved_back(self) -> bool:
        """Whether the adjoint is known here."""
        return hasattr(self, "qr")

    @property
    def costate(self) -> Array:
        """sqrt(h) w p at the levels, made anew where it is not at hand."""
        if self._costate is None:
            self._march_back(np.stack([self.qr, self.ee], axis=1))
        assert self._costate is not None
        return self._costate

    def _march_back(self, known: Array | None) -> Array:
        state, p = self.state, self._end.copy()
        costate = self.room("costate")
        flow = _CostateFlow(self, state, costate)
        met = march_back(self.form, flow, p, self._residuals, known)
        self.qr, self.ee = met[:, 0], met[:, 1]
        self._costate = costate
        return p


class _StateFlow:
    """d_t f = sigma(u), u = K q."""

    keeps = False

    def __init__(self, stretch: Stretch, state: StretchState) -> None:
        self.stretch, self.made = stretch, state

    def meet(self, part: slice, *, solved: bool) -> Callable[[slice, Array], Array]:
        return lambda _rows, F: products(F, F)

    def slopes(self, part: slice, M: Array) -> Blockwise:
        stretch, made, root = self.stretch, self.made, self.stretch.form.root
        evaluate = stretch.form.network.activation.evaluate

        def at(rows: slice) -> Array:
            value, made.slope[part, rows], bend = evaluate(stretch.u(part, rows, M), 2)
            np.divide(bend, root[rows], out=made.bend[part, rows])
            return np.asarray(value * root[rows])

        return at


class _CostateFlow:
    """-d_t (w p)_s = sum_s' <q_s', r_s> f_s' / lambda_a."""

    keeps = True

    def __init__(self, stretch: Stretch, state: StretchState, costate: Array) -> None:
        self.stretch, self.state, self.costate = stretch, state, costate

    def meet(self, part: slice, *, solved: bool) -> Callable[[slice, Array], Array]:
        stretch, slope, costate = self.stretch, self.state.slope, self.costate

        def at(rows: slice, P: Array) -> Array:
            if solved:
                costate[part, rows] = P
            q, r = stretch.q(part, rows), slope[part, rows] * P
            qr = products(q, r)
            q += r
            return np.stack([qr, products(q, q)], axis=1)

        return at

    def slopes(self, part: slice, M: Array) -> Blockwise:
        C, f = self.stretch.form.kernel * M[:, 0], self.state.stages
        return lambda rows: np.asarray(f[part, rows] @ C)
