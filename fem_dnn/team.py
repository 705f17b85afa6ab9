"""Portions of the work of a sweep: by threads that share it, and as much at once as stays in cache.

Samples meet only in sums, so state and adjoint are solved for a part of them by each thread, with
matrix products on one thread: nobody waits for anybody inside a sweep, and what is done entry by
entry is shared too. NumPy lets other threads run while it computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise

AT_ONCE = 1 << 16
"""Numbers of an array worked on at once where its parts do not wait for each other."""

_size = 1


@contextmanager
def team(size: int) -> Iterator[None]:
    """Let so many threads share what is given to `share` in the meantime."""
    global _size
    before, _size = _size, size
    try:
        yield
    finally:
        _size = before


def share(work: Callable[[slice], None], count: int) -> None:
    """Do work on range(count), in contiguous parts of it at the same time.

    Args:
        work: Called with each part; must not communicate with other ranks.
        count: Length of the range.

    Raises:
        Exception: The first part's that failed, when all have ended.
    """
    size = min(_size, count)
    if size <= 1:
        work(slice(0, count))
        return
    bounds = [number * count // size for number in range(size + 1)]
    first, *others = (slice(*ends) for ends in pairwise(bounds))
    waiting = [_pool().submit(work, part) for part in others]
    try:
        work(first)
    finally:
        errors = [each.exception() for each in waiting]
    for error in errors:
        if error is not None:
            raise error


def several(levels: slice, numbers: int) -> Iterator[slice]:
    """Levels in turn, as many at a time as are worked on at once.

    Args:
        levels: The levels, or whatever else an array's first index counts.
        numbers: Numbers of one of them.
    """
    step = at_once(numbers)
    for first in range(levels.start, levels.stop, step):
        yield slice(first, min(first + step, levels.stop))


def at_once(numbers: int) -> int:
    """How many levels of so many numbers are worked on at once."""
    return max(1, AT_ONCE // max(numbers, 1))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="sweep")
