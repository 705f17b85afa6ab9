"""What is learned of a Hessian from gradients: the limited-memory BFGS matrix."""

import numpy as np
import pytest
from helpers import random_problem
from mpi4py import MPI

from fem_dnn.solvers.limited_memory import LimitedMemory

pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF
GAMMA = 0.4


def single(vector):
    return vector.astype(np.float32)


def pairs_of(controls, count: int):
    """Steps, and the changes of the gradient of a quadratic with curvatures from 2 to 3."""
    steps = [controls.random_direction(seed) for seed in range(count)]
    along = controls.random_direction(99)
    return [(s, 2 * s + controls.dot(along, s) * along) for s in steps]


def learned(comm, count: int, size: int):
    controls = random_problem(comm).controls
    memory, pairs = LimitedMemory(controls, GAMMA, size), pairs_of(controls, count)
    for step, change in pairs:
        memory.add(single(3e-5 * step), single(3e-5 * change))
    return controls, memory, pairs


def by_recursion(controls, pairs, g):
    """The two-loop recursion (Nocedal, Math. Comput. 35, 1980)."""
    parts = []
    for s, y in reversed(pairs):
        parts.append(controls.dot(s, g) / controls.dot(s, y))
        g = g - parts[-1] * y
    r = GAMMA * g
    for s, y in pairs:
        r = r + s * (parts.pop() - controls.dot(y, r) / controls.dot(s, y))
    return r


@pytest.mark.parametrize("count", [0, 1, 4, 5, 7, 12])
def test_is_the_recursion_of_the_last_pairs(count: int) -> None:
    controls, memory, pairs = learned(WORLD, count, 5)
    g = controls.random_direction(50)
    expected = by_recursion(controls, pairs[-5:], g)
    assert controls.norm(memory.apply(single(g)) - expected) < 1e-6 * controls.norm(expected)


def test_secant_equation() -> None:
    controls, memory, pairs = learned(WORLD, 8, 5)
    step, change = pairs[-1]
    assert controls.norm(memory.apply(single(change)) - step) < 1e-6


def test_learns_nothing_where_the_curvature_is_not_positive() -> None:
    controls, memory, _ = learned(WORLD, 3, 5)
    g = single(controls.random_direction(50))
    before = memory.apply(g)
    step = single(controls.random_direction(7))
    memory.add(step, -step)
    memory.add(step, np.float32(1e-4) * step)
    assert np.array_equal(memory.apply(g), before)


def test_is_the_same_on_any_number_of_ranks() -> None:
    products = []
    for comm in (WORLD, SELF):
        controls, memory, _ = learned(comm, 7, 5)
        product = memory.apply(single(controls.random_direction(50))).astype(float)
        products.append(controls.values(product).kernel)
    assert np.allclose(*products, rtol=0, atol=1e-6 * np.max(np.abs(products[1])))
