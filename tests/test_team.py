"""Threads that share sweeps: the same results as one alone, and failures are passed on."""

import threading

import pytest
from helpers import random_problem, relative, uniform
from mpi4py import MPI

from fem_dnn.problem import LearningProblem
from fem_dnn.slab import SlabFailure
from fem_dnn.team import at_once, several, share, team
from fem_dnn.threads import suitable_threads

SCHEMES = ["resnet", "dg1"]


def problem(scheme: str, samples: int = 5, **options) -> LearningProblem:
    return random_problem(MPI.COMM_SELF, scheme=scheme, samples=samples, **options)


@pytest.mark.parametrize("size", [2, 3, 9])
@pytest.mark.parametrize("options", [{}, {"mask": True}, {"tracking": True}, {"kernel": False}])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_team_finds_what_one_finds(scheme: str, options: dict, size: int) -> None:
    """With more threads than samples too."""
    one, several_ = problem(scheme, **options), problem(scheme, **options)
    control, direction = (one.controls.random_direction(seed) for seed in (1, 2))
    alone = one.linearise(control)
    expected = alone.objective, alone.gradient, alone.hessian_action(direction)
    with team(size):
        together = several_.linearise(control)
        found = together.objective, together.gradient, together.hessian_action(direction)
    assert found[0] == pytest.approx(expected[0], rel=1e-14)
    assert relative(found[1], expected[1]) < 1e-13
    assert relative(found[2], expected[2]) < 1e-13


def test_parts_are_done_by_threads_of_their_own() -> None:
    meeting, seen = threading.Barrier(3, timeout=20), []

    def work(part: slice) -> None:
        meeting.wait()  # passes only if all three are at work at the same time
        seen.append((part.start, part.stop))

    with team(3):
        share(work, 7)
    assert sorted(seen) == [(0, 2), (2, 4), (4, 7)]


@pytest.mark.parametrize("failing", [0, 1])
def test_failures_are_passed_on_when_all_have_ended(failing: int) -> None:
    done = []

    def work(part: slice) -> None:
        if part.start == failing:
            raise SlabFailure(0.0, 1.0, 1.0, 3)
        done.append(part.start)

    with team(2), pytest.raises(SlabFailure):
        share(work, 2)
    assert done == [1 - failing]


def test_outside_a_team_nothing_is_parted() -> None:
    parts = []
    with team(4):
        pass
    share(parts.append, 6)
    assert parts == [slice(0, 6)]


def test_several_cover_everything_once() -> None:
    for numbers in (1, 10_000, 10**9):
        parts = list(several(slice(3, 20), numbers))
        assert [n for part in parts for n in range(20)[part]] == list(range(3, 20))
        assert all(part.stop - part.start <= at_once(numbers) for part in parts)


@pytest.mark.parametrize(("cells", "samples", "parts"), [(400, 400, 2), (8, 400, 1), (7000, 2, 1)])
def test_samples_are_shared_where_that_pays(
    monkeypatch, cells: int, samples: int, parts: int
) -> None:
    """With large products and many samples."""
    monkeypatch.setattr("fem_dnn.threads.blas_threads", lambda: 2)
    large = problem("resnet", cells=cells, samples=samples, points=uniform(1, 1), kernel=False)
    found: list[slice] = []
    with suitable_threads(large):
        share(found.append, 10)
    assert len(found) == parts
