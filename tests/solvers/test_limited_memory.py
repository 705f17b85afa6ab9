"""What is learned of a Hessian from gradients: the limited-memory BFGS matrix along a path."""

import numpy as np
import pytest
from helpers import random_problem
from mpi4py import MPI

from fem_dnn.solvers.limited_memory import LimitedMemory

pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF


def single(vector):
    return vector.astype(np.float32)


class Path:
    """Steps of different lengths on a quadratic, H_0 = 0.4 I + 0.2 b b'.

    The Hessian is 2 I + a a', or curvature * I where that is given.
    """

    def __init__(self, comm, steps: int, size: int, curvature: float | None = None) -> None:
        controls = self.controls = random_problem(comm).controls
        self.a, self.b = (controls.random_direction(seed) for seed in (98, 99))
        self.curvature = curvature
        self.memory = LimitedMemory(controls, size)
        self.g, self.pairs = 3e-5 * controls.random_direction(0), []
        self.step(1.0)
        for number in range(1, steps):
            self.step(0.3 + 0.2 * (number % 3))

    def hessian(self, v):
        if self.curvature is not None:
            return self.curvature * v
        return 2 * v + self.controls.dot(self.a, v) * self.a

    def first(self, v):
        return 0.4 * v + 0.2 * self.controls.dot(self.b, v) * self.b

    def direction(self):
        return self.memory.direction(single(self.g), single(self.first(self.g))).astype(float)

    def step(self, part: float) -> None:
        step = -part * self.direction()
        self.memory.moved(part)
        self.pairs.append((step, self.hessian(step)))
        self.g = self.g + self.hessian(step)

    def by_recursion(self, size: int, g):
        """The two-loop recursion (Nocedal, Math. Comput. 35, 1980)."""
        dot, parts, pairs = self.controls.dot, [], self.pairs[-size:]
        for s, y in reversed(pairs):
            parts.append(dot(s, g) / dot(s, y))
            g = g - parts[-1] * y
        r = self.first(g)
        for s, y in pairs:
            r = r + s * (parts.pop() - dot(y, r) / dot(s, y))
        return r


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 6, 8, 13])
def test_is_the_recursion_of_the_last_pairs(steps: int) -> None:
    path = Path(WORLD, steps, 5)
    expected = path.by_recursion(5, path.g)
    assert path.controls.norm(path.direction() - expected) < 2e-5 * path.controls.norm(expected)


def test_first_direction_is_what_was_known_before() -> None:
    controls = random_problem(WORLD).controls
    g, first = (single(controls.random_direction(seed)) for seed in (1, 2))
    assert np.array_equal(LimitedMemory(controls, 3).direction(g, first), first)


def test_learns_nothing_where_the_curvature_is_not_positive() -> None:
    """A direction is H_0 g then, wherever the path goes."""
    for curvature in (-0.1, 1e-4):
        path = Path(WORLD, 4, 5, curvature)
        expected = path.first(path.g)
        assert path.controls.norm(path.direction() - expected) < 1e-6 * path.controls.norm(expected)
    path = Path(WORLD, 4, 5, 0.1)
    first = path.first(path.g)
    assert path.controls.norm(path.direction() - first) > 0.1 * path.controls.norm(first)


def test_is_the_same_on_any_number_of_ranks() -> None:
    directions = []
    for comm in (WORLD, SELF):
        path = Path(comm, 7, 5)
        directions.append(path.controls.values(path.direction()).kernel)
    assert np.allclose(*directions, rtol=0, atol=2e-5 * np.max(np.abs(directions[1])))
