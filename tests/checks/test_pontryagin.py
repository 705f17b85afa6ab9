"""Pontryagin's principle and the existence certificate on exact solutions (theory.md 9.2, 9.4)."""

import itertools

import numpy as np
import pytest
from helpers import l2_problem, make_network, random_control, random_problem, uniform, width_space
from mpi4py import MPI
from scipy.optimize import brentq

from fem_dnn.checks import (
    Subject,
    existence_convexity,
    hamiltonian,
    hamiltonian_constant,
    pontryagin_minimum,
)
from fem_dnn.checks.features import pointwise
from fem_dnn.solvers import Tolerances, solve_newton

COMM = MPI.COMM_SELF
T, LAMBDA = 1.5, 0.1


def bias_only(scheme="dg1", activation="tanh", distances=(0.9,), comm=COMM):
    network = make_network(width_space(comm, 2), scheme, activation, points=uniform(T, 3))
    targets = np.tile(np.array(distances)[:, None], (1, 2))
    return l2_problem(network, np.zeros_like(targets), targets, bias=LAMBDA)


def at_constant(problem, B):
    return Subject.of_linearisation(problem.linearise(problem.controls.constant(0.0, B)))


def exact_tanh():
    return brentq(lambda b: (T * np.tanh(b) - 0.9) / np.cosh(b) ** 2 + LAMBDA * b, 0, 3, xtol=1e-15)


@pytest.mark.parametrize("scheme", ["resnet", "dg0", "dg1", "dg2"])
def test_one_sample_bias_only(scheme):
    """9.2: H is constant in every scheme, the minimum global, the certificate 1 + 2 B tanh B."""
    B = exact_tanh()
    subject = at_constant(bias_only(scheme), B)
    p = T * np.tanh(B) - 0.9
    exact = p * np.tanh(B) + 0.5 * LAMBDA * B**2
    assert hamiltonian(subject) == pytest.approx(np.full(subject.levels.count, exact), rel=1e-12)
    constant = hamiltonian_constant(subject)
    assert constant.holds
    assert constant.value < 1e-13
    minimum = pontryagin_minimum(subject)
    assert minimum.holds
    assert minimum.value < 1e-12
    convexity = existence_convexity(subject)
    assert convexity.holds
    assert convexity.value == pytest.approx(1 + 2 * B * np.tanh(B), rel=1e-12)


def test_relu_bias_only():
    """9.2: B = d / (T + lambda); the zero control is a critical point and no minimum of H."""
    problem = bias_only(activation="relu")
    subject = at_constant(problem, 0.9 / (T + LAMBDA))
    assert pontryagin_minimum(subject).holds
    assert existence_convexity(subject).holds
    check = pontryagin_minimum(at_constant(problem, 0.0))
    assert check.holds is False
    # p = -d: min over b of -d b_+ + lambda b^2 / 2 is -d^2 / (2 lambda); H at 0 is 0.
    assert check.value == pytest.approx(0.9**2 / (2 * LAMBDA) / 1e-14, rel=1e-12)
    assert "other controls do better" in check.explanation


def test_a_control_that_is_no_minimum_of_the_hamiltonian():
    """The gap of a wrong bias is that of the scalar problem, found here by brute force."""
    B = 0.3
    subject = at_constant(bias_only(), B)
    p = T * np.tanh(B) - 0.9
    b = np.linspace(-20, 20, 2_000_001)
    phi = p * np.tanh(b) + 0.5 * LAMBDA * b**2
    H = p * np.tanh(B) + 0.5 * LAMBDA * B**2
    check = pontryagin_minimum(subject)
    assert check.holds is False
    assert check.value == pytest.approx((H - phi.min()) / abs(H), rel=1e-8)


def test_a_control_that_varies_is_not_critical():
    problem = bias_only()
    t = problem.network.levels.t
    control = problem.controls.constant(0.0, 1.0).reshape(len(t), -1) * (0.5 + t[:, None])
    check = hamiltonian_constant(Subject.of_linearisation(problem.linearise(control.ravel())))
    assert check.holds is False
    assert "not a critical point" in check.explanation


def test_the_features_give_the_gram_matrix():
    """M M' = <f_s, f_s'> / lambda_a + 1 / lambda_b, with a mask at every neuron apart."""
    for mask in (False, True):
        problem = random_problem(COMM, mask=mask)
        subject = Subject.of_linearisation(problem.linearise(random_control(problem)))
        F = subject.level_states()
        point = pointwise(subject, 2, F)
        K = point.factor @ point.factor.transpose(0, 2, 1)
        h = problem.network.space.local_weights
        rows = problem.controls.mask.T if mask else np.ones((1, len(h)))
        exact = np.einsum("xy,y,ys,yr->xsr", rows, h, F[2], F[2]) / 0.01 + 1 / 0.02
        assert pytest.approx(exact, rel=1e-12) == K


def solved(samples=2, **options):
    problem = random_problem(COMM, samples=samples, regularization=(0.3, 0.3, 0.3), **options)
    zero = np.zeros(problem.controls.n_local)
    return Subject.of_linearisation(solve_newton(problem, zero, Tolerances(1e-11)).at, zero)


def untrained(**options):
    problem = random_problem(COMM, **options)
    return Subject.of_linearisation(problem.linearise(random_control(problem)))


def test_several_samples():
    """At a solution phi at the pointwise minimum is the computed cost; the certificate by hand."""
    subject = solved(scheme="resnet")
    check = pontryagin_minimum(subject)
    assert check.holds, check.explanation
    F, lowest = subject.level_states(), np.inf
    for level, node in itertools.product(range(subject.levels.count), range(4)):
        h = subject.network.space.local_weights
        K = (F[level].T * h) @ F[level] / 0.3 + 1 / 0.3
        q, u = np.linalg.solve(K, subject.state.u[level][node]), subject.state.u[level][node]
        root = np.linalg.cholesky(K)
        bracket = np.linalg.inv(K) + 2 * np.diag(np.tanh(u) * q)
        lowest = min(lowest, np.linalg.eigvalsh(root.T @ bracket @ root)[0])
    convexity = existence_convexity(subject)
    assert convexity.value == pytest.approx(lowest, rel=1e-6)
    assert convexity.holds is bool(lowest > 0)


def test_hamiltonian_of_a_trained_network_and_of_an_untrained_one():
    resolved = solved(scheme="resnet", points=np.linspace(0, 1.1, 9))
    assert hamiltonian_constant(resolved).holds
    coarse = hamiltonian_constant(solved(scheme="resnet", points=np.linspace(0, 1.1, 5)))
    assert not coarse.holds and "the depth mesh is too coarse" in coarse.explanation
    assert pontryagin_minimum(untrained(scheme="resnet")).holds is False


def test_more_samples_than_nodes():
    check = existence_convexity(untrained(samples=7))
    assert check.holds is None
    assert "K has rank 5 for 7 samples" in check.explanation


def test_linear_activations_are_convex():
    check = existence_convexity(untrained(activation="linear"))
    assert check.holds
    assert check.value == pytest.approx(1.0, rel=1e-13)


def test_relu_needs_the_sign_condition():
    """S = 2: convex if and only if K_12 >= 0."""
    for sign in (1, -1):
        network = make_network(width_space(COMM, 2), "resnet", "relu", points=uniform(1.0, 1))
        inputs = np.array([[1.0, 0.0], [sign * 0.5, 1.0]])
        problem = l2_problem(network, inputs, inputs, kernel=0.1)
        at = problem.linearise(problem.controls.constant(0.0))
        check = existence_convexity(Subject.of_linearisation(at))
        assert check.holds is (sign > 0)
        assert check.value == pytest.approx(sign * 0.5 / np.sqrt(1.25), rel=1e-12)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"activation": "gelu"}, "not strictly increasing"),
        ({"regularization": (0, 1, 1)}, "not reg"),
    ],
)
def test_where_nothing_is_certified(options, why):
    problem = random_problem(COMM, **options)
    at = problem.linearise(random_control(problem))
    check = existence_convexity(Subject.of_linearisation(at))
    assert check.holds is None
    assert why in check.explanation


def test_moving_targets_are_not_autonomous():
    problem = random_problem(COMM, tracking=True)
    at = problem.linearise(random_control(problem))
    check = hamiltonian_constant(Subject.of_linearisation(at))
    assert check.holds is None
    assert "tracking targets depend on t" in check.explanation


@pytest.mark.mpi
@pytest.mark.several_ranks
def test_the_principle_does_not_depend_on_the_ranks():
    found = []
    for comm in (MPI.COMM_WORLD, MPI.COMM_SELF):
        problem = random_problem(comm, scheme="resnet", mask=True)
        at = problem.linearise(random_control(problem, scale=0.1))
        subject = Subject.of_linearisation(at)
        every = (hamiltonian_constant, pontryagin_minimum, existence_convexity)
        found.append([c(subject) for c in every])
    for here, alone in zip(*found, strict=True):
        assert here.holds is alone.holds
        assert here.value == pytest.approx(alone.value, rel=1e-9)
