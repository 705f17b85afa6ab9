"""What no controls can change, and how its violation is explained."""

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

from fem_dnn.checks import Subject, identical_samples, loss_floor, state_range
from fem_dnn.state import solve_state

COMM = MPI.COMM_SELF


def with_bias(scheme, activation, bias_of_t, points=(0.0, 1.0)):
    network = make_network(width_space(COMM, 4), scheme, activation, points=points)
    bias = np.tile(bias_of_t(network.levels.t)[:, None], (1, 4))
    weights = layer_weights(network, bias=bias)
    inputs = local(network.space, np.zeros((1, 4)))
    return Subject(network, weights, inputs, solve_state(network, weights, inputs))


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh", "gelu", "softplus"])
@pytest.mark.parametrize("scheme", ["resnet", "dg0", "dg2"])
def test_the_range_is_kept(activation, scheme):
    problem = random_problem(COMM, scheme=scheme, activation=activation)
    at = problem.linearise(problem.controls.constant(0.3, -0.4))  # smooth in depth
    check = state_range(Subject.of_linearisation(at))
    assert check.holds, check.explanation
    assert check.value <= 1e-12


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_a_switch_inside_a_slab_leaves_the_range_between_its_ends(activation):
    """F_1 = f_I + tau (A_11 sigma(U_1) + A_12 sigma(U_2)) with A_12 < 0, U_1 off, U_2 on."""
    subject = with_bias("dg1", activation, lambda t: np.where(t < 0.5, -50.0, 50.0))
    check = state_range(subject)
    A = subject.levels.scheme.stages
    on = 50.0 if activation == "relu" else 1.0
    assert A[0, 1] < 0
    assert check.holds is False
    assert check.value == pytest.approx(-A[0, 1] * on, rel=1e-12)
    # On halved slabs the controls' polynomial is smoother than the slab: the excess falls.
    assert "dg1 under-resolves the depth" in check.explanation


def test_linear_has_no_range():
    check = state_range(with_bias("dg1", "linear", np.sin))
    assert check.holds is None


def below_the_inputs(weight=1.3):
    network = make_network(width_space(COMM, 4), "dg1", "relu", points=uniform(1.5, 2))
    rng = np.random.default_rng(0)
    f, g = rng.standard_normal((2, 3, 4))
    problem = l2_problem(network, f, g, kernel=0.1, bias=0.1, weight=weight)
    return problem, f, g


def test_relu_cannot_go_down():
    """The floor is (weight / 2) sum_s w_s |(f_I - g)_+|^2; sigma = 0 leaves |(g - f_I)_+| too."""
    problem, f, g = below_the_inputs()
    control = problem.controls.constant(0.0, -1.0)
    check = loss_floor(Subject.of_linearisation(problem.linearise(control)))
    h = 0.25
    floor = 0.5 * 1.3 / 3 * h * np.sum(np.maximum(f - g, 0) ** 2)
    assert check.holds
    assert check.bound == pytest.approx(floor, rel=1e-13)
    assert check.value == pytest.approx(0.5 * 1.3 / 3 * h * np.sum((f - g) ** 2), rel=1e-13)


def test_targets_below_the_inputs_attain_the_floor():
    problem, f, g = below_the_inputs()
    targets = local(problem.network.space, np.minimum(f, g))
    problem = replace(problem, loss=replace(problem.loss, targets=targets))
    at = problem.linearise(problem.controls.constant(0.0, -1.0))
    check = loss_floor(Subject.of_linearisation(at))
    assert check.holds
    assert check.sharpness == pytest.approx(1.0, rel=1e-13)


def test_a_loss_below_the_floor_is_not_believed():
    problem, _, _ = below_the_inputs()
    at = problem.linearise(problem.controls.constant(0.0, -1.0))
    at.state.ends[-1] = problem.loss.targets
    check = loss_floor(Subject.of_linearisation(at))
    assert check.holds is False
    assert "do not solve the discrete state equation" in check.explanation


@pytest.mark.parametrize("repeated", [True, False])
def test_equal_samples_stay_equal(repeated):
    problem = random_problem(COMM, scheme="dg1")
    if repeated:
        problem.inputs[:, 2] = problem.inputs[:, 0]
    subject = Subject.of_linearisation(problem.linearise(random_control(problem)))
    check = identical_samples(subject)
    assert check.holds
    assert ("a copy of sample 0" in check.explanation) is not repeated
    if repeated:
        subject.state.ends[1, 0, 2] += 0.1
        check = identical_samples(subject)
        assert check.holds is False
        assert "do not solve the discrete state equation" in check.explanation


@pytest.mark.mpi
def test_invariants_do_not_depend_on_the_ranks():
    found = []
    for comm in (MPI.COMM_WORLD, MPI.COMM_SELF):
        problem = random_problem(comm, activation="sigmoid")
        subject = Subject.of_linearisation(problem.linearise(random_control(problem)))
        found.append([c(subject) for c in (state_range, loss_floor, identical_samples)])
    for here, alone in zip(*found, strict=True):
        assert here.holds is alone.holds is True
        assert here.value == pytest.approx(alone.value, rel=1e-11, abs=1e-14)
        assert here.bound == pytest.approx(alone.bound, rel=1e-11)
