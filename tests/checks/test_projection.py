"""What the checks say of bounded controls."""

import numpy as np
import pytest
from helpers import random_control, random_problem
from mpi4py import MPI

from fem_dnn.checks import Subject, projection_formula, second_order
from fem_dnn.solvers import Tolerances, solve_newton

pytestmark = pytest.mark.mpi

TOLERANCES = Tolerances(rtol=1e-9)


def subject(**options) -> Subject:
    problem = random_problem(
        MPI.COMM_WORLD, scheme="resnet", regularization=(0.2, 0.1, 0.2), **options
    )
    start = random_control(problem, scale=0.1)
    return Subject.of_linearisation(solve_newton(problem, start, TOLERANCES).at, start)


def test_the_formula_holds_at_a_solution_and_nowhere_else() -> None:
    solved = subject(bounds={"kernel": (-0.3, 0.4), "bias": (-0.1, 0.2)})
    check = projection_formula(solved, TOLERANCES)
    assert check.holds and check.value < check.bound, check.explanation
    assert solved.at is not None
    moved = solved.at.problem.controls.project(0.9 * solved.at.control)
    spoilt = Subject.of_linearisation(solved.at.problem.linearise(moved), solved.initial)
    assert projection_formula(spoilt, TOLERANCES).holds is False


def test_it_needs_bounds() -> None:
    check = projection_formula(subject(kernel=False), TOLERANCES)
    assert check.holds is None and "no control has bounds" in check.explanation


def test_second_order_is_that_of_the_free_controls() -> None:
    solved = subject(bounds={"kernel": (-0.3, 0.4), "bias": (-0.1, 0.2)})
    check = second_order(solved)
    assert check.holds, check.explanation
    assert solved.at is not None
    inside = np.count_nonzero(~solved.at.problem.controls.box.active(solved.at.control))
    free = int(solved.at.problem.network.space.sum(np.array(inside)))
    assert f"on the {free} controls that no bound holds" in check.explanation
