"""The BLAS that SciPy uses, as functions of C: called without Python's lock, or by our own C.

SciPy offers them to Cython, integers as C's `int`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

import numpy as np
import scipy.linalg.cython_blas as blas
from numpy.typing import NDArray

Array = NDArray[np.float64]

_REFERENCE = ctypes.POINTER(ctypes.c_int)

AT_MOST = 1 << 30
"""Numbers given to the BLAS at once: it counts them in C's `int`."""


def address(name: str) -> int:
    """Where a function of the BLAS is."""
    name_of, pointer_of = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer_of.restype = ctypes.c_void_p
    pointer_of.argtypes = [ctypes.py_object, ctypes.c_char_p]
    capsule = blas.__pyx_capi__[name]
    found: int = pointer_of(capsule, name_of(capsule))
    return found


def add_multiple(factor: float, values: Array, out: Array) -> None:
    """out += factor values, in one pass.

    Args:
        factor: The factor.
        values: Real numbers; copied where they are not contiguous and in double precision.
        out: Contiguous, in double precision, of the same shape.

    Raises:
        ValueError: If out is not so.
    """
    values = np.ascontiguousarray(values, np.float64)
    if out.dtype != np.float64 or not out.flags.carray or out.shape != values.shape:
        raise ValueError(
            f"a multiple of {values.shape} in double precision cannot be added to {out.dtype} of"
            f" shape {out.shape} and strides {out.strides}"
        )
    scale, one = ctypes.c_double(factor), ctypes.c_int(1)
    source, target = (a.__array_interface__["data"][0] for a in (values, out))
    for first in range(0, out.size, AT_MOST):
        count = ctypes.c_int(min(AT_MOST, out.size - first))
        _axpy()(count, scale, source + 8 * first, one, target + 8 * first, one)


@cache
def _axpy() -> Callable[..., None]:
    arguments = (_REFERENCE, ctypes.POINTER(ctypes.c_double), ctypes.c_void_p, _REFERENCE)
    return ctypes.CFUNCTYPE(None, *arguments, ctypes.c_void_p, _REFERENCE)(address("daxpy"))
