"""Minimum-norm controls and vanishing regularisation, against closed forms."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import l2_problem, make_network, random_problem, uniform, width_space
from mpi4py import MPI

from fem_dnn.controllability import (
    EndPointMap,
    OutOfReach,
    exact_controls,
    loss_floor,
    minimum_norm_controls,
    vanishing_regularization,
)
from fem_dnn.controllability.vanishing import fitted_rates, scaled

T = 1.5


def problem_of(comm, move, activation="tanh", scheme="dg1", layers=2, cells=2, **controls):
    network = make_network(width_space(comm, cells), scheme, activation, points=uniform(T, layers))
    inputs = np.ones((1, cells))
    return l2_problem(network, inputs, inputs + move, **(controls or {"bias": 0.1}))


def test_a_constant_bias_is_the_cheapest():
    """Bias only, one sample: R is convex in v = sigma(b), so the straight path costs least."""
    problem = problem_of(MPI.COMM_SELF, np.array([0.9, -0.4]))
    exact = exact_controls(problem)
    start = exact.control * (1 + 0.3 * np.random.default_rng(0).standard_normal(len(exact.control)))
    best = minimum_norm_controls(problem, start)
    assert best.converged, best.reason
    assert best.cost == pytest.approx(exact.cost, rel=1e-8)


@pytest.mark.mpi
def test_a_linear_kernel_grows_at_a_constant_rate():
    """|d_t f| <= |a||f|: log growth <= int |a|, so R >= lambda_a (log growth)^2 / (2 T), attained.

    The straight path costs (lambda_a / 2) (growth - 1)^2 / (T growth).
    """
    problem = problem_of(MPI.COMM_WORLD, 1.4, "linear", "dg2", layers=3, kernel=0.2)
    exact, best = exact_controls(problem), minimum_norm_controls(problem)
    assert best.converged, best.reason
    assert best.misfit < 1e-9
    assert exact.cost == pytest.approx(0.1 * 1.4**2 / (T * 2.4), rel=1e-4)
    assert best.cost == pytest.approx(0.1 * np.log(2.4) ** 2 / T, rel=2e-6)  # of dg2 on three slabs
    # Stationarity among exact controls: R'c lies in the range of L'.
    ends = EndPointMap(best.at)
    multiplier = problem.regularization.action(best.at.control)
    missing = np.linalg.norm(ends.apply(multiplier))
    assert missing > 0.1  # R'c itself is not 0
    residual = _distance_from_range(ends, multiplier)
    assert residual < 1e-7


def _distance_from_range(ends, c):
    """|c - L' v| at its least, by conjugate gradients on L L' v = L c."""
    space, controls = ends.space, ends.problem.controls

    def dot(a, b):
        return float(space.sum(np.array(a @ b)))

    r = ends.apply(c)
    v, d = np.zeros_like(r), r.copy()
    first = dot(r, r)
    for _ in range(50):
        Gd = ends.apply(ends.transpose(d))
        alpha = dot(r, r) / dot(d, Gd)
        new = r - alpha * Gd
        v += alpha * d
        d = new + d * dot(new, new) / dot(r, r)
        r = new
        if dot(r, r) < 1e-26 * first:
            break
    return controls.norm(c - ends.transpose(v))


def test_several_samples_cost_less_than_the_straight_path():
    network = make_network(width_space(MPI.COMM_SELF, 4), "resnet", "tanh", points=uniform(2, 4))
    x = network.space.nodes[:, 0]
    pair = np.stack([np.sin(3 * x), np.cos(2 * x)])
    problem = l2_problem(network, pair, pair[::-1] * [[1], [-1]], kernel=0.1, bias=0.1)
    exact, best = exact_controls(problem), minimum_norm_controls(problem)
    assert best.converged, best.reason
    assert best.misfits[-1] < 0.1 * best.misfits[-2] < 0.01 * best.misfits[-3]
    assert best.cost == pytest.approx(0.15374626, rel=1e-6)
    assert best.cost < 0.85 * exact.cost


def test_outputs_cost_less_than_the_states_that_have_them():
    problem = random_problem(
        MPI.COMM_SELF, scheme="resnet", activation="linear", samples=2, loss="mse"
    )
    exact, best = exact_controls(problem), minimum_norm_controls(problem)
    assert best.converged, best.reason
    assert best.at.loss < 1e-17
    assert best.cost < 0.9 * exact.cost


def test_minimum_norm_needs_targets():
    with pytest.raises(OutOfReach, match="no targets"):
        minimum_norm_controls(random_problem(MPI.COMM_SELF, loss="logistic"))


def bias_of(move, strength):
    """Exact case 2: the root of (T tanh B - move) / cosh(B)^2 + strength B = 0."""
    from scipy.optimize import brentq

    return brentq(lambda B: (T * np.tanh(B) - move) / np.cosh(B) ** 2 + strength * B, 0, 50)


@pytest.mark.parametrize(("move", "rate"), [(0.9, 2.0), (1.9, 1.0)])
def test_rates_as_the_regularization_vanishes(move, rate):
    """In reach: loss ~ eps^2. Beyond: loss - floor ~ eps log(1/eps), a rate below 1 yet."""
    problem = problem_of(MPI.COMM_SELF, move)
    path = vanishing_regularization(problem, np.zeros(problem.controls.n_local), points=5)
    assert path.converged
    floor = loss_floor(problem).value
    for eps, loss, cost in zip(path.factors, path.losses, path.costs, strict=True):
        B = bias_of(move, 0.1 * eps)
        assert loss == pytest.approx(0.5 * (T * np.tanh(B) - move) ** 2, rel=1e-7, abs=1e-17)
        assert cost == pytest.approx(0.1 / 2 * T * B**2, rel=1e-6)
    if rate == 2.0:
        assert path.rate == pytest.approx(2.0, abs=0.01)
        assert abs(path.limit - floor) < 1e-2 * path.losses[-1]
    else:
        assert 0.8 < path.rate < 1.0
        assert abs(path.limit - floor) < 0.3 * (path.losses[-1] - floor)
        assert floor == pytest.approx(0.5 * 0.4**2, rel=1e-13)


def test_fitted_rates():
    eps = 0.1 ** np.arange(4)
    rates, limit = fitted_rates(0.3 + 2 * eps**1.5, 0.1)
    assert np.allclose(rates, 1.5, rtol=1e-8)
    assert limit == pytest.approx(0.3, rel=1e-12)
    rates, limit = fitted_rates(np.full(4, 0.3), 0.1)
    assert np.all(np.isnan(rates))
    assert limit == 0.3
    # A loss that does not fall steadily has no rate.
    assert np.isnan(fitted_rates(np.array([1.0, 0.5, 0.6, 0.4]), 0.1)[0][0])


def test_given_controls_keep_their_share():
    """Only what is trained is scaled, derivatives too."""
    problem = random_problem(MPI.COMM_SELF, bias=False)
    R = replace(problem.regularization, given=3.0, kernel_depth=0.2)
    c = problem.controls.random_direction(0)
    assert scaled(R, 0.1).value(c) - 3.0 == pytest.approx(0.1 * (R.value(c) - 3.0), rel=1e-12)
