"""Exact case 3 of theory.md section 9: bias only, S samples.

Without a kernel all samples move by the same shift, so J is the objective of one sample with the
mean of d_s = g_s - f_{I,s}, plus half the weighted variance of d_s.
"""

import numpy as np
import pytest
from helpers import fitted_order, in_file_order, l2_problem, make_network, width_space
from mpi4py import MPI

from fem_dnn.depth import SCHEMES
from fem_dnn.solvers import Tolerances, solve_newton

pytestmark = pytest.mark.mpi

POINTS = [0.0, 0.4, 0.6, 1.5]
TIGHT = Tolerances(rtol=1e-13, atol=1e-14)
WEIGHTS = np.array([0.5, 0.2, 0.3])


def data(x):
    inputs = np.stack([np.cos(x), x, x**2])
    d = np.stack([0.9 + 0.2 * np.sin(3 * x), 0.3 * np.exp(x), 0.6 - x / 2])
    return inputs, inputs + d, d


def solve(comm, scheme, activation, cells, degree):
    """The problem with three samples, the one with the mean sample, and the differences d_s."""
    space = width_space(comm, cells, degree)
    network = make_network(space, scheme, activation, points=POINTS)
    inputs, targets, d = data(space.nodes[:, 0])
    many = l2_problem(network, inputs, targets, sample_weights=WEIGHTS, bias=0.1)
    one = l2_problem(network, np.zeros_like(d[0]), WEIGHTS @ d, bias=0.1)
    start = many.controls.constant(bias=0.1)
    return solve_newton(many, start, TIGHT), solve_newton(one, start, TIGHT), d


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "gelu"])
def test_splits_into_mean_and_variance(activation: str, scheme: str) -> None:
    many, one, d = solve(MPI.COMM_WORLD, scheme, activation, 3, 1)
    space = many.problem.network.space
    assert many.converged and one.converged, (many.reason, one.reason)

    biases = many.problem.controls.values(many.control).bias
    assert np.allclose(biases, one.problem.controls.values(one.control).bias, rtol=0, atol=1e-12)
    assert np.allclose(biases, biases[0], rtol=0, atol=1e-12)  # constant in depth
    variance = WEIGHTS @ (d - WEIGHTS @ d) ** 2
    assert abs(many.objective - one.objective - 0.5 * space.node_weights @ variance) < 1e-14
    shift = in_file_order(space, many.at.state.ends - many.at.state.ends[0])
    assert np.allclose(shift, shift[:, :1], rtol=0, atol=1e-14)


@pytest.mark.parametrize(("degree", "cells"), [(0, [8, 16, 32, 64]), (1, [4, 8, 16, 32])])
@pytest.mark.one_rank
def test_order_of_the_objective_in_width(degree: int, cells: list[int]) -> None:
    """Against a solution so fine in width that its own error is far below the others'."""
    reference = solve(MPI.COMM_SELF, "resnet", "tanh", 40, 3)[0].objective
    errors = [
        abs(solve(MPI.COMM_WORLD, "resnet", "tanh", n, degree)[0].objective - reference)
        for n in cells
    ]
    assert abs(fitted_order(cells, errors) - (2 * degree + 2)) < 0.15
