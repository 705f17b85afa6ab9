"""The regulariser is half the weights times the squared L2 norms, and its derivative."""

import numpy as np
import pytest
from helpers import everywhere, random_control, random_problem, relative
from mpi4py import MPI

from fem_dnn.controls import ControlValues

pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF
WEIGHTS = (0.1, 0.03, 0.7)


def problem_on(comm=WORLD, **options):
    return random_problem(
        comm, loss="mse", learn_outputs=True, degree=1, regularization=WEIGHTS, **options
    )


def test_value_is_half_the_weighted_l2_norms() -> None:
    problem = problem_on()
    control = random_control(problem)
    v = problem.controls.values(control)
    h, omega = problem.network.space.node_weights, problem.network.levels.weights
    expected = 0.5 * (
        0.1 * np.einsum("k,x,y,kxy->", omega, h, h, v.kernel**2)
        + 0.03 * np.einsum("k,x,kx->", omega, h, v.bias**2)
        + 0.7 * (np.sum(v.outputs**2 @ h) + np.sum(v.offsets**2))
    )
    assert abs(problem.regularization.value(control) - expected) < 1e-14 * expected


def test_value_of_known_functions() -> None:
    """a = 2, b = 3 on (0, 1.1) x (0, 1): the depth is that of the graded slabs."""
    problem = problem_on()
    R = problem.regularization.value(problem.controls.constant(2.0, 3.0))
    assert abs(R - 0.5 * 1.1 * (0.1 * 4 + 0.03 * 9)) < 1e-14


def test_derivative() -> None:
    """R is quadratic: R(c + d) - R(c) = R'(c) d + R(d), exactly."""
    problem = problem_on()
    R, controls = problem.regularization, problem.controls
    c, d = random_control(problem, 1), random_control(problem, 2)
    derivative = np.ones_like(c)
    R.add_derivative(c, derivative)
    left = R.value(c + d) - R.value(c) - R.value(d)
    assert abs(left - controls.dot(derivative - 1, d)) < 1e-13
    v, dv = controls.values(c), controls.values(derivative - 1)
    for name, weight in zip(("kernel", "bias", "outputs", "offsets"), (*WEIGHTS, 0.7), strict=True):
        assert relative(getattr(dv, name), weight * getattr(v, name)) < 1e-13


def test_weights_of_the_controls_that_there_are() -> None:
    assert problem_on().regularization.weights == [0.1, 0.03, 0.7]
    assert problem_on(bias=False).regularization.weights == [0.1, 0.7]
    l2 = random_problem(WORLD, kernel=False, regularization=WEIGHTS)
    assert l2.regularization.weights == [0.03]


@pytest.mark.parametrize("mask", [False, True])
def test_same_on_any_number_of_ranks(mask: bool) -> None:
    shared, alone = (problem_on(comm, mask=mask) for comm in (WORLD, SELF))
    a, b = random_control(shared), random_control(alone)
    exact = alone.regularization.value(b)
    assert abs(shared.regularization.value(a) - exact) < 1e-14 * exact
    da, db = np.zeros_like(a), np.zeros_like(b)
    shared.regularization.add_derivative(a, da)
    alone.regularization.add_derivative(b, db)
    assert relative(everywhere(shared, da), everywhere(alone, db)) < 1e-14


def test_nothing_is_learned_nothing_is_paid() -> None:
    problem = problem_on()
    nothing = problem.controls.coordinates(ControlValues())
    assert problem.regularization.value(nothing) == 0.0
