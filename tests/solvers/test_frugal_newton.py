"""Newton's method with few vectors: what it does where a step is no good."""

import math
from functools import cached_property

import numpy as np
import pytest
from helpers import random_problem
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.coordinates import Metric
from fem_dnn.errors import BadInput
from fem_dnn.gram import GramProblem
from fem_dnn.gram.linearisation import GramLinearisation
from fem_dnn.problem import Linearisation
from fem_dnn.solvers import Tolerances, frugal_newton, newton, solve_newton
from fem_dnn.solvers.frugal_newton import POOR

pytestmark = pytest.mark.mpi

Array = NDArray[np.float64]


def problem_and_start() -> tuple[GramProblem, Array]:
    problem = GramProblem.of(
        random_problem(MPI.COMM_WORLD, scheme="resnet", regularization=(0.1, 0.1, 0.1))
    )
    return problem, np.zeros(problem.controls.n_local)


def test_a_rejected_step_from_within_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The region shrinks to less than the step, or the same one would come again."""
    problem, start = problem_and_start()
    truncated_cg, ratio = frugal_newton._truncated_cg, frugal_newton._ratio
    tried: list[tuple[float, float, bool]] = []
    rejected: list[int] = []

    def noted(at: Linearisation, metric: Metric, rtol: float, radius: float) -> object:
        step = truncated_cg(at, metric, rtol, radius)
        tried.append((radius, problem.controls.norm(step.z), step.at_boundary))
        return step

    def refusing(at: Linearisation, trial: Linearisation, decrease: float) -> float:
        """The first step that ends far within the region, once."""
        radius, length, at_boundary = tried[-1]
        if not rejected and not at_boundary and length < POOR * radius:
            rejected.append(len(tried))
            return 0.0
        return ratio(at, trial, decrease)

    monkeypatch.setattr(frugal_newton, "_truncated_cg", noted)
    monkeypatch.setattr(frugal_newton, "_ratio", refusing)
    solution = solve_newton(problem, start, Tolerances(rtol=1e-9))
    assert solution.converged, solution.reason
    (number,) = rejected
    (_, refused, _), (radius, length, _) = tried[number - 1 : number + 1]
    assert radius == POOR * refused
    assert length == pytest.approx(radius, rel=1e-12)


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_ends_it(
    norm: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a point whose objective has been accepted."""
    problem, start = problem_and_start()
    computed, met = GramLinearisation.__dict__["gradient_norm"].func, []

    def gradient_norm(at: GramLinearisation) -> float:
        met.append(at)
        return float(computed(at)) if len(met) <= 2 else norm

    lost = cached_property(gradient_norm)
    lost.__set_name__(GramLinearisation, "gradient_norm")
    monkeypatch.setattr(GramLinearisation, "gradient_norm", lost)
    solution = solve_newton(problem, start, Tolerances(rtol=1e-9))
    assert not solution.converged and solution.iterations == 2
    assert "the gradient is not finite; use more layers" in solution.reason
    assert solution.hessian_solves == solution.history[-1].hessian_solves  # no step is looked for


@pytest.mark.parametrize("name", ["snes_monitor", "ksp_view", "eps_max_it"])
def test_options_that_only_watch_leave_the_way_as_it_is(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no SNES to be watched, which is said in the end."""
    problem, start = problem_and_start()
    expected = solve_newton(problem, start)
    monkeypatch.delattr(newton, "_by_snes")
    found = solve_newton(problem, start, options={name: 100})
    lines = [line.gradient_norm for line in found.history]
    assert lines == [line.gradient_norm for line in expected.history]
    assert (f"option -{name} was read by nothing" in found.reason) == (name != "eps_max_it")


def test_other_options_speak_of_petscs_newton() -> None:
    problem, start = problem_and_start()
    short = solve_newton(problem, start, options={"snes_max_it": 2})
    assert short.iterations == 2 and not short.converged
    for name in ("snes_nonsense", "nonsense_monitor"):
        with pytest.raises(BadInput, match="nothing in this solve reads it"):
            solve_newton(problem, start, options={name: 1})
