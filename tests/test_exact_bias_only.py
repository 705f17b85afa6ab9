"""Exact case 2 of theory.md section 9: bias only, one sample.

The optimal bias is constant in depth and solves, node by node, (T sigma(B) - d) sigma'(B) +
lambda_b B = 0 with d = g - f_I. The state is linear in t: every scheme is exact in depth.
"""

import numpy as np
import pytest
from helpers import fitted_order, in_file_order, l2_error, l2_problem, make_network, width_space
from mpi4py import MPI
from scipy.optimize import brentq

from fem_dnn.activations import ACTIVATIONS
from fem_dnn.depth import SCHEMES
from fem_dnn.solvers import METHODS, Tolerances, solve_newton

pytestmark = pytest.mark.mpi

T, LAMBDA = 1.5, 0.1
POINTS = [0.0, 0.4, 0.6, T]
TIGHT = Tolerances(rtol=1e-13, atol=1e-14)


def optimal_bias(activation: str, d: float) -> float:
    sigma = ACTIVATIONS[activation].evaluate

    def stationarity(B: float) -> float:
        value, slope = sigma(np.array(B), 1)
        return float((T * value - d) * slope + LAMBDA * B)

    return brentq(stationarity, 0.0, 5.0, xtol=1e-15, rtol=1e-15)


def d_of(x):
    """Smooth, and everywhere above T sigma(0) = 0.75: all optimal biases are positive."""
    return 1.1 + 0.3 * np.sin(3 * x)


def solve(comm, activation, scheme, cells, degree, d=d_of, start=0.0, method=solve_newton):
    space = width_space(comm, cells, degree)
    network = make_network(space, scheme, activation, points=POINTS)
    x = space.nodes[:, 0]
    problem = l2_problem(network, np.cos(x), np.cos(x) + d(x), bias=LAMBDA)
    return method(problem, problem.controls.constant(bias=start), TIGHT)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("activation", "start", "objective"),
    # Zero is a kink of ReLU, where the gradient vanishes: start off it, as the program does.
    [("tanh", 0.0, 0.0314161896), ("sigmoid", 0.0, 0.0058238935), ("relu", 0.1, 0.0253125)],
)
def test_known_objectives(activation, start, objective, scheme) -> None:
    solution = solve(
        MPI.COMM_WORLD, activation, scheme, 3, 0, lambda x: np.full_like(x, 0.9), start
    )
    assert solution.converged, solution.reason
    assert abs(solution.objective - objective) < 0.5e-10
    B = solution.problem.controls.values(solution.control).bias
    expected = 0.9 / (T + LAMBDA) if activation == "relu" else optimal_bias(activation, 0.9)
    assert np.allclose(B, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus"])
def test_exact_to_round_off_in_depth(activation: str, scheme: str) -> None:
    solution = solve(MPI.COMM_WORLD, activation, scheme, 4, 1)
    problem = solution.problem
    space = problem.network.space
    x = space.nodes[:, 0]
    B = np.array([optimal_bias(activation, d) for d in d_of(x)])
    sigma = ACTIVATIONS[activation](B)

    assert solution.converged, solution.reason
    computed = problem.controls.values(solution.control).bias
    assert np.allclose(computed, B, rtol=0, atol=1e-12)
    states = in_file_order(space, solution.at.state.ends)[:, 0]
    assert np.allclose(states, np.cos(x) + np.outer(POINTS, sigma), rtol=0, atol=1e-12)
    adjoints = in_file_order(space, solution.at.adjoint.ends)[:, 0]
    assert np.allclose(adjoints, T * sigma - d_of(x), rtol=0, atol=1e-12)
    density = 0.5 * (T * sigma - d_of(x)) ** 2 + 0.5 * LAMBDA * T * B**2
    assert abs(solution.objective - space.node_weights @ density) < 1e-14


@pytest.mark.parametrize("method", [name for name in METHODS if name != "newton"])
def test_every_method_finds_the_closed_form(method: str) -> None:
    solution = solve(MPI.COMM_WORLD, "tanh", "dg1", 4, 0, method=METHODS[method])
    assert solution.converged, solution.reason
    problem = solution.problem
    B = [optimal_bias("tanh", d) for d in d_of(problem.network.space.nodes[:, 0])]
    bias = problem.controls.values(solution.control).bias
    assert np.allclose(bias, B, rtol=0, atol=1e-11)


def continuum_objective(activation: str) -> float:
    z, w = np.polynomial.legendre.leggauss(40)
    B = np.array([optimal_bias(activation, d) for d in d_of((1 + z) / 2)])
    residual = T * ACTIVATIONS[activation](B) - d_of((1 + z) / 2)
    return float(0.5 * w @ (0.5 * residual**2 + 0.5 * LAMBDA * T * B**2))


@pytest.mark.parametrize(
    ("degree", "cells"), [(0, [8, 16, 32, 64]), (1, [4, 8, 16, 32]), (2, [6, 8, 12, 16])]
)
@pytest.mark.one_rank
def test_orders_in_width(degree: int, cells: list[int]) -> None:
    """State and bias of order r + 1 in L2; the objective, a functional, of order 2r + 2."""
    exact_objective = continuum_objective("tanh")
    states, biases, objectives = [], [], []
    for n in cells:
        solution = solve(MPI.COMM_WORLD, "tanh", "dg1", n, degree)
        space = solution.problem.network.space
        bias = solution.problem.controls.values(solution.control).bias[0]
        biases.append(
            l2_error(space, bias, np.vectorize(lambda x: optimal_bias("tanh", float(d_of(x)))))
        )
        terminal = in_file_order(space, solution.at.state.ends)[-1, 0]
        states.append(
            l2_error(
                space,
                terminal,
                np.vectorize(
                    lambda x: np.cos(x) + T * np.tanh(optimal_bias("tanh", float(d_of(x))))
                ),
            )
        )
        objectives.append(abs(solution.objective - exact_objective))
    assert abs(fitted_order(cells, states) - (degree + 1)) < 0.15
    assert abs(fitted_order(cells, biases) - (degree + 1)) < 0.15
    assert abs(fitted_order(cells, objectives) - (2 * degree + 2)) < 0.2
