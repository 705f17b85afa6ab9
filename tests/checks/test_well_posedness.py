"""The bounds of theory.md section 1 on solutions that attain them, and on ones that break them."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import (
    l2_problem,
    layer_weights,
    local,
    make_network,
    random_control,
    random_problem,
    uniform,
    width_space,
)
from mpi4py import MPI

from fem_dnn.activations import ACTIVATIONS, Activation
from fem_dnn.checks import Subject, adjoint_bound, state_bound, sup_bound
from fem_dnn.losses import L2Loss
from fem_dnn.state import solve_state
from fem_dnn.tracking import Tracking

COMM = MPI.COMM_SELF


def constant_kernel(scheme, alpha, layers, activation="linear", comm=COMM):
    """a = alpha on the unit interval: with f_I = 1 all norms grow as fast as the bound allows."""
    network = make_network(width_space(comm, 4), scheme, activation, points=uniform(1.0, layers))
    kernel = np.full((network.levels.count, 4, 4), float(alpha))
    problem = l2_problem(network, np.ones((1, 4)), np.full((1, 4), -1.0), weight=2.0)
    given = layer_weights(network, kernel=kernel)
    problem = replace(problem, given=given)
    return Subject.of_linearisation(problem.linearise(np.zeros(problem.controls.n_local)))


def test_state_and_adjoint_attain_the_bound():
    """resnet: (1 + tau alpha)^N against exp(alpha); the adjoint likewise, from |p(T)|."""
    subject = constant_kernel("resnet", 0.7, 8)
    check = state_bound(subject)
    factor = (1 + 0.7 / 8) ** 8
    # The relative distance grows with t: closest at the first slab end.
    assert check.holds
    assert check.sharpness == pytest.approx((1 + 0.7 / 8) / np.exp(0.7 / 8), rel=1e-13)
    back = adjoint_bound(subject)
    assert back.holds
    assert back.sharpness == pytest.approx(check.sharpness, rel=1e-13)
    assert back.value == pytest.approx(2 * (factor + 1) * (1 + 0.7 / 8), rel=1e-13)


@pytest.mark.parametrize("bound", [state_bound, adjoint_bound])
def test_a_coarse_depth_mesh_breaks_the_bound(bound):
    """dg0 is the implicit Euler method, 1 / (1 - tau alpha) > exp(tau alpha)."""
    check = bound(constant_kernel("dg0", 1.0, 2))
    assert check.holds is False
    assert check.sharpness == pytest.approx((2 / np.exp(0.5)) ** 2, rel=1e-12)
    assert "dg0 under-resolves the depth" in check.explanation
    assert "tau L|a| = 0.5" in check.explanation


def test_dg1_resolves_it():
    assert state_bound(constant_kernel("dg1", 1.0, 2)).holds


@pytest.mark.parametrize("scheme", ["resnet", "dg0", "dg1"])
def test_altered_states_are_named(scheme):
    problem = random_problem(COMM, scheme=scheme)
    subject = Subject.of_linearisation(problem.linearise(random_control(problem)))
    assert state_bound(subject).holds
    assert subject.state_defect() < 1e-13
    subject.state.ends[2] *= 100
    check = state_bound(subject)
    assert check.holds is False
    assert "do not solve the discrete state equation" in check.explanation


def test_an_altered_adjoint_is_named():
    problem = random_problem(COMM)
    subject = Subject.of_linearisation(problem.linearise(random_control(problem)))
    assert adjoint_bound(subject).holds
    subject.at.adjoint.ends[0] *= 100
    check = adjoint_bound(subject)
    assert check.holds is False
    assert "the adjoint is not that of these controls" in check.explanation


@pytest.mark.parametrize("scheme", ["resnet", "dg0", "dg1", "dg2"])
def test_tracking_without_a_kernel_attains_the_adjoint_bound(scheme):
    """f = f_I > g: p(t) = p(T) + mu (T - t)(f_I - g), all of one sign and shape."""
    network = make_network(width_space(COMM, 4), scheme, points=uniform(1.0, 3))
    problem = l2_problem(network, np.ones((1, 4)), np.zeros((1, 4)))
    tracking = Tracking(0.7, np.zeros((1, 4, 1)))
    problem = replace(problem, tracking=tracking)
    check = adjoint_bound(Subject.of_linearisation(problem.linearise(np.zeros(0))))
    assert check.holds
    assert check.sharpness == pytest.approx(1.0, rel=1e-13)
    assert check.value > 1.1


def saturated(activation, scheme="dg1"):
    network = make_network(width_space(COMM, 4), scheme, activation, points=uniform(1.0, 3))
    weights = layer_weights(network, bias=np.full((network.levels.count, 4), 50.0))
    inputs = local(network.space, np.ones((1, 4)))
    return Subject(network, weights, inputs, solve_state(network, weights, inputs))


def test_a_saturated_tanh_attains_the_sup_bound():
    check = sup_bound(saturated("tanh"))
    assert check.holds
    assert check.sharpness == pytest.approx(1.0, rel=1e-14)


def test_untrue_constants_are_suspected():
    tanh = ACTIVATIONS["tanh"]
    wrong = Activation("half", tanh.evaluate, lipschitz=1.0, supremum=0.5)
    check = sup_bound(saturated(wrong))
    assert check.holds is False
    assert check.value > check.bound
    assert "suspect the constants" in check.explanation
    assert "half" in check.explanation


def test_unbounded_activations_have_no_sup_bound():
    check = sup_bound(saturated("relu"))
    assert (check.holds, check.value, check.bound) == (None, None, None)
    assert "relu is not bounded" in check.explanation


def test_without_targets_there_is_no_adjoint():
    assert adjoint_bound(saturated("tanh")).holds is None


@pytest.mark.mpi
@pytest.mark.parametrize("scheme", ["resnet", "dg1"])
def test_bounds_do_not_depend_on_the_ranks(scheme):
    found = []
    for comm in (MPI.COMM_WORLD, MPI.COMM_SELF):
        problem = random_problem(comm, scheme=scheme, tracking=True, cells=(2, 2))
        subject = Subject.of_linearisation(problem.linearise(random_control(problem)))
        found.append([b(subject) for b in (state_bound, adjoint_bound, sup_bound)])
        assert isinstance(problem.loss, L2Loss)
    for here, alone in zip(*found, strict=True):
        assert here.holds and alone.holds
        assert here.value == pytest.approx(alone.value, rel=1e-12)
        assert here.bound == pytest.approx(alone.bound, rel=1e-12)
