"""Kernel rows and biases along a few features (`features.c`), called with NumPy arrays.

Arrays are those of `fem_dnn.features`.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fem_dnn.native.blas import address
from fem_dnn.native.library import NotCompiled, function, library
from fem_dnn.native.sweeps import pointer
from fem_dnn.team import share

Array = NDArray[np.float64]
Numbers = NDArray[np.floating]

FUNCTIONS = {"along_features": 4, "times_matrices": 3, "move_along_features": 7}
"""Of `features.c`, and how many arrays they take."""

PRECISIONS: dict[np.dtype[Any], tuple[str, str]] = {
    np.dtype(np.float64): ("", "dgemm"),
    np.dtype(np.float32): ("_single", "sgemm"),
}
"""What is added to their names, and the product that they use."""


class _Size(ctypes.Structure):
    """`size` of `features.c`."""

    _fields_ = (
        *((name, ctypes.c_long) for name in ("first", "last", "nodes", "rows", "rank")),
        ("gemm", ctypes.c_void_p),
    )


class CompiledFeatures:
    """Psi at every level, and a matrix M at every node.

    Args:
        code: The library.
        psi: Shape (levels, rows, rank); rows are those of the kernel and then the bias'.
        matrices: M, shape (levels, nodes, rank, rank), in the precision of Psi: double or single.

    Arguments of another shape or precision than here, or whose values C would have to change and
    are not contiguous, are refused by ValueError.
    """

    def __init__(self, code: ctypes.CDLL, psi: Numbers, matrices: Numbers) -> None:
        self._dtype = psi.dtype
        self.psi, self.matrices = (np.ascontiguousarray(a, self._dtype) for a in (psi, matrices))
        levels, nodes, rank = self.matrices.shape[:3]
        _of_shape("M", self.matrices, (levels, nodes, rank, rank))
        _of_shape("Psi", self.psi, (levels, self.psi.shape[1], rank))
        self._code = code
        suffix, gemm = PRECISIONS[self._dtype]
        self._gemm = address(gemm)
        self._along, self._times, self._move = (
            function(code, name + suffix, [ctypes.POINTER(_Size), *[ctypes.c_void_p] * count])
            for name, count in FUNCTIONS.items()
        )

    def single(self) -> CompiledFeatures:
        """The same in single precision."""
        psi, matrices = (array.astype(np.float32) for array in (self.psi, self.matrices))
        return CompiledFeatures(self._code, psi, matrices)

    def _size(self, levels: slice, kernel: Numbers | None) -> _Size:
        _, nodes, rank, _ = self.matrices.shape
        rows = 0 if kernel is None else kernel.shape[1]
        return _Size(levels.start, levels.stop, nodes, rows, rank, self._gemm)

    def _check(self, kernel: Numbers | None, bias: Numbers | None) -> None:
        """Whether kernel and bias have the rows that Psi has."""
        levels, nodes = self.matrices.shape[:2]
        rows = self.psi.shape[1] - (bias is not None)
        if kernel is not None:
            _of_shape("kernel", kernel, (levels, rows, nodes))
        elif rows != 0:
            raise ValueError(f"Psi has {rows} rows that neither kernel nor bias has")
        if bias is not None:
            _of_shape("bias", bias, (levels, nodes))

    def _pointers(self, *arrays: Numbers | None) -> list[int | None]:
        return [pointer(values, self._dtype) for values in arrays]

    def along(self, kernel: Numbers | None, bias: Numbers | None) -> Numbers:
        """Psi' of kernel [level, y, x] and bias [level, x]: shape (levels, nodes, rank)."""
        self._check(kernel, bias)
        y = np.empty(self.matrices.shape[:3], self._dtype)
        pointers = self._pointers(kernel, bias, self.psi, y)
        share(lambda levels: self._along(self._size(levels, kernel), *pointers), len(y))
        return y

    def _coordinates(self, y: Numbers) -> Numbers:
        _of_shape("coordinates", y, self.matrices.shape[:3])
        return np.ascontiguousarray(y, self._dtype)

    def reduced(self, y: Numbers) -> Numbers:
        """M y."""
        y = self._coordinates(y)
        z = np.empty(y.shape, self._dtype)
        pointers = self._pointers(self.matrices, y, z)
        share(lambda levels: self._times(self._size(levels, None), *pointers), len(y))
        return z

    def move(
        self, kernel: Numbers | None, bias: Numbers | None, z: Numbers, y: Numbers, *, reduced: bool
    ) -> None:
        """Add Psi (z - y) to a kernel and a bias; of reduced z, Psi (M' z - y)."""
        self._check(kernel, bias)
        y, z = self._coordinates(y), self._coordinates(z)
        matrices = self.matrices if reduced else None
        pointers = self._pointers(kernel, bias, self.psi, matrices, z, y)

        def work(levels: slice) -> None:
            room = np.empty(y.shape[1:], self._dtype)
            self._move(self._size(levels, kernel), *pointers, *self._pointers(room))

        share(work, len(y))


def _of_shape(name: str, values: Numbers, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise ValueError(f"{name} has shape {values.shape}, not {shape}")


def compiled_features(psi: Numbers, matrices: Numbers) -> CompiledFeatures | None:
    """The same, compiled; None where NumPy has to serve."""
    code = library()
    return None if isinstance(code, NotCompiled) else CompiledFeatures(code, psi, matrices)
