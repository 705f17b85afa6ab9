"""Certified minima, convex envelopes and what they say of a solution (theory.md sections 5, 7)."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import l2_problem, make_network, random_control, random_problem, uniform, width_space
from mpi4py import MPI
from scipy.optimize import minimize, minimize_scalar

from fem_dnn.activations import ACTIVATIONS
from fem_dnn.checks import Subject
from fem_dnn.existence import (
    OutsideHull,
    VelocitySet,
    above_hull,
    envelope_at,
    existence_oscillation,
    lower_hull,
    lowest,
    savings,
)
from fem_dnn.solvers import Tolerances, solve_newton

COMM = MPI.COMM_SELF
ACTIVE = ["tanh", "sigmoid", "softplus", "gelu", "relu", "linear"]


def random_set(name: str, samples: int, seed: int = 0, scale: float = 2.0) -> VelocitySet:
    factor = scale * np.random.default_rng(seed).standard_normal((samples, samples))
    return VelocitySet.of_factor(ACTIVATIONS[name], factor)


def cases_6() -> VelocitySet:
    """The velocity set of theory.md 9.6."""
    return VelocitySet.of_gram(ACTIVATIONS["tanh"], np.array([[1, 0.9], [0.9, 1]]) / 0.19)


@pytest.mark.parametrize("name", ACTIVE)
@pytest.mark.parametrize("samples", [1, 2, 3])
def test_the_minimum_is_global(name, samples):
    """Nothing that a fine grid or many descents find lies below the certified bound."""
    velocities = random_set(name, samples)
    c = np.random.default_rng(samples).standard_normal(samples)
    found = lowest(velocities, c, 1e-11)
    assert 0 <= found.value - found.lower <= 1.001e-11

    def phi(z):
        return float(velocities.velocity(z) @ c + velocities.cost(z))

    assert phi(found.z) == pytest.approx(found.value, abs=1e-14)
    reach = 1.2 * np.linalg.norm(velocities.factor, 2) * np.linalg.norm(c)
    axes = np.meshgrid(*[np.linspace(-reach, reach, 41)] * samples)
    grid = np.stack(axes, axis=-1).reshape(-1, samples)
    values = velocities.velocity(grid) @ c + velocities.cost(grid)
    starts = grid[np.argsort(values)[:3]]
    descents = [minimize(phi, z, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13}).fun
                for z in starts]  # fmt: skip
    assert min(descents) >= found.lower - 1e-13  # round-off of phi
    assert min(descents) == pytest.approx(found.value, abs=1e-7)


def test_the_conjugate_of_a_linear_network_is_a_quadratic():
    """sigma(u) = u: min c'u + u'K^{-1}u / 2 = -c'Kc / 2, and r** = r."""
    K = np.array([[2.0, 0.5], [0.5, 1.0]])
    velocities = VelocitySet.of_gram(ACTIVATIONS["linear"], K)
    c, v = np.array([0.3, -1.2]), np.array([0.7, -0.4])
    assert lowest(velocities, c).value == pytest.approx(-0.5 * c @ K @ c, abs=1e-12)
    envelope = envelope_at(velocities, v)
    assert envelope.upper == pytest.approx(0.5 * v @ np.linalg.solve(K, v), abs=1e-9)
    assert envelope.slope == pytest.approx(np.linalg.solve(K, v), abs=1e-4)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "relu"])
def test_one_sample_is_convex(name):
    """Section 5: S = 1 is convex, so r** = r = u^2 / (2 K)."""
    velocities = VelocitySet.of_gram(ACTIVATIONS[name], np.array([[1.7]]))
    for u in (0.3, 1.4):
        v = ACTIVATIONS[name](np.array([u]))
        envelope = envelope_at(velocities, v)
        assert envelope.lower <= u * u / 3.4 + 1e-12
        assert envelope.upper == pytest.approx(u * u / 3.4, abs=1e-9)
        assert len(envelope.shares) == 1
        assert "nothing is gained" in envelope.explanation


def test_uncorrelated_samples_are_convex_and_correlated_ones_are_not():
    """tanh, S = 2: K diagonal splits into two samples; theory.md 9.6 mixes two controls."""
    velocities = VelocitySet.of_gram(ACTIVATIONS["tanh"], np.diag([1.3, 0.6]))
    u = np.array([0.5, 1.5])
    envelope = envelope_at(velocities, np.tanh(u))
    assert envelope.upper == pytest.approx(0.5 * (0.25 / 1.3 + 2.25 / 0.6), abs=1e-9)
    envelope = envelope_at(cases_6(), np.tanh(u), tolerance=1e-11)
    assert envelope.upper - envelope.lower <= 1e-11
    # The loss 10 |v - g|^2 at v*, g to eight digits, leaves the infimum 1.2962397.
    distance = np.sum((np.tanh(u) - [0.40829488, 1.16980372]) ** 2)
    assert envelope.upper + 10 * distance == pytest.approx(1.2962397, abs=5e-8)
    assert len(envelope.shares) == 2
    assert envelope.shares @ envelope.velocities == pytest.approx(np.tanh(u), abs=1e-12)
    assert "switching between 2 controls" in envelope.explanation


def relu_envelope(rho: float, weight: float, v: np.ndarray) -> float:
    """r** of unit inputs with <f_1, f_2> = -rho < 0 (docs/existence.md)."""
    kappa = rho / (1 - 2 * rho**2)
    a, b = v
    if rho >= 0.5:
        return weight / 2 * (a + b) ** 2
    if b <= kappa * a:
        return weight / 2 * (a + 2 * rho * b) ** 2
    if a <= kappa * b:
        return weight / 2 * (2 * rho * a + b) ** 2
    return weight / 2 * (a * a + 2 * rho * a * b + b * b) / (1 - rho**2)


@pytest.mark.parametrize("rho", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("v", [(1.0, 1.0), (1.0, 0.1), (0.3, 1.0), (0.8, 0.0)])
def test_relu_in_closed_form(rho, v):
    K = np.array([[1, -rho], [-rho, 1]]) / 0.5
    velocities = VelocitySet.of_gram(ACTIVATIONS["relu"], K)
    exact = relu_envelope(rho, 0.5, np.array(v))
    envelope = envelope_at(velocities, np.array(v), tolerance=1e-11)
    assert envelope.upper == pytest.approx(exact, abs=1e-11)
    assert envelope.lower == pytest.approx(exact, abs=1e-11)


def test_relu_with_acute_inputs_is_convex():
    """Section 5: K_12 >= 0 is convex, so no mixture beats one control."""
    velocities = VelocitySet.of_gram(ACTIVATIONS["relu"], np.array([[1, 0.6], [0.6, 1]]))
    u = np.array([0.9, 0.4])
    cost = 0.5 * u @ np.linalg.solve(np.array([[1, 0.6], [0.6, 1]]), u)
    assert envelope_at(velocities, u).lower == pytest.approx(cost, abs=1e-9)


def test_the_hull_of_samples_agrees():
    """An independent computation: the convex hull of r on a grid, from above, to second order."""
    velocities, point = cases_6(), np.tanh([[0.5, 1.5]])
    exact = envelope_at(velocities, point[0]).upper
    errors = []
    for count in (40, 80):
        side = np.arctanh(np.linspace(-0.995, 0.995, count))
        u = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
        cost = velocities.cost(velocities.controls(u))
        errors.append(float(lower_hull(np.tanh(u), cost, point)[0]) - exact)
    assert 0 < errors[1] < errors[0]
    assert errors[1] < 4e-3
    wanted = np.argmin(np.sum((np.tanh(u) - point) ** 2, axis=1))
    above = above_hull(np.tanh(u), cost)
    assert above[wanted] and not above[np.argmin(cost)]
    outside = lower_hull(np.tanh(u), cost, np.array([[1.5, 0.0]]))
    assert np.isinf(outside[0])


def test_what_cannot_be_treated_says_so():
    with pytest.raises(ValueError, match="4 samples"):
        VelocitySet.of_gram(ACTIVATIONS["tanh"], np.eye(4))
    with pytest.raises(OutsideHull, match="not in the convex hull"):
        envelope_at(random_set("relu", 2), np.array([-1.0, 0.5]))
    sharp = ACTIVATIONS["tanh"].from_functions("own", np.abs, np.sign, np.zeros_like)
    with pytest.raises(ValueError, match="second derivative"):
        lowest(VelocitySet.of_gram(sharp, np.eye(2)), np.ones(2))


def test_more_samples_than_controls():
    """rank K = 1 < S = 2: u on a line; the envelope is that of a curve in the plane."""
    row = np.array([[1.0], [-0.6]])
    velocities = VelocitySet.of_factor(ACTIVATIONS["tanh"], np.hstack([row, 2 * row]))
    assert velocities.rank == 1
    c = np.array([0.4, 0.9])
    size = np.sqrt(5.0)

    def phi(z):
        return float(c @ np.tanh(size * row[:, 0] * z) + 0.5 * z * z)

    best = min(
        minimize_scalar(phi, bounds=(a, a + 1), method="bounded", options={"xatol": 1e-10}).fun
        for a in range(-5, 5)
    )
    assert lowest(velocities, c).value == pytest.approx(best, abs=1e-9)
    middle = envelope_at(velocities, np.zeros(2))
    assert middle.upper == pytest.approx(0.0, abs=1e-9)


def solved(comm=COMM, **options):
    problem = random_problem(comm, scheme="resnet", samples=2, **options)
    start = np.zeros(problem.controls.n_local)
    return Subject.of_linearisation(solve_newton(problem, start, Tolerances(1e-10)).at, start)


def test_a_convex_problem_saves_nothing():
    """Strong regularisation makes the pointwise problem strictly convex (section 7)."""
    subject = solved(regularization=(3.0, 3.0, 3.0))
    found = savings(subject)
    check = existence_oscillation(subject)
    assert check.holds and check.value == 0
    assert found.total == 0
    assert found.at_most < 1e-6
    assert "saves anything" in found.explanation


def test_wasteful_controls_save_at_least_their_waste():
    """sigma linear: r = r**, so what is saved is the part of the cost that does not act on u."""
    problem = random_problem(COMM, scheme="resnet", samples=2, activation="linear")
    at = problem.linearise(random_control(problem))
    subject = Subject.of_linearisation(at)
    found = savings(subject)
    F, h, total = subject.level_states(), problem.network.space.local_weights, 0.0
    for level, omega in enumerate(problem.network.levels.weights):
        K = (F[level].T * h) @ F[level] / 0.01 + 1 / 0.02
        u = subject.state.u[level]
        total += omega * float(h @ (0.5 * np.sum(u * np.linalg.solve(K, u.T).T, axis=1)))
    assert found.total == pytest.approx(at.regularization - total, rel=1e-6)


def test_relu_saves_what_the_closed_form_says():
    """Both samples moved at once, <f_1, f_2> = -0.7: r - r** of the closed form at every layer."""
    network = make_network(width_space(COMM, 2), "resnet", "relu", points=uniform(1.0, 1))
    inputs = np.sqrt(2) * np.array([[1.0, 0.0], [-0.7, np.sqrt(0.51)]])
    problem = l2_problem(network, inputs, inputs + 0.3, kernel=0.5)
    # Both rows of a have u = (1, 1), at the least cost: q = K^{-1} u.
    q = np.linalg.solve(np.array([[1, -0.7], [-0.7, 1]]) / 0.5, np.ones(2))
    row = q @ inputs / 0.5
    control = problem.controls.coordinates(values(np.tile(row, (1, 2, 1))))
    found = savings(Subject.of_linearisation(problem.linearise(control)))
    r = 0.25 * (2 + 1.4) / 0.51
    assert found.cost == pytest.approx(np.full((1, 2), r), rel=1e-12)
    assert found.total == pytest.approx(r - relu_envelope(0.7, 0.5, np.ones(2)), rel=1e-7)
    assert found.share == 1.0
    check = existence_oscillation(Subject.of_linearisation(problem.linearise(control)))
    assert check.holds is False
    assert check.value == pytest.approx(found.total / found.objective, rel=1e-12)
    assert "no minimiser" in found.explanation


def values(kernel):
    from fem_dnn.controls import ControlValues

    return ControlValues(kernel=kernel)


def test_savings_refuses_what_it_cannot_treat():
    with pytest.raises(ValueError, match="treated up to 3"):
        savings(solved_many())


def test_the_check_says_where_it_does_not_apply():
    check = existence_oscillation(solved_many())
    assert check.holds is None
    assert "4 samples" in check.explanation


def test_savings_refuses_penalised_derivatives():
    problem = random_problem(COMM, scheme="resnet", samples=2)
    rougher = replace(problem.regularization, kernel_depth=0.1)
    at = replace(problem, regularization=rougher).linearise(random_control(problem))
    with pytest.raises(ValueError, match="derivatives of the controls"):
        savings(Subject.of_linearisation(at))


def solved_many():
    problem = random_problem(COMM, scheme="resnet", samples=4)
    return Subject.of_linearisation(problem.linearise(random_control(problem)))


@pytest.mark.mpi
def test_savings_do_not_depend_on_the_ranks():
    found = []
    for comm in (MPI.COMM_WORLD, MPI.COMM_SELF):
        problem = random_problem(comm, scheme="resnet", samples=2, activation="relu")
        at = problem.linearise(random_control(problem, scale=0.2))
        found.append(savings(Subject.of_linearisation(at)))
    assert found[0].total == pytest.approx(found[1].total, rel=1e-7)
    assert found[0].at_most == pytest.approx(found[1].at_most, rel=1e-7)
    assert found[0].share == pytest.approx(found[1].share, rel=1e-12)
    assert found[1].total > 0
