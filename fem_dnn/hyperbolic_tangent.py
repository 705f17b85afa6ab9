"""tanh in double precision where NumPy's own is slow: on x86 without AVX-512.

With k = round(128 u), r = u - k / 128 and t = tanh(k / 128) from a table,

    tanh u = (t + tanh r) / (1 + t tanh r),    tanh r = r (15 + r^2) / (15 + 6 r^2) + O(r^7 / 1575),

where |r| <= 1/256 makes the remainder 2e-18 of the value. The result is odd to the last bit, never
beyond 1, and within three units in the last place. What it takes are multiplications and one look
into a table of 64 kB for each entry, in blocks that stay in the cache.
"""

from __future__ import annotations

import platform

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

BLOCK = 1 << 15
"""Entries worked on at once: the arrays that this takes stay in the cache."""

_STEPS = 128.0  # per unit; a power of 2, so that scaling by it is exact
_ENTRIES = 8192  # of the table; entry k belongs to k / 128, negative k to its end
_TABLE = np.tanh(np.fft.fftfreq(_ENTRIES, 1 / _ENTRIES) / _STEPS)

# As arrays: NumPy would make these of numbers first, which takes longer than a small block.
_LARGEST = np.array(20.0)  # tanh is 1 to the last bit from 19.1 on
_SMALLEST = -_LARGEST
_SCALE = np.array(_STEPS)
_ROUNDING = np.array(1.5 * 2.0**52)  # added to a number, it leaves the nearest integer's last bits
_MASK = np.array(_ENTRIES - 1)
_ABOVE, _BELOW_0, _BELOW_1 = (np.array(c) for c in (15 * _STEPS**2, 15 * _STEPS**3, 6 * _STEPS))


def tanh(u: Array, out: Array) -> None:
    """Put the tanh of u into an array of the same shape, which may be u itself."""
    if _NUMPY_IS_QUICK or u.ndim == 0:
        np.tanh(u, out=out)
    else:
        by_table(u, out)


def by_table(u: Array, out: Array) -> None:
    """The same by the formula above, for arrays of at least one dimension."""
    if u.size <= BLOCK:
        _block(u, out)
    elif len(u) == 1:
        by_table(u[0], out[0])
    else:
        rows = max(1, BLOCK * len(u) // u.size)
        for start in range(0, len(u), rows):
            by_table(u[start : start + rows], out[start : start + rows])


def _block(u: Array, out: Array) -> None:
    r, t, d = np.empty((3, *u.shape))
    np.minimum(u, _LARGEST, out=r)
    np.maximum(r, _SMALLEST, out=r)
    np.multiply(r, _SCALE, out=r)
    np.add(r, _ROUNDING, out=t)
    k = np.bitwise_and(t.view(np.int64), _MASK)
    np.subtract(t, _ROUNDING, out=t)
    np.subtract(r, t, out=r)  # 128 r, from here on
    t = _TABLE[k]
    np.multiply(r, r, out=d)
    # tanh r = n / d, both times 128^3.
    n = np.add(d, _ABOVE, out=out)
    np.multiply(n, r, out=n)
    np.multiply(d, _BELOW_1, out=d)
    np.add(d, _BELOW_0, out=d)
    np.multiply(t, n, out=r)
    np.multiply(t, d, out=t)
    np.add(t, n, out=t)
    np.add(d, r, out=d)
    np.divide(t, d, out=out)


def _numpy_is_quick() -> bool:
    """Whether NumPy computes eight tanh at once here (17 ns each where it does not)."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    found = np.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", [])
    return any(name.startswith("AVX512") or name == "X86_V4" for name in found)


_NUMPY_IS_QUICK = _numpy_is_quick()
