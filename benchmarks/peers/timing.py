"""Times of single calls, and the machine's rate of matrix products in the same process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

ORDER = 1500
SECONDS = 1.0
LEAST, MOST = 3, 200


def own_seconds(call: Callable[[], object]) -> float:
    """Median of the process's own time for a call, over a second of calls.

    A first call that is short, and may have had to warm up, does not count.
    """
    times: list[float] = []
    while len(times) < LEAST or (sum(times) < SECONDS and len(times) < MOST):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    if times[0] < SECONDS:
        times = times[1:]
    return statistics.median(times)


def product_gflops() -> float:
    """Rate of a product of two square matrices of doubles, by NumPy and its BLAS, in 1e9/s."""
    a = np.random.default_rng(0).standard_normal((ORDER, ORDER))
    out = np.empty_like(a)
    return 2e-9 * ORDER**3 / own_seconds(lambda: np.matmul(a, a, out=out))
