"""The search for critical points, where all or some of them are known (theory.md 9.2, 9.5)."""

from itertools import product

import numpy as np
import pytest
from helpers import everywhere, l2_problem, make_network, random_problem, width_space
from known_points import GELU, SELF, WORLD, one_layer, search, turned
from scipy.optimize import brentq, minimize_scalar

from fem_dnn.activations import ACTIVATIONS
from fem_dnn.controls import ControlValues
from fem_dnn.critical_points.search import slope_off_kinks
from fem_dnn.errors import BadInput
from fem_dnn.inertia import inertia
from fem_dnn.solvers import Tolerances, solve_newton


def gelu_roots() -> list[float]:
    T, d, weight = GELU.values()

    def slope(B: float) -> float:
        value, derivative = ACTIVATIONS["gelu"].evaluate(np.array(B), 1)
        return float((T * value - d) * derivative + weight * B)

    grid = np.linspace(-12, 6, 400)
    signs = np.array([slope(B) for B in grid])
    return [
        brentq(slope, a, b, xtol=1e-14)
        for a, b, left, right in zip(grid, grid[1:], signs, signs[1:], strict=False)
        if left * right < 0
    ]


def test_all_three_of_one_unknown():
    roots = gelu_roots()
    assert len(roots) == 3
    found = search(one_layer(1, SELF), points=9, starts=6, scale=2.0)
    values = sorted(float(point.at.control[0]) for point in found.points)
    # A coordinate is sqrt(T h) times the value.
    assert np.allclose(values, np.sqrt(GELU["T"]) * np.array(roots), rtol=0, atol=1e-11)
    assert found.complete
    kinds = [p.inertia.kind for p in sorted(found.points, key=lambda p: p.at.control[0])]
    assert kinds == ["minimum", "maximum", "minimum"]
    assert all(point.at.gradient_norm < 1e-12 for point in found.points)


def test_all_nine_of_two_unknowns_and_their_copies():
    roots = gelu_roots()
    found = search(one_layer(2), points=20, starts=10, scale=2.0)
    values = [everywhere(point.at.problem, point.at.control) for point in found.points]
    expected = np.array(sorted(product(roots, roots)))
    in_order = sorted(map(tuple, values), key=lambda pair: tuple(np.round(pair, 6)))
    assert np.allclose(in_order, expected, rtol=0, atol=1e-10)
    kinds = sorted(point.inertia.kind for point in found.points)
    assert kinds == ["maximum"] + 4 * ["minimum"] + 4 * ["saddle"]
    # Exchanging the nodes, the mirror image, makes six of the nine into three pairs.
    copies = [point.copy for point in found.points if point.copy is not None]
    assert [copy.how for copy in copies] == 3 * ["mirror image"]
    for number, point in enumerate(found.points):
        if point.copy is not None:
            assert point.copy.of <= number
            assert np.allclose(values[number][::-1], values[point.copy.of - 1], atol=1e-10)


def straight_path(size: float, weight: float) -> float:
    """min over the end -r of weight/2 (size - r)^2 + (asinh(size) + asinh(r))^2 / 2."""
    cost = minimize_scalar(
        lambda r: 0.5 * weight * (size - r) ** 2 + 0.5 * (np.arcsinh(size) + np.arcsinh(r)) ** 2,
        bounds=(0, size),
        method="bounded",
        options={"xatol": 1e-12},
    )
    return float(cost.fun)


@pytest.mark.parametrize(("size", "kind"), [(1.48, "minimum"), (1.54, "saddle")])
def test_the_straight_path_loses_stability_at_the_threshold(size, kind):
    """At kappa |f| = 1.5089 for omega T / lambda_b = 100; the inertia tells."""
    problem = turned(2, size, scheme="dg2", layers=2, weight=100.0)
    zero = np.zeros(problem.controls.n_local)
    solution = solve_newton(problem, zero, Tolerances(1e-11), escape=False)
    assert solution.objective == pytest.approx(straight_path(size, 100.0), rel=2e-4)
    found = inertia(solution.at)
    assert (found.kind, found.negative) == (kind, int(kind == "saddle"))


def test_two_mirror_images_beyond_the_threshold():
    found = search(turned(2, 1.8), points=3, symmetries=False)
    saddle, one, other = sorted(found.points, key=lambda p: -p.at.objective)
    assert (saddle.inertia.kind, saddle.inertia.negative) == ("saddle", 1)
    assert [one.inertia.kind, other.inertia.kind] == ["minimum", "minimum"]
    assert one.at.objective == pytest.approx(other.at.objective, rel=1e-12)
    assert saddle.at.objective - one.at.objective > 0.01
    assert saddle.copy is one.copy is None or other.copy is None
    problem = one.at.problem
    a, b = (problem.controls.values(point.at.control) for point in (one, other))
    assert np.allclose(a.kernel[:, ::-1, ::-1], b.kernel, rtol=0, atol=1e-10)
    assert np.allclose(a.bias[:, ::-1], b.bias, rtol=0, atol=1e-10)
    # The straight path is its own mirror image.
    straight = problem.controls.values(saddle.at.control)
    assert np.allclose(straight.bias[:, 0], straight.bias[:, 1], rtol=0, atol=1e-10)


def test_one_point_below_the_threshold():
    found = search(turned(2, 1.2), points=3)
    assert [point.inertia.kind for point in found.points] == ["minimum"]
    assert found.complete
    assert found.failures  # and those are neither deflated nor listed


def test_a_sphere_of_minimisers_for_more_nodes():
    """With N nodes the saddle has the index N - 1, the minimisers N - 2 zero eigenvalues."""
    found = search(turned(4, 1.8), points=3, symmetries=False)
    saddle, one, other = found.points
    assert (saddle.inertia.kind, saddle.inertia.negative) == ("saddle", 3)
    for point in (one, other):
        assert (point.inertia.kind, point.inertia.negative) == ("degenerate", 0)
        assert point.inertia.zero == 2
    assert other.copy.certain
    assert "orthogonal map" in other.copy.how
    assert "continuous family" in other.copy.how


@pytest.mark.mpi
def test_a_guess_that_is_critical_itself():
    """Tanh and targets 0: zero controls are critical, with gradient 0 exactly."""
    network = make_network(width_space(WORLD, 2), "resnet", points=[0.0, 0.5, 1.0])
    f = np.array([[1.0, -1.0], [-1.0, 1.0]])
    problem = l2_problem(network, f, f, kernel=0.1, bias=0.1)
    found = search(problem, starts=2)
    (point,) = found.points
    assert point.at.gradient_norm == 0
    assert (point.inertia.kind, point.iterations) == ("minimum", 0)
    assert found.reference > 0.01  # set by a random control


def test_from_a_saddle_down_to_both_minimisers():
    """A guess that is a saddle to round-off is listed, though no gradient there sets a scale."""
    problem = turned(2, 1.8)
    (saddle,) = search(problem, points=1).points
    guess = saddle.at.control
    found = search(problem, guess=guess, points=3)
    assert np.array_equal(found.points[0].at.control, guess)
    assert [p.inertia.kind for p in found.points] == ["saddle", "minimum", "minimum"]
    assert found.points[0].iterations == 0


@pytest.mark.mpi
def test_a_kink_is_no_critical_point():
    network = make_network(width_space(WORLD, 2), "resnet", "relu", points=[0.0, 1.0])
    problem = l2_problem(network, np.zeros((1, 2)), np.ones((1, 2)), bias=0.1)
    found = search(problem, points=1)
    assert not found.points
    assert any("kink" in reason for reason in found.failures)
    found = search(problem, points=1, guess=problem.controls.constant(bias=0.1))
    assert [point.inertia.kind for point in found.points] == ["minimum"]


@pytest.mark.mpi
@pytest.mark.parametrize(("target", "critical"), [(1.0, False), (-1.0, True)])
def test_a_dead_node_is_critical_only_where_it_is_best_dead(target, critical):
    """ReLU, bias only: B = 0 at the second node, its gradient taken from below is 0 there.

    With a target above its input J falls as B rises from 0; with one below, B = 0 is best.
    """
    network = make_network(width_space(WORLD, 2), "resnet", "relu", points=[0.0, 1.0])
    problem = l2_problem(network, np.zeros((1, 2)), np.array([[1.0, target]]), bias=0.1)
    best = 1.0 / (1.0 + 0.1)
    guess = problem.controls.coordinates(ControlValues(bias=np.array([[best, 0.0]])))
    at = problem.linearise(guess)
    assert at.gradient_norm < 1e-15
    slope = np.sqrt(0.5) * (target > 0)  # sqrt(T h) |p|, p = f - g
    assert slope_off_kinks(at) == pytest.approx(slope, abs=1e-15)
    found = search(problem, points=1, guess=guess)
    assert any("other side" in reason for reason in found.failures) != critical
    assert [point.inertia.kind for point in found.points] == ["minimum"] * critical


SMOOTHED = {"regularization": (0.1, 0.1, 0.1, 0.02, 0.03, 0.01, 0.01, 0.02)}


@pytest.mark.mpi
@pytest.mark.parametrize(
    "options",
    [SMOOTHED, {"loss": "softmax", "learn_outputs": True, "regularization": (0.1, 0.1, 0.1)}],
    ids=["smoothed", "outputs"],
)
def test_other_coordinates_and_controls(options):
    """Where derivatives are penalised Newton's method works in the regulariser's coordinates."""
    problem = random_problem(WORLD, scheme="resnet", cells=2, **options)
    zero = np.zeros(problem.controls.n_local)
    solution = solve_newton(problem, zero, Tolerances(1e-12))
    found = search(problem, points=2)
    distances = [problem.controls.norm(p.at.control - solution.control) for p in found.points]
    assert min(distances) < 1e-9
    for point in found.points:
        assert point.at.gradient_norm < 1e-8 * found.reference


@pytest.mark.mpi
@pytest.mark.several_ranks
def test_ranks_do_not_matter():
    one, several = search(one_layer(2, SELF), points=4), search(one_layer(2), points=4)
    assert len(one.points) == len(several.points) == 4
    for alone, shared in zip(one.points, several.points, strict=True):
        a, b = (everywhere(point.at.problem, point.at.control) for point in (alone, shared))
        assert np.allclose(a, b, rtol=0, atol=1e-11)
        assert alone.found_from == shared.found_from
        assert np.allclose(alone.inertia.eigenvalues, shared.inertia.eigenvalues, atol=1e-11)


def test_options_that_nothing_reads_are_refused():
    from fem_dnn.critical_points import Settings, find_critical_points

    problem = one_layer(1, SELF)
    with pytest.raises(BadInput, match="snes_nonsense"):
        find_critical_points(
            problem, np.zeros(1), [], Settings(1, 1e-4, 1.0, Tolerances()), {"snes_nonsense": "1"}
        )
