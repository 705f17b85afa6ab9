"""Inverse Cholesky factors of many small matrices (`factors.c`), called with NumPy arrays."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from fem_dnn.native.library import NotCompiled, function, library
from fem_dnn.native.sweeps import pointer
from fem_dnn.team import share

Array = NDArray[np.float64]

LANES = 8
"""Of the longest vectors that a processor has."""


def compiled_inverse_factors(matrices: Array) -> Array | None:
    """L^{-1} with L L' = I + M, or I where there is no L; None where NumPy has to serve.

    Args:
        matrices: M, symmetric, shape (..., n, n); their lower triangles are read.
    """
    code = library()
    if isinstance(code, NotCompiled):
        return None
    invert = function(code, "inverse_factors", [*[ctypes.c_long] * 3, *[ctypes.c_void_p] * 3])
    given = np.ascontiguousarray(matrices, np.float64)
    n, out = given.shape[-1], np.empty(given.shape)

    def work(some: slice) -> None:
        room = np.empty(n * n * LANES + LANES)
        skip = -room.ctypes.data // room.itemsize % LANES  # to where vectors may lie
        invert(some.start, some.stop, n, *map(pointer, (given, out, room[skip:])))

    share(work, given.size // max(n * n, 1))
    return out
