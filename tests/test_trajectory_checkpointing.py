"""Binomial checkpointing: right states, no more held than allowed, the fewest steps there are."""

from __future__ import annotations

import weakref
from functools import cache
from typing import ClassVar

import pytest

from fem_dnn.trajectory_checkpointing import backwards, repetition, steps_taken


class State:
    """A number that counts how many of its kind are alive."""

    alive: ClassVar[weakref.WeakSet[State]] = weakref.WeakSet()

    def __init__(self, number: int) -> None:
        self.number = number
        State.alive.add(self)


@cache
def fewest(steps: int, held: int) -> int:
    """Steps needed to go back over a stretch whose start is held, by dynamic programming."""
    if steps == 1:
        return 0
    if held == 1:
        return steps * (steps - 1) // 2
    return min(m + fewest(steps - m, held - 1) + fewest(m, held) for m in range(1, steps))


@pytest.mark.parametrize("held", [1, 2, 3, 5, 8, 40])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 16, 33])
def test_states_come_in_reverse_with_fewest_steps(steps: int, held: int) -> None:
    times, most = [0] * steps, 0

    def advance(n: int, state: State) -> State:
        nonlocal most
        assert state.number == 3 * n
        times[n] += 1
        new = State(state.number + 3)
        most = max(most, len(State.alive))
        return new

    seen = []
    for n, state in backwards(State(0), advance, steps, held):
        assert state.number == 3 * n
        seen.append(n)
    assert seen == list(range(steps, -1, -1))
    assert sum(times) == fewest(steps, held) + 1 == steps_taken(steps, held)
    assert max(times) <= max(repetition(steps, held), 1)
    # Besides those held: the one a step starts from and the one it makes, and the reader's last.
    assert most <= held + 3


def test_no_steps_is_the_start_alone() -> None:
    assert list(backwards("start", lambda n, state: state, 0, 1)) == [(0, "start")]
    assert steps_taken(0, 3) == 0


def test_enough_room_takes_every_step_once() -> None:
    assert steps_taken(20, 20) == 20


def test_the_start_must_be_held() -> None:
    with pytest.raises(ValueError, match="at least the start"):
        next(backwards(0, lambda n, state: state + 1, 4, 0))
