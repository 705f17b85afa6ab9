"""A trajectory backwards without holding all of it: binomial checkpointing.

An adjoint sweep wants f_{L-1}, ..., f_0, each of which comes from the one before by a step. With
room for s states at once (f_0 among them) the others are stepped to again from the nearest one
held. Where no step may be taken more than r times, s states reach over at most

    beta(s, r) = (s + r)! / (s! r!)

steps, and L of them cost at least r L - beta(s + 1, r - 1) steps, r the least with L <= beta(s, r):
memory and repeated work both grow with the logarithm of the depth only. The splitting below attains
that (Griewank & Walther, ACM Trans. Math. Softw. 26, 2000, Algorithm 799).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import comb
from typing import TypeVar

State = TypeVar("State")


def beta(held: int, times: int) -> int:
    """Steps that can be gone back over with so many states held, none taken more often than that.

    0 where no state is held or `times` is negative.
    """
    return comb(held + times, held) if held > 0 and times >= 0 else 0


def repetition(steps: int, held: int) -> int:
    """r: how often a step must be taken at most, the least with steps <= beta(held, r)."""
    times = 0
    while beta(held, times) < steps:
        times += 1
    return times


def steps_taken(steps: int, held: int) -> int:
    """Steps of the forward equation that `backwards` takes: `steps` at least, to reach the end."""
    if steps == 0:
        return 0
    times = repetition(steps, held)
    return times * steps - beta(held + 1, times - 1) + 1


def backwards(
    start: State, advance: Callable[[int, State], State], steps: int, held: int
) -> Iterator[tuple[int, State]]:
    """The states of a trajectory from its end to its start.

    At most `held` states are kept at a time, besides the two of the step being taken.
    States are handed out, not copied: whoever is given one must not change it, nor may `advance`.

    Args:
        start: The state at 0.
        advance: (n, the state at n) -> the state at n + 1, an array (or several) of its own.
        steps: Number of steps L; 0 yields the start alone.
        held: Number of states that may be kept, the start included, at least 1.

    Yields:
        (n, the state at n) for n = L, L - 1, ..., 0.
    """
    if held < 1:
        raise ValueError(f"at least the start must be held, not {held} states")
    if steps == 0:
        yield 0, start
        return
    states = _within(start, advance, 0, steps, held)
    last, state = next(states)
    yield steps, advance(last, state)
    yield last, state
    del state
    yield from states


def _within(
    start: State, advance: Callable[[int, State], State], first: int, end: int, held: int
) -> Iterator[tuple[int, State]]:
    """The states at end - 1, ..., first, from the one at `first`, which is held."""
    while end - first > 1:
        # Without room for a second state the way to each one begins at the start.
        middle = end - 1 if held == 1 else first + _stride(end - first, held)
        state = start
        for n in range(first, middle):
            state = advance(n, state)
        yield from _within(state, advance, middle, end, held - 1)
        del state  # its place is free for states before it
        end = middle
    yield first, start


def _stride(steps: int, held: int) -> int:
    """How far ahead the next state is held: no step on either side is taken too often."""
    times = repetition(steps, held)
    return max(1, min(beta(held, times - 1), steps - beta(held - 1, times - 1)))
