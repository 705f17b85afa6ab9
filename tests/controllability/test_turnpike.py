"""The turnpike's exponents, against the linear-quadratic problem by hand and a trained network."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import l2_problem, make_network, random_problem, uniform, width_space
from mpi4py import MPI

from fem_dnn.controllability import turnpike_rates
from fem_dnn.solvers import solve_newton
from fem_dnn.tracking import Tracking


def tracking_problem(comm, activation="linear", samples=2, T=10.0, layers=40):
    network = make_network(width_space(comm, 4), "resnet", activation, points=uniform(T, layers))
    x = network.space.nodes[:, 0]
    targets = np.stack([np.sin(6 * x), np.cos(6 * x)])[:samples]
    problem = l2_problem(network, targets - 0.1 - 0.1 * x, targets, kernel=0.2, bias=0.3)
    return replace(problem, tracking=Tracking(0.5, problem.loss.targets[None]))


@pytest.mark.mpi
def test_rates_are_roots_of_the_gram_matrix():
    problem = tracking_problem(MPI.COMM_WORLD)
    x, h = problem.network.space.nodes[:, 0], 0.25
    g = np.stack([np.sin(6 * x), np.cos(6 * x)])
    K = h * g @ g.T / 0.2 + 1 / 0.3
    expected = np.sqrt(0.5 * np.sort(np.linalg.eigvals(K @ np.diag([0.5, 0.5])).real))
    assert np.allclose(turnpike_rates(problem), expected, rtol=1e-12)


def test_state_and_adjoint_decay_at_the_slowest_rate():
    """Explicit Euler with tau = 1/4 changes the rate r by less than (r tau)^2 / 12."""
    problem = tracking_problem(MPI.COMM_SELF, "tanh", samples=1)
    solution = solve_newton(problem, np.zeros(problem.controls.n_local))
    assert solution.converged, solution.reason
    t = problem.network.levels.points
    inside = (t > 3) & (t < 8)
    (rate,) = turnpike_rates(problem)
    for values in (solution.at.state.ends - problem.loss.targets, solution.at.adjoint.ends):
        slope = np.polyfit(t[inside], np.log(np.linalg.norm(values[inside, :, 0], axis=1)), 1)[0]
        assert -slope == pytest.approx(rate, rel=0.02)


def test_a_mask_gives_every_neuron_its_rates():
    problem = random_problem(MPI.COMM_SELF, mask=True, tracking=True, activation="linear")
    problem = replace(problem, tracking=Tracking(0.7, problem.loss.targets[None]))
    assert turnpike_rates(problem).shape == problem.inputs.shape


def test_where_there_is_no_turnpike():
    with pytest.raises(ValueError, match="constant in depth"):
        turnpike_rates(random_problem(MPI.COMM_SELF))
    with pytest.raises(ValueError, match="constant in depth"):
        turnpike_rates(random_problem(MPI.COMM_SELF, tracking=True))
    with pytest.raises(ValueError, match="sigma"):
        turnpike_rates(tracking_problem(MPI.COMM_SELF, "sigmoid"))
