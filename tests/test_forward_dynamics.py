"""Steady states, their linear stability, growth with the depth: against exact spectra."""

import numpy as np
import pytest
from helpers import layer_weights, make_network, uniform, width_space
from mpi4py import MPI

from fem_dnn import forward_dynamics
from fem_dnn.forward_dynamics import (
    NoSteadyState,
    NotAutonomous,
    measured_growth,
    stability,
    steady_state,
)

COMM = MPI.COMM_SELF
NODES, LENGTH = 8, 1.0


def network_of(activation="tanh", scheme="dg2", comm=COMM, nodes=NODES, depth=4.0, layers=40):
    return make_network(width_space(comm, nodes), scheme, activation, points=uniform(depth, layers))


def constant_weights(network, kernel, bias=None):
    count = network.levels.count
    return layer_weights(
        network,
        kernel=np.tile(kernel, (count, 1, 1)),
        bias=None if bias is None else np.tile(bias, (count, 1)),
    )


def with_spectrum(eigenvalues, seed=0):
    """A kernel on equal nodes whose operator has given eigenvalues: the operator is h a."""
    basis = np.random.default_rng(seed).standard_normal((NODES, NODES))
    return NODES / LENGTH * (basis * eigenvalues) @ np.linalg.inv(basis)


EIGENVALUES = -0.25 * np.arange(1.0, NODES + 1)


def at(network, values):
    return network.space.from_file_order(np.asarray(values, float))[:, None]


def test_the_state_at_rest_is_found_and_stays():
    network = network_of()
    kernel, goal = with_spectrum(EIGENVALUES), np.linspace(-1, 1, NODES)
    weights = constant_weights(network, kernel, -(kernel @ goal) * LENGTH / NODES)
    found = steady_state(network, weights, at(network, np.zeros(NODES)))
    np.testing.assert_allclose(found, at(network, goal), atol=1e-10)
    verdict = stability(network, weights, found)
    assert verdict.rest < 1e-10
    np.testing.assert_allclose(verdict.eigenvalues, EIGENVALUES, atol=1e-9)
    assert verdict.stable
    assert "decay" in verdict.explanation


@pytest.mark.parametrize("rate", [0.7, -0.3])
def test_perturbations_grow_with_the_rightmost_eigenvalue(rate):
    network = network_of()
    weights = constant_weights(network, with_spectrum([rate, *(EIGENVALUES[1:] - 1.5)]))
    rest = at(network, np.zeros(NODES))
    assert stability(network, weights, rest).growth_rate == pytest.approx(rate, abs=1e-9)
    change = at(network, np.random.default_rng(1).standard_normal(NODES))
    assert measured_growth(network, weights, rest, change) == pytest.approx(rate, abs=2e-2)


def test_away_from_rest_the_slope_of_the_activation_counts():
    network = network_of()
    weights = constant_weights(network, np.ones((NODES, NODES)))
    verdict = stability(network, weights, at(network, np.ones(NODES)))
    assert verdict.growth_rate == pytest.approx(1 / np.cosh(1.0) ** 2, rel=1e-12)
    assert "no steady state" in verdict.explanation


@pytest.mark.parametrize(
    ("activation", "why"), [("sigmoid", "moves up"), ("softplus", "moves up"), ("relu", "rests")]
)
def test_activations_without_a_single_zero(activation, why):
    network = network_of(activation, layers=2)
    weights = constant_weights(network, np.ones((NODES, NODES)))
    with pytest.raises(NoSteadyState, match=why):
        steady_state(network, weights, at(network, np.zeros(NODES)))


def test_a_bias_out_of_the_range():
    network = network_of(layers=2)
    weights = constant_weights(network, np.ones((NODES, NODES)), np.arange(NODES))
    with pytest.raises(NoSteadyState, match="not in the range"):
        steady_state(network, weights, at(network, np.zeros(NODES)))


def test_weights_that_depend_on_the_depth():
    network = network_of(layers=2)
    kernel = np.arange(network.levels.count)[:, None, None] * np.ones((1, NODES, NODES))
    weights = layer_weights(network, kernel=kernel)
    with pytest.raises(NotAutonomous):
        stability(network, weights, at(network, np.zeros(NODES)))


@pytest.mark.mpi
@pytest.mark.parametrize("dense", [0, 1000], ids=["SLEPc", "dense"])
def test_the_spectrum_does_not_depend_on_the_ranks(dense, monkeypatch):
    monkeypatch.setattr(forward_dynamics, "DENSE", dense)
    for comm in (MPI.COMM_WORLD, MPI.COMM_SELF):
        network = network_of(comm=comm, layers=1)
        weights = constant_weights(network, with_spectrum([0.7, *(EIGENVALUES[1:] - 1.5)]))
        rest = at(network, np.zeros(NODES))
        assert stability(network, weights, rest, 1).growth_rate == pytest.approx(0.7, abs=1e-8)
