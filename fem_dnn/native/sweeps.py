"""The compiled sweeps, called with NumPy arrays.

Equations and shapes are those of `sweeps.c`. Arrays are [level, node, sample] and may be parts of
larger ones along the samples. Python's other threads run in the meantime.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fem_dnn.depth import DepthLevels
from fem_dnn.native.blas import address
from fem_dnn.native.library import NotCompiled, function, library
from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]

DOUBLE = np.dtype(np.float64)

_Pointer = ctypes.c_void_p
_Long = ctypes.c_long
_Real = ctypes.c_double


class _Levels(ctypes.Structure):
    """`array` of `sweeps.c`."""

    _fields_ = (("at", _Pointer), ("level", _Long), ("row", _Long))


class _Network(ctypes.Structure):
    """`network` of `sweeps.c`."""

    _fields_ = (
        *((name, _Long) for name in ("layers", "nodes", "samples")),
        *((name, _Pointer) for name in ("tau", "inverse", "root", "gemm")),
    )


_NOTHING = _Levels(None, 0, 0)
_NET = ctypes.POINTER(_Network)
_MANY = ctypes.POINTER(_Levels)
_SIGNATURES = {
    "state_sweep": [_NET, *[_Pointer] * 2, ctypes.c_int, *[_Levels] * 3, _Real, _Pointer],
    "curvature_sweep": [
        *(_NET, _Long, _Long, _Pointer, _Pointer, ctypes.c_int),
        *([_Levels] * 3),
        _Pointer,
    ],
    "tangent_sweep": [_NET, *[_Pointer] * 3, *[_Levels] * 6, _Real, _Pointer],
    "adjoint_sweep": [_NET, _Pointer, *[_Levels] * 5, _Real, _Real, _Pointer],
    "second_adjoint_sweep": [
        *(_NET, _Pointer, _Pointer),
        *([_Levels] * 5),
        *(_Pointer, _Real, _Real, _Pointer),
    ],
    "sums_over_samples": [
        *(_NET, _Long, _Long, _Long, _MANY, _MANY, _MANY),
        *(_Pointer, _Pointer, _Real, _Pointer, _Pointer, _Pointer),
    ],
}


def pointer(values: NDArray[np.floating] | None, dtype: np.dtype[Any] = DOUBLE) -> int | None:
    """Where contiguous values of a precision lie; the caller keeps them.

    Raises:
        ValueError: If C would read them as other numbers than they are.
    """
    if values is None:
        return None
    if not values.flags.c_contiguous or values.dtype != dtype:
        precision = "double" if dtype == DOUBLE else "single"
        raise ValueError(
            f"contiguous numbers in {precision} precision are needed, not {_kind(values)}"
        )
    address: int = values.__array_interface__["data"][0]
    return address


def _levels(values: Array | None) -> _Levels:
    """An array [level, node, sample] with samples next to each other; the caller keeps it.

    Raises:
        ValueError: If C would read it as other numbers than they are.
    """
    if values is None or values.size == 0:
        return _NOTHING
    if values.dtype != np.float64 or (values.strides[2] != 8 and values.shape[2] > 1):
        raise ValueError(
            f"numbers in double precision, next to each other, are needed, not {_kind(values)}"
        )
    level, row, _ = values.strides
    return _Levels(values.__array_interface__["data"][0], level // 8, row // 8)


def _kind(values: NDArray[np.floating]) -> str:
    return f"{values.dtype} of shape {values.shape} and strides {values.strides}"


def _readable(values: Array | None) -> Array | None:
    """The same in double precision with samples next to each other, a copy where they are not."""
    if values is None or (values.strides[-1] == 8 and values.dtype == np.float64):
        return values
    return np.ascontiguousarray(values, np.float64)


def _contiguous(values: Array | None) -> Array | None:
    return None if values is None else np.ascontiguousarray(values, np.float64)


class CompiledSweeps:
    """Sweeps of one network.

    Args:
        space: Width space, on one rank.
        levels: Depth levels of an explicit scheme with one stage.
        code: The library.
    """

    def __init__(self, space: WidthSpace, levels: DepthLevels, code: ctypes.CDLL) -> None:
        self._code, self._product = code, address("dgemm")
        for name, arguments in _SIGNATURES.items():
            function(code, name, arguments)
        scheme, root = levels.scheme, space.sqrt_weights
        equal = bool(np.all(root == root[0]))
        self._steps = np.ascontiguousarray(levels.steps, np.float64)
        self._inverse = 1 / np.sqrt(levels.weights)
        self._root = None if equal else np.ascontiguousarray(root, np.float64)
        self._common = float(root[0]) if equal else 1.0
        self._scale = np.sqrt(levels.weights)[:, None] * root
        # Of the tracking point: where it lies between the slab's ends, and what it feeds back.
        self._inside = float(scheme.tracking_stages[0, 0])
        self._fed = float(scheme.adjoint_tracking[0, 0]), float(scheme.tracking_weights[0])

    def _network(self, nodes: int, samples: int) -> _Network:
        pointers = (self._steps, self._inverse, self._root)
        return _Network(len(self._steps), nodes, samples, *map(pointer, pointers), self._product)

    def state(
        self,
        activation: int,
        weights: tuple[Array | None, Array | None],
        f: Array,
        slope: Array,
        tracked: Array,
    ) -> None:
        """Fill f, of which the first level is given, sigma'(u) and f at the tracking points.

        Args:
            activation: Its number in `activations.h`.
            weights: Coefficients of the kernel and values of the bias; None where there is none.
            f, slope, tracked: As in `fem_dnn.state.StateTrajectory`.
        """
        kept, room = [*map(_contiguous, weights)], np.empty((2, *f.shape[1:]))
        self._code.state_sweep(
            self._network(*f.shape[1:]),
            *map(pointer, kept),
            activation,
            *map(_levels, (f, slope, tracked)),
            self._inside,
            pointer(room),
        )

    def curvature(
        self,
        levels: slice,
        activation: int,
        weights: tuple[Array | None, Array | None],
        f: Array,
        p: Array,
        out: Array,
    ) -> None:
        """Fill sigma''(u) p at some levels; arguments as above, p at the levels."""
        kept, room = [*map(_contiguous, weights)], np.empty((2, *out.shape[1:]))
        given = [_readable(a) for a in (f, p)]
        self._code.curvature_sweep(
            self._network(*out.shape[1:]),
            *(levels.start, levels.stop),
            *map(pointer, kept),
            activation,
            *map(_levels, (*given, out)),
            pointer(room),
        )

    def tangent(
        self,
        kernel: Array | None,
        direction: tuple[Array | None, Array | None],
        f: Array,
        slope: Array,
        source: Array | None,
        df: Array,
        du: Array,
        tracked: Array,
    ) -> None:
        """Fill df, of which the first level is given, du and df at the tracking points."""
        kept, room = [_contiguous(a) for a in (kernel, *direction)], np.empty((2, *f.shape[1:]))
        given = [_readable(a) for a in (f, slope, source)]
        self._code.tangent_sweep(
            self._network(*f.shape[1:]),
            *map(pointer, kept),
            *map(_levels, (*given, df, du, tracked)),
            self._inside,
            pointer(room),
        )

    def adjoint(
        self,
        kernel: Array | None,
        slope: Array,
        residuals: Array,
        source: Array | None,
        p: Array,
        stages: Array | None,
    ) -> None:
        """Fill p, of which the last level is given.

        Args:
            kernel: Coefficients.
            slope, residuals, source: As in `fem_dnn.adjoint.solve_adjoint`.
            p: p at the slab ends.
            stages: P + source at the levels; None where that is p at the slabs' ends.
        """
        kept, room = _contiguous(kernel), np.empty((2, *p.shape[1:]))
        given = [_readable(a) for a in (slope, residuals, source)]
        self._code.adjoint_sweep(
            self._network(*p.shape[1:]),
            pointer(kept),
            *map(_levels, (*given, p, stages)),
            *self._fed,
            pointer(room),
        )

    def second_adjoint(
        self,
        kernel: Array | None,
        direction: Array | None,
        slope: Array,
        curvature: Array,
        P: Array,
        residuals: Array,
        terminal: Array,
        du: Array,
    ) -> None:
        """Put dq in the place of du; arguments as in `fem_dnn.adjoint.solve_second_adjoint`."""
        kept = [_contiguous(kernel), _contiguous(direction)]
        given = [_readable(a) for a in (slope, curvature, P, residuals)]
        dp, room = np.array(terminal, order="C"), np.empty((3, *terminal.shape))
        self._code.second_adjoint_sweep(
            self._network(*terminal.shape),
            *map(pointer, kept),
            *map(_levels, (*given, du)),
            pointer(dp),
            *self._fed,
            pointer(room),
        )

    def sums(
        self,
        levels: slice,
        w: Array,
        pairs: Sequence[tuple[tuple[Array, ...], Array | None]],
        kernel: Array | None,
        bias: Array | None,
    ) -> None:
        """Fill some levels of a control vector's parts with sums over samples (`sample_sums`).

        Args:
            levels: The levels.
            w: Sample weights.
            pairs: One or two arrays whose product is q, and f, at all levels.
            kernel, bias: The parts, all levels; None where they are not wanted.
        """
        nodes, samples = self._scale.shape[1], len(w)
        lefts = [[_readable(a) for a in (*left, None)[:2]] for left, _ in pairs]
        fs = [_readable(f) for _, f in pairs]
        room = np.empty((2, nodes, samples))
        w = np.ascontiguousarray(w, np.float64)

        def several(arrays: Sequence[Array | None]) -> ctypes.Array[_Levels]:
            return (_Levels * len(arrays))(*map(_levels, arrays))

        self._code.sums_over_samples(
            self._network(nodes, samples),
            *(levels.start, levels.stop, len(pairs)),
            *(several([left[k] for left in lefts]) for k in range(2)),
            several(fs),
            *(pointer(w), pointer(self._scale), self._common),
            *(pointer(kernel), pointer(bias), pointer(room)),
        )


def compiled_sweeps(space: WidthSpace, levels: DepthLevels) -> CompiledSweeps | None:
    """The compiled sweeps of a network; None where those in NumPy have to serve."""
    scheme = levels.scheme
    one_stage = scheme.explicit and scheme.levels == len(scheme.tracking_points) == 1
    if space.comm.size > 1 or not one_stage:
        return None
    code = library()
    return None if isinstance(code, NotCompiled) else CompiledSweeps(space, levels, code)
