"""Stationarity and the second order, against exact Hessians (theory.md 9.2)."""

import numpy as np
import pytest
from helpers import l2_problem, make_network, random_control, random_problem, uniform, width_space
from mpi4py import MPI
from scipy.optimize import brentq

from fem_dnn.checks import Subject, second_order, stationarity
from fem_dnn.solvers import Tolerances, solve_newton

pytestmark = pytest.mark.mpi
T, LAMBDA = 1.5, 0.1
DISTANCES = np.array([0.9, -0.3, 0.5, 1.2])


def bias_only(activation="tanh", comm=MPI.COMM_WORLD):
    """Bias only, S = 1: pointwise (T sigma(B) - d) sigma'(B) + lambda_b B = 0."""
    network = make_network(width_space(comm, 4), "dg1", activation, points=uniform(T, 3))
    return l2_problem(network, np.zeros((1, 4)), DISTANCES[None], bias=LAMBDA)


def test_a_minimum_has_the_lowest_eigenvalue_of_the_exact_hessian():
    """Changes of mean 0 in depth see lambda_b + p sigma''(B) = lambda_b (1 + 2 B tanh B)."""
    problem = bias_only()
    zero = np.zeros(problem.controls.n_local)
    solution = solve_newton(problem, zero, Tolerances(1e-12))
    subject = Subject.of_linearisation(solution.at, zero)
    B = [
        brentq(lambda b, d=d: (T * np.tanh(b) - d) / np.cosh(b) ** 2 + LAMBDA * b, -3, 3)
        for d in DISTANCES
    ]
    exact = LAMBDA * np.min(1 + 2 * np.array(B) * np.tanh(B))
    check = second_order(subject)
    assert check.holds
    assert check.value == pytest.approx(exact, abs=2e-7)
    assert "strict local minimum" in check.explanation
    assert "two-norm discrepancy" in check.explanation
    assert stationarity(subject, Tolerances(1e-10)).holds


def test_away_from_critical_points_neither_holds():
    problem = random_problem(MPI.COMM_WORLD)
    zero = np.zeros(problem.controls.n_local)
    subject = Subject.of_linearisation(problem.linearise(random_control(problem)), zero)
    check = stationarity(subject, Tolerances())
    assert check.holds is False
    assert "not a critical point" in check.explanation
    check = second_order(subject)
    assert check.holds is False
    assert check.value < 0
    assert "J falls along its eigenvector" in check.explanation


def test_a_kink_proves_nothing():
    """ReLU at zero controls: the Hessian is lambda I, the gradient 0, and it is no minimum."""
    problem = bias_only("relu")
    subject = Subject.of_linearisation(problem.linearise(np.zeros(problem.controls.n_local)))
    check = second_order(subject)
    assert check.holds is None
    assert check.value == pytest.approx(LAMBDA, rel=1e-6)
    assert "24 of the pre-activations are exactly at the kink" in check.explanation
    assert stationarity(subject, Tolerances()).holds


def test_nothing_trained():
    problem = random_problem(MPI.COMM_WORLD, kernel=False, bias=False, given=True)
    subject = Subject.of_linearisation(problem.linearise(np.zeros(0)))
    assert second_order(subject).holds is None
    assert stationarity(subject, Tolerances()).holds is None
