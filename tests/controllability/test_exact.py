"""Exact case 7 of theory.md section 9: controls that reach every target exactly (section 6)."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import (
    everywhere,
    fitted_order,
    in_file_order,
    l2_error,
    l2_problem,
    local,
    make_network,
    random_problem,
    width_space,
)
from mpi4py import MPI

from fem_dnn.controllability import OutOfReach, exact_controls
from fem_dnn.controls import ControlSpace
from fem_dnn.depth import SCHEMES
from fem_dnn.regularization import Regularization

T = 1.5
POINTS = np.array([0.0, 0.4, 0.6, T])
LAMBDA_A, LAMBDA_B = 0.3, 0.2
MOVES = {  # what each activation can do within T
    "tanh": (-0.95, 0.95),
    "linear": (-3.0, 3.0),
    "sigmoid": (0.02, 0.98),
    "relu": (0.0, 2.0),
    "softplus": (0.01, 2.0),
    "gelu": (-0.15, 2.0),
}


def data(x):
    inputs = np.stack([np.sin(3 * x), np.cos(2 * x), x**2 - 0.3])
    targets = inputs + np.stack([0.9 * np.cos(x), -0.5 + x, 1.1 * np.sin(2 * x)])
    return inputs, targets


def problem_of(comm, scheme, cells, degree, activation="tanh", velocity=None):
    space = width_space(comm, cells, degree)
    network = make_network(space, scheme, activation, points=POINTS)
    inputs, targets = data(space.nodes[:, 0])
    if velocity is not None:
        targets = inputs + T * velocity(inputs.shape)
    return l2_problem(network, inputs, targets, kernel=LAMBDA_A, bias=LAMBDA_B)


def state_depths(levels):
    c = levels.scheme.stages.sum(axis=1)
    return (levels.points[:-1, None] + levels.steps[:, None] * c).ravel()


@pytest.mark.mpi
@pytest.mark.parametrize("degree", [0, 2])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_reaches_every_target_to_round_off(scheme, degree):
    problem = problem_of(MPI.COMM_WORLD, scheme, 4, degree)
    exact = exact_controls(problem)
    space, levels = problem.network.space, problem.network.levels
    inputs, targets = data(space.nodes[:, 0])
    path = inputs + POINTS[:, None, None] * (targets - inputs) / T
    states = in_file_order(space, exact.at.state.ends)
    assert np.allclose(states, path, rtol=0, atol=1e-12)
    assert exact.misfit < 1e-12

    # The cost density is u'K^{-1}u / 2: kernel and bias are what section 3 says they are.
    u = np.arctanh((targets - inputs) / T)
    expected, lowest = 0.0, np.inf
    for t, omega in zip(state_depths(levels), levels.weights, strict=True):
        f = inputs + t * (targets - inputs) / T
        K = (f * space.node_weights) @ f.T / LAMBDA_A + 1 / LAMBDA_B
        density = 0.5 * np.einsum("sx,sx->x", u, np.linalg.solve(K, u))
        expected += omega * space.node_weights @ density
    for t in [*state_depths(levels), *levels.points]:
        f = inputs + t * (targets - inputs) / T
        K = (f * space.node_weights) @ f.T / LAMBDA_A + 1 / LAMBDA_B
        eigenvalues = np.linalg.eigvalsh(K)
        lowest = min(lowest, eigenvalues[0] / eigenvalues[-1])
    assert exact.cost == pytest.approx(expected, rel=1e-12)
    assert exact.lowest_eigenvalue == pytest.approx(lowest, rel=1e-10)
    assert exact.room == pytest.approx(1 - np.max(np.abs(targets - inputs)) / T, rel=1e-13)


@pytest.mark.parametrize("activation", MOVES)
def test_every_activation_within_its_range(activation):
    low, high = MOVES[activation]
    rng = np.random.default_rng(0)
    problem = problem_of(
        MPI.COMM_SELF, "dg1", 4, 0, activation, lambda shape: rng.uniform(low, high, shape)
    )
    assert exact_controls(problem).misfit < 1e-12


@pytest.mark.parametrize("variant", ["mask", "kernel", "given bias", "given kernel", "mse"])
def test_variants_reach_the_targets(variant):
    options = {
        "mask": {"mask": True, "cells": 6, "samples": 2},
        "kernel": {"bias": False},
        "given bias": {"bias": False, "given": True},
        "given kernel": {"kernel": False, "given": True, "samples": 1},
        "mse": {"loss": "mse", "cells": (3, 2), "points": [0.0, 2.0, 6.0]},
    }[variant]
    problem = random_problem(MPI.COMM_SELF, scheme="dg1", activation="linear", **options)
    exact = exact_controls(problem)
    assert exact.misfit < 1e-11
    assert exact.at.loss < 1e-22


@pytest.mark.mpi
def test_does_not_depend_on_the_ranks():
    found = []
    for comm in (MPI.COMM_WORLD, MPI.COMM_SELF):
        problem = random_problem(comm, cells=6, samples=2, mask=True, activation="linear")
        exact = exact_controls(problem)
        found.append((everywhere(problem, exact.control), exact.lowest_eigenvalue, exact.cost))
    assert np.allclose(found[0][0], found[1][0], rtol=0, atol=1e-10)
    assert found[0][1:] == pytest.approx(found[1][1:], rel=1e-9)


@pytest.mark.mpi
@pytest.mark.parametrize("comm", [MPI.COMM_WORLD])
def test_too_far_a_target_is_named(comm):
    problem = problem_of(comm, "dg1", 4, 0)
    space = problem.network.space
    inputs, targets = data(space.nodes[:, 0])
    targets[1, 2] = inputs[1, 2] - 1.6
    with pytest.raises(OutOfReach, match=r"sample 1 .* -1.6 at x = \(0.625\).*\(-1.5, 1.5\)") as e:
        exact_controls(problem, local(space, targets))
    assert e.value.hypothesis == "range"
    targets[1, 2] = inputs[1, 2] + T  # the supremum itself is not attained
    with pytest.raises(OutOfReach):
        exact_controls(problem, local(space, targets))


def test_relu_only_moves_up():
    problem = problem_of(MPI.COMM_SELF, "resnet", 4, 0, "relu", lambda shape: -np.ones(shape))
    with pytest.raises(OutOfReach, match="no less than 0 within"):
        exact_controls(problem)


def test_coinciding_samples_cannot_part():
    problem = problem_of(MPI.COMM_SELF, "dg1", 4, 0)
    problem.inputs[:, 2] = problem.inputs[:, 0]
    with pytest.raises(OutOfReach, match=r"depth 0.*coincide") as e:
        exact_controls(problem, problem.inputs + np.array([0.3, 0.1, 0.2]))
    assert e.value.hypothesis == "K > 0"
    # What wants to stay together can: u is in the range of K, though K is singular.
    exact = exact_controls(problem, problem.inputs + np.array([0.3, 0.1, 0.3]))
    assert exact.misfit < 1e-12
    assert exact.lowest_eigenvalue == 0


def test_more_samples_than_the_width_can_tell_apart():
    problem = random_problem(MPI.COMM_SELF, cells=2, samples=5, activation="linear")
    with pytest.raises(OutOfReach, match=r"5 samples, and 2 nodes .* rank 3"):
        exact_controls(problem)


def test_bias_alone_moves_all_alike():
    problem = random_problem(MPI.COMM_SELF, kernel=False, activation="linear")
    with pytest.raises(OutOfReach, match="moves all samples alike"):
        exact_controls(problem)
    assert exact_controls(problem, problem.inputs + 0.7).misfit < 1e-13


def test_other_hypotheses():
    problem = random_problem(MPI.COMM_SELF, kernel=False, bias=False, given=True)
    with pytest.raises(OutOfReach, match="neither kernel nor bias"):
        exact_controls(problem)
    problem = random_problem(MPI.COMM_SELF, loss="softmax")
    with pytest.raises(OutOfReach, match="give targets"):
        exact_controls(problem)
    problem = problem_of(MPI.COMM_SELF, "dg1", 4, 0)
    controls = ControlSpace(
        problem.network.space, problem.network.levels, bounds={"kernel": (-1.0, 1.0)}
    )
    narrow = replace(problem, controls=controls, regularization=Regularization(controls, 0.3, 0.2))
    with pytest.raises(OutOfReach, match="box bounds"):
        exact_controls(narrow)


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("degree", "cells"), [(0, [8, 16, 32, 64]), (1, [4, 8, 16, 32]), (2, [6, 8, 12, 16])]
)
def test_orders_in_width(degree, cells):
    """The state is of order r + 1 in L2; the cost, a functional, of order 2r + 2."""
    reference = exact_controls(problem_of(MPI.COMM_SELF, "dg1", 40, 4)).cost
    errors, costs = [], []
    for n in cells:
        problem = problem_of(MPI.COMM_WORLD, "dg1", n, degree)
        exact, space = exact_controls(problem), problem.network.space
        end = in_file_order(space, exact.at.state.ends)[-1, 1]
        errors.append(l2_error(space, end, lambda x: data(x)[1][1]))
        costs.append(abs(exact.cost - reference))
    assert abs(fitted_order(cells, errors) - (degree + 1)) < 0.15
    assert abs(fitted_order(cells, costs) - (2 * degree + 2)) < 0.2
