"""Which targets are in reach: where the statements hold, and what they say where they fail."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import l2_problem, make_network, random_control, random_problem, uniform, width_space
from mpi4py import MPI

from fem_dnn.checks import (
    Subject,
    controllability_gramian,
    loss_gradient_bound,
    reachable_targets,
)
from fem_dnn.solvers import solve_newton

COMM = MPI.COMM_SELF


def subject_of(problem, control=None):
    control = random_control(problem, scale=0.3) if control is None else control
    return Subject.of_linearisation(problem.linearise(control))


def rotation(comm=COMM, scheme="resnet", layers=4, activation="tanh", scale=1.0):
    network = make_network(width_space(comm, 4), scheme, activation, points=uniform(2, layers))
    x = network.space.nodes[:, 0]
    pair = np.stack([np.sin(3 * x), np.cos(2 * x)])
    targets = scale * pair[::-1] * [[1], [-1]]
    return l2_problem(network, pair, targets, kernel=0.01, bias=0.01)


@pytest.mark.mpi
def test_targets_in_reach():
    found = []
    for comm in (MPI.COMM_WORLD, COMM):
        problem = rotation(comm)
        solution = solve_newton(problem, np.zeros(problem.controls.n_local))
        subject = Subject.of_linearisation(solution.at)
        checks = [reachable_targets(subject), controllability_gramian(subject)]
        checks.append(loss_gradient_bound(subject))
        for check in checks:
            assert check.holds, check.explanation
        found.append(checks)
    for here, alone in zip(*[each[1:] for each in found], strict=True):
        assert here.value == pytest.approx(alone.value, rel=1e-6)
        assert here.bound == pytest.approx(alone.bound, rel=1e-6)


def test_targets_out_of_range():
    check = reachable_targets(subject_of(rotation(scale=4.0)))
    assert check.holds is False
    assert check.value > check.bound > 0
    assert "the range of tanh" in check.explanation


def test_samples_that_cannot_part():
    problem = rotation()
    problem.inputs[:, 1] = problem.inputs[:, 0]
    subject = subject_of(problem)
    check = reachable_targets(subject)
    assert check.holds is False
    assert "2 samples cannot part" in check.explanation
    check = controllability_gramian(subject)
    assert check.holds is False
    assert "4 directions cannot be reached: 2 samples cannot part" in check.explanation
    assert loss_gradient_bound(subject).holds is None


def test_samples_that_want_to_stay_together_can():
    problem = rotation()
    problem.inputs[:, 1] = problem.inputs[:, 0]
    problem = replace(problem, sample_weights=np.array([0.1, 0.7]))
    problem.loss.targets[:, 0] = problem.loss.targets[:, 1] = problem.inputs[:, 0] + 0.3
    check = reachable_targets(subject_of(problem))
    assert check.holds, check.explanation


def test_a_violated_hypothesis_is_named():
    problem = random_problem(COMM, activation="linear", cells=2, samples=5, scheme="resnet")
    check = reachable_targets(subject_of(problem))
    assert check.holds is None
    assert "5 samples, and 2 nodes" in check.explanation
    check = reachable_targets(subject_of(random_problem(COMM, loss="softmax")))
    assert check.holds is None
    assert "logistic and softmax only come near" in check.explanation


def test_an_under_resolved_depth_is_named():
    """One dg2 slab with a large kernel has other solutions besides the straight path."""
    problem = rotation(scheme="dg2", layers=1)
    problem.inputs[:, 1] = problem.inputs[:, 0] + 1e-3  # nearly equal: a steep kernel
    check = reachable_targets(subject_of(problem, np.zeros(problem.controls.n_local)))
    assert check.holds is not True
    assert "the forward solver" in check.explanation


def test_saturated_neurons_are_named():
    problem = random_problem(COMM, scheme="resnet")
    at = problem.controls.constant(bias=0.0)
    assert controllability_gramian(subject_of(problem, at)).holds
    check = controllability_gramian(subject_of(problem, problem.controls.constant(bias=20.0)))
    assert check.holds is False
    assert "sigma' vanishes at every depth at 12 of 12" in check.explanation


def test_output_functions_that_depend_are_named():
    problem = random_problem(COMM, scheme="resnet", loss="softmax")
    problem.given_outputs.functions[1] = -problem.given_outputs.functions[0]
    check = controllability_gramian(subject_of(problem))
    assert check.holds is False
    assert "3 directions cannot be reached: the 2 output functions depend" in check.explanation


def test_too_few_controls_are_named():
    problem = random_problem(COMM, scheme="resnet", kernel=False, points=[0.0, 1.0])
    check = controllability_gramian(subject_of(problem))
    assert check.value == 0
    assert "12 outputs and 4 controls" in check.explanation


@pytest.mark.parametrize("loss", ["l2", "mse", "logistic"])
def test_the_loss_gradient(loss):
    problem = random_problem(COMM, loss=loss, scheme="resnet")
    subject = subject_of(problem)
    check = loss_gradient_bound(subject)
    assert check.holds, check.explanation
    # A gradient that does not belong to these controls.
    at = problem.linearise(subject.at.control)
    at.__dict__["gradient"] = np.zeros_like(at.control)
    at.__dict__["problem"] = replace(
        problem, regularization=replace(problem.regularization, kernel=1e-9, bias=1e-9)
    )
    check = loss_gradient_bound(Subject.of_linearisation(at))
    assert check.holds is False
    assert "not that of these controls" in check.explanation


def test_what_does_not_apply():
    problem = random_problem(COMM, scheme="resnet", tracking=True)
    assert loss_gradient_bound(subject_of(problem)).holds is None
    bare = replace(subject_of(problem), at=None)
    for check in (reachable_targets, controllability_gramian, loss_gradient_bound):
        assert check(bare).holds is None
