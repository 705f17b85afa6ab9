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
    """out += factor values, in one pass, for contiguous arrays of one dimension."""
    count, one = ctypes.c_int(len(values)), ctypes.c_int(1)
    pointers = (a.__array_interface__["data"][0] for a in (values, out))
    source, target = map(ctypes.c_void_p, pointers)
    _axpy()(count, ctypes.c_double(factor), source, one, target, one)


@cache
def _axpy() -> Callable[..., None]:
    arguments = (_REFERENCE, ctypes.POINTER(ctypes.c_double), ctypes.c_void_p, _REFERENCE)
    return ctypes.CFUNCTYPE(None, *arguments, ctypes.c_void_p, _REFERENCE)(address("daxpy"))
