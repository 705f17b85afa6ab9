"""Feedback from the second-order expansion of the value functional: its orders."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import (
    everywhere,
    l2_problem,
    make_network,
    random_problem,
    relative,
    uniform,
    width_space,
)
from mpi4py import MPI

from fem_dnn.feedback import NoFeedback, control_change, feedback_control, run_loop
from fem_dnn.solvers import Tolerances, solve_newton
from fem_dnn.solvers.tail import problem_from

COMM = MPI.COMM_SELF
TIGHT = Tolerances(rtol=1e-11, atol=1e-13)
SIZES = (0.2, 0.1, 0.05)


def trained(comm=COMM, **options):
    options = {
        "scheme": "resnet", "samples": 2, "points": uniform(1.0, 3),
        "regularization": (0.5, 0.5, 0.5),
    } | options  # fmt: skip
    problem = random_problem(comm, **options)
    solution = solve_newton(problem, 0 * problem.controls.random(0), TIGHT)
    assert solution.converged, solution.reason
    return solution.at


def direction(at, seed=11):
    space = at.problem.network.space
    samples = at.problem.inputs.shape[1]
    whole = np.random.default_rng(seed).standard_normal((samples, space.n_nodes))
    return space.from_file_order(whole).T.copy()


def orders(excess):
    return np.diff(np.log(excess)) / np.log(0.5)


@pytest.mark.parametrize("kind", ["l2", "mse", "logistic", "softmax"])
def test_derivative_of_the_gradient_by_the_inputs(kind):
    """Central differences: exact to second order, with learned outputs and tracking too."""
    problem = random_problem(COMM, loss=kind, tracking=True, learn_outputs=kind != "l2")
    at = problem.linearise(0.3 * problem.controls.random_direction(1))
    d = direction(at)

    def gradient(step):
        return replace(problem, inputs=problem.inputs + step * d).linearise(at.control).gradient

    quotient = (gradient(1e-4) - gradient(-1e-4)) / 2e-4
    assert relative(quotient, at.gradient_by_inputs(d)) < 1e-7


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loss": "softmax", "learn_outputs": True, "scheme": "dg1"},
        {"loss": "logistic", "mask": True, "activation": "sigmoid"},
        {"tracking": True, "kernel": False, "given": True},
    ],
)
def test_orders_of_open_loop_and_feedback(options):
    at = trained(**options)
    d = direction(at)
    opened, closed = [], []
    for size in SIZES:
        problem = replace(at.problem, inputs=at.problem.inputs + size * d)
        control = feedback_control(at, problem.inputs)
        best = solve_newton(problem, control, TIGHT, escape=False)
        assert best.converged, best.reason
        opened.append(problem.objective(at.control) - best.objective)
        closed.append(problem.objective(control) - best.objective)
    assert np.all(np.abs(orders(opened) - 2) < 0.3), opened
    assert np.all(orders(closed) > 3.5), closed
    assert closed[0] < 0.1 * opened[0]


def test_smooth_controls():
    """Where derivatives are penalised conjugate gradients run in the regulariser's coordinates."""
    at = trained()
    R = replace(at.problem.regularization, kernel_depth=0.3, bias_depth=0.2)
    problem = replace(at.problem, regularization=R)
    at = solve_newton(problem, at.control, TIGHT).at
    d = direction(at)
    dc = control_change(at, d)
    assert at.problem.controls.norm(at.hessian_action(dc) + at.gradient_by_inputs(d)) < 1e-8
    with pytest.raises(NoFeedback, match="kernel_depth"):
        run_loop(at, problem.inputs, measured=[1])


def test_exact_where_the_problem_is_quadratic():
    """Bias only, linear: J is quadratic in controls and inputs, so the expansion is all of it."""
    at = trained(activation="linear", kernel=False)
    inputs = at.problem.inputs + 3.0 * direction(at)
    problem = replace(at.problem, inputs=inputs)
    answer = problem.linearise(feedback_control(at, inputs))
    assert answer.gradient_norm < 1e-9 * problem.linearise(at.control).gradient_norm


def test_the_gradient_of_the_value_is_the_adjoint():
    """D V(f_I, 0) = w p(0), V the optimal objective, by central differences."""
    at = trained()
    d, h = direction(at), at.problem.network.space.local_weights[:, None]
    values = []
    for step in (1e-3, -1e-3):
        problem = replace(at.problem, inputs=at.problem.inputs + step * d)
        values.append(solve_newton(problem, at.control, TIGHT).objective)
    slope = (values[0] - values[1]) / 2e-3
    expected = np.sum(h * at.problem.sample_weights * at.adjoint.ends[0] * d)
    assert slope == pytest.approx(expected, rel=1e-5)


def test_bounds_are_kept():
    at = trained(bounds={"kernel": (-0.05, 0.05)})
    inputs = at.problem.inputs + 0.05 * direction(at)
    control = feedback_control(at, inputs)
    box = at.problem.controls.box
    assert np.array_equal(box.project(control), control)
    assert np.any(box.active(control))
    problem = replace(at.problem, inputs=inputs)
    opened, closed = problem.objective(at.control), problem.objective(control)
    best = solve_newton(problem, control, TIGHT).objective
    assert closed - best < 0.1 * (opened - best)


def test_the_closed_loop_without_disturbances():
    """Measuring again further on loses nothing of the order; without measuring it is open."""
    at = trained(tracking=True)
    inputs = at.problem.inputs + 0.1 * direction(at)
    problem = replace(at.problem, inputs=inputs)
    opened = run_loop(at, inputs)
    assert opened.objective == pytest.approx(problem.objective(at.control), rel=1e-13)
    once = run_loop(at, inputs, measured=[0])
    assert once.objective == pytest.approx(problem.objective(feedback_control(at, inputs)))
    often = run_loop(at, inputs, measured=[0, 1, 2])
    best = run_loop(at, inputs, measured=[0], reoptimised=True)
    assert often.objective == pytest.approx(problem.objective(often.control), rel=1e-12)
    assert np.allclose(often.ends, problem.linearise(often.control).state.ends, atol=1e-13)
    excess = [loop.objective - best.objective for loop in (opened, once, often)]
    assert min(excess) > 0
    assert excess[0] > 10 * max(excess[1:])


def test_disturbances_on_the_way():
    """Second order without, fourth order with a measurement after each of them."""
    at = trained(tracking=True, points=uniform(1.0, 4))
    d1, d2 = direction(at, 1), direction(at, 2)
    opened, closed = [], []
    for size in SIZES:
        shocks = {1: size * d1, 3: size * d2}
        loops = [
            run_loop(at, at.problem.inputs, disturbances=shocks, **how)
            for how in (
                {},
                {"measured": [1, 3]},
                {"measured": [1, 3], "reoptimised": True},
            )
        ]
        best = loops[2].objective
        opened.append(loops[0].objective - best)
        closed.append(loops[1].objective - best)
    # Reoptimising knows no more of the shock to come than the feedback does: their difference at
    # the first measurement is of second order and changes what the second one meets.
    assert np.all(np.abs(orders(opened) - 2) < 0.3), opened
    assert np.all(orders(np.abs(closed)) > 2.7), closed
    assert abs(closed[-1]) < 0.02 * opened[-1]


def test_the_rest_of_an_optimal_control_is_optimal():
    """Bellman's principle: the tail is stationary for the remaining problem."""
    from fem_dnn.feedback import control_from

    for options in ({}, {"tracking": True, "scheme": "dg1"}, {"loss": "mse", "mask": True}):
        at = trained(**options)
        rest = problem_from(at.problem, 2, at.state.ends[2])
        tail = rest.linearise(control_from(at.problem, at.control, 2))
        assert tail.gradient_norm < 1e-9
        assert np.allclose(tail.adjoint.ends, at.adjoint.ends[2:], rtol=0, atol=1e-12)


def test_no_feedback_at_a_saddle():
    network = make_network(width_space(COMM, 2), "dg1", "linear", points=uniform(1.0, 2))
    problem = l2_problem(network, [[3.0, 0.0]], [[-3.0, 0.0]], kernel=0.1, bias=0.1, weight=50.0)
    symmetric = solve_newton(problem, np.zeros(problem.controls.n_local), TIGHT, escape=False)
    with pytest.raises(NoFeedback, match="not positive definite"):
        control_change(symmetric.at, np.array([[0.1], [0.3]]))


@pytest.mark.mpi
def test_does_not_depend_on_the_ranks():
    found = []
    for comm in (MPI.COMM_WORLD, COMM):
        at = trained(comm, loss="softmax", learn_outputs=True, mask=True)
        loop = run_loop(at, at.problem.inputs, measured=[1], disturbances={1: 0.1 * direction(at)})
        found.append((everywhere(at.problem, loop.control), loop.objective))
    assert np.allclose(found[0][0], found[1][0], rtol=0, atol=1e-9)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-11)
