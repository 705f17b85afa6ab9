"""What the methods share: kinks, gradients that are not finite, the history, PETSc options."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
import pytest
from helpers import random_problem
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.problem import Linearisation
from fem_dnn.solvers import METHODS, Tolerances, solve_newton

pytestmark = pytest.mark.mpi


@pytest.mark.parametrize("escape", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_the_kink_of_relu_is_no_solution(method: str, escape: bool) -> None:
    """At zero controls the gradient vanishes by convention, whatever the loss."""
    problem = random_problem(MPI.COMM_WORLD, activation="relu", scheme="resnet")
    solution = METHODS[method](problem, problem.controls.constant(), escape=escape)
    assert solution.gradient_norm == 0 and not solution.converged
    assert "kink" in solution.reason and "constant" in solution.reason


@pytest.mark.parametrize("method", METHODS)
def test_options_are_read_where_nothing_is_left_to_do(method: str) -> None:
    problem = random_problem(MPI.COMM_WORLD, scheme="resnet", cells=2)
    solve, start = METHODS[method], problem.controls.constant()
    found = solve(problem, start, Tolerances(rtol=1e-6))
    # The eigensolver that examines the curvature is PETSc's with every method.
    name = {"newton": "ksp_max_it", "lbfgs": "tao_max_it"}.get(method, "eps_max_it")
    again = solve(problem, found.control, Tolerances(atol=1e-3), options={name: 50})
    assert again.converged and again.iterations == 0


def test_ksp_rtol_is_the_users() -> None:
    problem = random_problem(MPI.COMM_WORLD, scheme="resnet", cells=2)
    start = problem.controls.constant()
    ours = solve_newton(problem, start, Tolerances(rtol=1e-6))
    exact = solve_newton(problem, start, Tolerances(rtol=1e-6), options={"ksp_rtol": 1e-13})
    assert exact.linear_iterations > 1.2 * ours.linear_iterations


def test_snes_rtol_is_named() -> None:
    problem = random_problem(MPI.COMM_WORLD, scheme="resnet", cells=2)
    solution = solve_newton(problem, problem.controls.constant(), options={"snes_rtol": 0.5})
    assert not solution.converged and "-snes_rtol" in solution.reason


BOUNDS = {"kernel": (-0.3, 0.3)}


@pytest.mark.parametrize(
    ("method", "name", "bounds"),
    [
        ("newton", "snes", None),
        ("newton", "tao", BOUNDS),
        ("lbfgs", "tao", None),
        ("all-at-once", "snes", None),
    ],
)
def test_the_history_is_not_for_petsc_to_cancel(
    method: str, name: str, bounds: Mapping[str, tuple[float, float]] | None
) -> None:
    """It is written by a monitor, which sets the accuracy of linear solves as well."""
    problem = random_problem(MPI.COMM_WORLD, scheme="resnet", cells=2, bounds=bounds)
    start, tolerances = problem.controls.constant(), Tolerances(rtol=1e-6)
    expected = METHODS[method](problem, start, tolerances)
    found = METHODS[method](problem, start, tolerances, options={f"{name}_monitor_cancel": None})
    assert found.iterations == expected.iterations > 1
    untimed = [replace(line, seconds=0.0) for line in expected.history]
    assert [replace(line, seconds=0.0) for line in found.history] == untimed


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("size", [1e38, 1e200])
@pytest.mark.parametrize("method", METHODS)
def test_a_start_without_a_finite_gradient(method: str, size: float) -> None:
    """It is infinite or no number, and so would be a tolerance relative to it."""
    problem = random_problem(MPI.COMM_WORLD, activation="relu", scheme="resnet", points=range(9))
    start = problem.controls.random(5, size)
    assert not np.isfinite(problem.linearise(start).gradient_norm)
    solution = METHODS[method](problem, start, Tolerances(rtol=1e-6))
    assert not solution.converged and solution.iterations == 0
    assert "the gradient is not finite; use more layers" in solution.reason


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("bounds", [None, BOUNDS])
@pytest.mark.parametrize("method", METHODS)
def test_a_gradient_that_is_not_finite_on_the_way(
    method: str,
    bounds: Mapping[str, tuple[float, float]] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the objective is: no method goes on from there, nor calls it a solution."""
    if method == "all-at-once" and bounds is not None:
        pytest.skip("it knows no bounds")
    computed, met = Linearisation.__dict__["gradient"].func, []

    def gradient(at: Linearisation) -> NDArray[np.float64]:
        met.append(at)
        found = computed(at)
        return found if len(met) <= 4 else np.full_like(found, np.nan)

    lost = cached_property(gradient)
    lost.__set_name__(Linearisation, "gradient")
    problem = random_problem(MPI.COMM_WORLD, scheme="resnet", bounds=bounds)
    start = problem.controls.constant()
    monkeypatch.setattr(Linearisation, "gradient", lost)
    solution = METHODS[method](problem, start)
    assert not solution.converged and solution.iterations <= 4
    # A line search of TAO's takes such a point for too long a step.
    no_step = method == "lbfgs" and "the line search found no decrease" in solution.reason
    assert no_step or "the gradient is not finite" in solution.reason
