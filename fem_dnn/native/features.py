"""Kernel rows and biases along a few features (`features.c`), called with NumPy arrays.

Arrays are those of `fem_dnn.features`.
"""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from fem_dnn.native.blas import address
from fem_dnn.native.library import NotCompiled, library
from fem_dnn.native.sweeps import pointer
from fem_dnn.team import share

Array = NDArray[np.float64]


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
        matrices: M, shape (levels, nodes, rank, rank).

    Arguments of another shape than here or of another than double precision, or whose values C
    would have to change and are not contiguous, are refused by ValueError.
    """

    def __init__(self, code: ctypes.CDLL, psi: Array, matrices: Array) -> None:
        self.psi, self.matrices = (np.ascontiguousarray(a, np.float64) for a in (psi, matrices))
        levels, nodes, rank = self.matrices.shape[:3]
        _of_shape("M", self.matrices, (levels, nodes, rank, rank))
        _of_shape("Psi", self.psi, (levels, self.psi.shape[1], rank))
        self._code, self._gemm = code, address("dgemm")
        for name, count in (
            ("along_features", 4),
            ("times_matrices", 3),
            ("move_along_features", 7),
        ):
            function = getattr(code, name)
            function.argtypes = [ctypes.POINTER(_Size), *[ctypes.c_void_p] * count]
            function.restype = None

    def _size(self, levels: slice, kernel: Array | None) -> _Size:
        _, nodes, rank, _ = self.matrices.shape
        rows = 0 if kernel is None else kernel.shape[1]
        return _Size(levels.start, levels.stop, nodes, rows, rank, self._gemm)

    def _check(self, kernel: Array | None, bias: Array | None) -> None:
        """Whether kernel and bias have the rows that Psi has."""
        levels, nodes = self.matrices.shape[:2]
        rows = self.psi.shape[1] - (bias is not None)
        if kernel is not None:
            _of_shape("kernel", kernel, (levels, rows, nodes))
        elif rows != 0:
            raise ValueError(f"Psi has {rows} rows that neither kernel nor bias has")
        if bias is not None:
            _of_shape("bias", bias, (levels, nodes))

    def along(self, kernel: Array | None, bias: Array | None) -> Array:
        """Psi' of kernel [level, y, x] and bias [level, x]: shape (levels, nodes, rank)."""
        self._check(kernel, bias)
        y = np.empty(self.matrices.shape[:3])
        pointers, along = (
            [pointer(a) for a in (kernel, bias, self.psi, y)],
            self._code.along_features,
        )
        share(lambda levels: along(self._size(levels, kernel), *pointers), len(y))
        return y

    def _coordinates(self, y: Array) -> Array:
        _of_shape("coordinates", y, self.matrices.shape[:3])
        return np.ascontiguousarray(y, np.float64)

    def reduced(self, y: Array) -> Array:
        """M y."""
        y = self._coordinates(y)
        z = np.empty(y.shape)
        pointers, times = [pointer(a) for a in (self.matrices, y, z)], self._code.times_matrices
        share(lambda levels: times(self._size(levels, None), *pointers), len(y))
        return z

    def move(
        self, kernel: Array | None, bias: Array | None, z: Array, y: Array, *, reduced: bool
    ) -> None:
        """Add Psi (z - y) to a kernel and a bias; of reduced z, Psi (M' z - y)."""
        self._check(kernel, bias)
        y, z = self._coordinates(y), self._coordinates(z)
        matrices = self.matrices if reduced else None
        pointers = [pointer(a) for a in (kernel, bias, self.psi, matrices, z, y)]

        def work(levels: slice) -> None:
            room = np.empty(y.shape[1:])
            size = self._size(levels, kernel)
            self._code.move_along_features(size, *pointers, pointer(room))

        share(work, len(y))


def _of_shape(name: str, values: Array, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise ValueError(f"{name} has shape {values.shape}, not {shape}")


def compiled_features(psi: Array, matrices: Array) -> CompiledFeatures | None:
    """The same, compiled; None where NumPy has to serve."""
    code = library()
    return None if isinstance(code, NotCompiled) else CompiledFeatures(code, psi, matrices)
