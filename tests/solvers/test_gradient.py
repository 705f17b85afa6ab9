"""Gradient descent: its step lengths, its nonmonotone rule. See test_methods for the rest."""

import numpy as np
import pytest
from helpers import random_control, random_problem
from mpi4py import MPI

from fem_dnn.solvers import Tolerances, solve_gradient
from fem_dnn.solvers.gradient import MEMORY, SHORT

pytestmark = pytest.mark.mpi


def solved():
    options = {"scheme": "resnet", "regularization": (0.05, 0.05, 0.05), "loss": "mse"}
    problem = random_problem(MPI.COMM_WORLD, **options)
    return solve_gradient(problem, random_control(problem), Tolerances(rtol=1e-7), escape=False)


def test_below_the_largest_of_the_last_objectives() -> None:
    solution = solved()
    J = np.array([line.objective for line in solution.history])
    for k in range(1, len(J)):
        assert J[k] < max(J[max(k - MEMORY, 0) : k]) + 1e-11 * J[0]
    assert np.any(np.diff(J) > 1e-6 * J[0]), "monotone: the test has no case of what it is for"
    assert J[-1] < 0.5 * J[0]


def test_steps_are_barzilai_and_borweins() -> None:
    """Every accepted step is the long or the short one of the step before, or shorter."""
    problem = random_problem(MPI.COMM_WORLD, scheme="resnet", regularization=(0.2, 0.2, 0.2))
    points = []

    start = random_control(problem, scale=0.3)
    for limit in range(8):
        stopped = solve_gradient(problem, start, Tolerances(max_iterations=limit), escape=False)
        points.append(stopped.at)
    dot, exact = problem.controls.dot, 0
    for a, b, c in zip(points, points[1:], points[2:], strict=False):
        s, y = b.control - a.control, b.gradient - a.gradient
        long, short = dot(s, s) / dot(s, y), dot(s, y) / dot(y, y)
        expected = short if short < SHORT * long else long
        step = dot(b.control - c.control, b.gradient) / dot(b.gradient, b.gradient)
        assert step < expected * (1 + 1e-9)
        exact += abs(step - expected) < 1e-9 * expected
    assert exact >= 4
