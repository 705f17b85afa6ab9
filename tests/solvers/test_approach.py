"""Quasi-Newton steps on the way to a minimiser."""

from itertools import pairwise

import numpy as np
import pytest
from helpers import (
    everywhere,
    l2_problem,
    make_network,
    random_control,
    random_problem,
    relative,
    uniform,
    width_space,
)
from mpi4py import MPI

from fem_dnn.curvature_metric import FEW_CONTROLS
from fem_dnn.errors import BadInput
from fem_dnn.problem import LearningProblem
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers import Tolerances, approach, solve_newton
from fem_dnn.solvers.descent import NEAR
from fem_dnn.solvers.history import Waypoint

pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF


def valley(comm=WORLD, **options):
    """A problem with enough controls, where Newton's method alone takes many steps."""
    chosen = {
        "scheme": "resnet",
        "cells": 8,
        "points": uniform(2.0, 8),
        "loss": "logistic",
        "samples": 9,
        "regularization": (1e-2, 1e-2, 1e-2),
        **options,
    }
    problem = random_problem(comm, **chosen)
    assert problem.controls.n_global >= FEW_CONTROLS
    return problem, random_control(problem, scale=2.0)


def stretches(solution) -> list:
    """The iterates before Newton's first step, the start not among them."""
    return [line for line in solution.history[1:] if line.hessian_solves == 0]


def test_newton_has_the_last_word() -> None:
    """Stretches come first and go down; Newton's steps end within the tolerance."""
    solution = solve_newton(*valley(), Tolerances(rtol=1e-10))
    assert solution.converged, solution.reason
    first = stretches(solution)
    assert first and solution.history[-1].hessian_solves > 0
    assert [line.iteration for line in first] == list(range(1, len(first) + 1))
    objectives = [line.objective for line in (solution.history[0], *first)]
    assert all(after < before for before, after in pairwise(objectives))
    assert first[-1].gradient_norm <= NEAR * 1e-10 * solution.initial_gradient_norm
    assert solution.gradient_norm <= 1e-10 * solution.initial_gradient_norm


def test_takes_less_work_than_newton_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, start = valley(points=uniform(2.0, 16))
    both = solve_newton(problem, start, Tolerances(rtol=1e-9))
    monkeypatch.setattr(approach, "STRETCHES", 0)
    alone = solve_newton(problem, start, Tolerances(rtol=1e-9))
    assert both.converged and alone.converged and not stretches(alone)
    assert both.history[-1].sweeps < 0.7 * alone.history[-1].sweeps
    assert abs(both.objective - alone.objective) < 0.05 * alone.objective


def test_is_the_same_on_any_number_of_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """To single precision, as long as round-off has not grown with the steps."""
    monkeypatch.setattr(approach, "STEPS", 3)
    ends = []
    for comm in (WORLD, SELF):
        problem, start = valley(comm)
        solution = solve_newton(problem, start, Tolerances(max_iterations=1))
        assert len(stretches(solution)) == 1
        ends.append(everywhere(problem, solution.control))
        assert np.linalg.norm(ends[-1] - everywhere(problem, start)) > 0.1
    assert np.linalg.norm(ends[0] - ends[1]) < 1e-5 * np.linalg.norm(ends[1])


def test_quasi_newton_steps_come_again_behind_a_saddle() -> None:
    """Exact case 5 on more nodes: Newton's method ends at the straight path's saddle first."""
    network = make_network(width_space(WORLD, 8), "resnet", "linear", points=uniform(1.0, 8))
    f = np.full(8, 1.7)
    problem = l2_problem(network, f, -f, kernel=0.1, bias=0.1, weight=2.0)
    assert problem.controls.n_global >= FEW_CONTROLS
    kept: list[Waypoint] = []
    zero = problem.controls.constant()
    solution = solve_newton(
        problem, zero, Tolerances(rtol=1e-9), keep=lambda waypoint: kept.append(waypoint())
    )
    saddle = solve_newton(problem, zero, Tolerances(rtol=1e-9), escape=False)
    # Turned in the width it is as good: the minimiser is degenerate.
    assert solution.converged and solution.objective < saddle.objective - 1e-3
    escapes = [waypoint.escapes for waypoint in kept]
    left = escapes.index(1)
    counts = [line.linear_iterations for line in solution.history]
    assert counts[left] > 0 and counts[left + 1] == counts[left] < counts[-1]
    for waypoint in kept[left:]:
        resumed = solve_newton(
            problem, zero, Tolerances(rtol=1e-9), resume=waypoint, keep=lambda _: None
        )
        assert len(resumed.history) == len(solution.history)
        assert relative(resumed.objective, solution.objective) < 1e-10


def test_a_waypoint_is_enough_to_go_on_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """From stretches, from where they hand over, and from Newton's own steps."""
    problem, start = valley()
    kept: list[Waypoint] = []
    monkeypatch.setattr(approach, "STEPS", 12)
    whole = solve_newton(problem, start, keep=lambda waypoint: kept.append(waypoint()))
    assert 2 < len(stretches(whole)) < len(whole.history) - 1
    for waypoint in kept:
        resumed = solve_newton(problem, start, resume=waypoint, keep=lambda _: None)
        assert len(resumed.history) == len(whole.history)
        assert relative(resumed.objective, whole.objective) < 1e-10


def test_options_of_petsc_keep_their_meaning() -> None:
    """Those that only watch change nothing; others speak of Newton's steps, and are read first."""
    problem, start = valley()
    assert stretches(solve_newton(problem, start, options={"eps_max_it": 500}))
    short = solve_newton(problem, start, options={"snes_max_it": 2})
    assert not stretches(short) and short.iterations == 2
    lines: list = []
    with pytest.raises(BadInput):
        solve_newton(problem, start, options={"snes_nonsense": 1}, report=lines.append)
    assert len(lines) == 1
    # Those of the eigensolver that looks at the curvature in the end.
    with pytest.raises(BadInput, match="PETSc refuses"):
        solve_newton(problem, start, options={"eps_gd_minv": 0})


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_start_whose_state_overflows() -> None:
    problem, start = valley(activation="relu")
    solution = solve_newton(problem, 1e200 * start)
    assert not solution.converged
    assert "not finite" in solution.reason


def test_critical_points_of_any_kind_are_left_to_newton() -> None:
    solution = solve_newton(*valley(), Tolerances(max_iterations=3), escape=False)
    assert not stretches(solution)


def test_few_controls_are_left_to_newton() -> None:
    problem = random_problem(WORLD, scheme="resnet", regularization=(0.1, 0.1, 0.1))
    assert problem.controls.n_global < FEW_CONTROLS
    assert not stretches(solve_newton(problem, random_control(problem)))


def test_steps_that_have_no_state_are_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, start = valley()
    refused = []

    def state(self, weights):
        """None for every other trial."""
        refused.append(len(refused) % 2 == 1)
        if refused[-1]:
            raise SlabFailure(0.0, 1.0, 1.0, 80)
        return solve(self, weights)

    solve = LearningProblem.state
    monkeypatch.setattr(LearningProblem, "state", state)
    solution = solve_newton(problem, start, Tolerances(max_iterations=1), escape=True)
    assert len(stretches(solution)) == 1 and any(refused)
    assert solution.objective < solution.history[0].objective
