"""What the methods without a PETSc solver have in common, against Newton's method."""

from dataclasses import replace

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
from petsc4py import PETSc

from fem_dnn.errors import BadInput
from fem_dnn.problem import LearningProblem
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers import ALL_METHODS, METHODS, Tolerances, solve_newton

pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF

OURS = ["gradient", "layerwise", "sweep"]

PROBLEMS = {
    "bias alone": {"kernel": False},
    "kernel alone, with tracking": {"bias": False, "tracking": True, "cells": 2,
                                    "regularization": (1.0, 1.0, 1.0)},
    "mask": {"scheme": "resnet", "loss": "softmax", "mask": True},
    "given bias": {"scheme": "resnet", "bias": False, "given": True},
    "learned outputs": {"scheme": "resnet", "loss": "logistic", "learn_outputs": True},
    "outputs alone": {"kernel": False, "bias": False, "given": True, "learn_outputs": True,
                      "loss": "mse", "scheme": "resnet"},
}  # fmt: skip


def problem_and_start(comm=WORLD, **options):
    strong = {"scheme": "dg1", "regularization": (0.2, 0.2, 0.2), "cells": 3, "samples": 2}
    problem = random_problem(comm, **{**strong, **options})
    return problem, random_control(problem, scale=0.1)


@pytest.mark.parametrize("method", OURS)
@pytest.mark.parametrize(
    "name",
    [
        # Slow, and its sums over ranks are those of "bias alone" and the rest.
        pytest.param(name, marks=pytest.mark.one_rank if "tracking" in name else ())
        for name in PROBLEMS
    ],
)
def test_agrees_with_newton(name: str, method: str) -> None:
    """The same minimiser: gradients of 1e-9 of the first, eigenvalues of about 0.1."""
    tolerances = Tolerances(rtol=1e-9, max_iterations=2000)
    options = PROBLEMS[name]
    a, b = (METHODS[m](*problem_and_start(**options), tolerances) for m in (method, "newton"))
    assert a.converged and b.converged, (a.reason, b.reason)
    assert a.initial_gradient_norm == b.initial_gradient_norm
    assert a.gradient_norm <= 1e-9 * a.initial_gradient_norm
    assert abs(a.objective - b.objective) < 1e-13 * max(b.objective, 1)
    assert relative(everywhere(a.problem, a.control), everywhere(b.problem, b.control)) < 1e-6
    assert "local minimiser" in a.reason
    if "mask" in options:
        start = a.problem.controls.values(problem_and_start(**options)[1]).kernel
        assert np.all(a.problem.controls.values(a.control).kernel[start == 0] == 0)


@pytest.mark.parametrize("method", [*OURS, "lbfgs", "bntr", "bnls"])
def test_agrees_with_newton_where_controls_are_smoothed(method: str) -> None:
    """Derivatives in R couple layers and nodes."""

    def solve(name):
        problem, start = problem_and_start(scheme="resnet")
        derivatives = dict.fromkeys(("kernel_depth", "bias_depth", "kernel_width"), 0.01)
        smoothed = replace(problem, regularization=replace(problem.regularization, **derivatives))
        return ALL_METHODS[name](smoothed, start, Tolerances(rtol=1e-8, max_iterations=3000))

    a, b = solve(method), solve("newton")
    assert a.converged and b.converged, (a.reason, b.reason)
    assert a.gradient_norm <= 1e-8 * a.initial_gradient_norm
    assert abs(a.objective - b.objective) < 1e-12 * b.objective
    assert relative(everywhere(a.problem, a.control), everywhere(b.problem, b.control)) < 1e-6


@pytest.mark.parametrize("method", OURS)
def test_the_returned_point_is_consistent(method: str) -> None:
    """What a method hands over from its own sweeps is what the control says."""
    problem, start = problem_and_start(loss="softmax", tracking=True)
    solution = METHODS[method](problem, start, Tolerances(max_iterations=3), escape=False)
    again = problem.linearise(solution.control.copy())
    assert abs(solution.objective - again.objective) < 1e-14 * abs(again.objective)
    assert problem.controls.norm(solution.at.gradient - again.gradient) < 1e-13


@pytest.mark.parametrize("method", OURS)
@pytest.mark.several_ranks
def test_same_iterates_on_any_number_of_ranks(method: str) -> None:
    """Iterate by iterate, with all kinds of controls."""
    options = {"scheme": "resnet", "loss": "mse", "learn_outputs": True, "mask": True}
    shared, alone = (
        METHODS[method](*problem_and_start(comm, **options), Tolerances(max_iterations=8))
        for comm in (WORLD, SELF)
    )
    for a, b in zip(shared.history, alone.history, strict=True):
        assert abs(a.objective - b.objective) < 1e-12 * b.objective
        assert (a.state_solves, a.adjoint_solves) == (b.state_solves, b.adjoint_solves)
    x, y = (everywhere(s.problem, s.control) for s in (shared, alone))
    assert relative(x, y) < 1e-11


@pytest.mark.parametrize("method", OURS)
def test_history_and_counts(method: str) -> None:
    problem, start = problem_and_start(kernel=False)
    told = []
    solution = METHODS[method](
        problem, start, Tolerances(rtol=1e-6), escape=False, report=told.append,
        accuracy=lambda at: 0.25,
    )  # fmt: skip
    assert solution.converged
    assert told == solution.history
    assert [line.iteration for line in told] == list(range(solution.iterations + 1))
    assert all(line.accuracy == 0.25 for line in told)
    assert told[0].gradient_norm == solution.initial_gradient_norm
    assert (told[0].state_solves, told[0].adjoint_solves, told[0].sweeps) == (1, 1, 2)
    assert told[-1].objective == solution.objective
    assert solution.gradient_norm <= 1e-6 * solution.initial_gradient_norm
    work = problem.work
    assert solution.state_solves - 1 < work.states <= solution.state_solves + 1e-9
    assert solution.adjoint_solves - 1 < work.adjoints <= solution.adjoint_solves + 1e-9
    assert solution.sweeps == work.sweeps
    assert solution.hessian_solves == 0
    assert np.array_equal(start, problem_and_start(kernel=False)[1])  # the guess is left alone


@pytest.mark.parametrize("method", OURS)
@pytest.mark.parametrize("limit", [0, 2])
def test_limit_of_iterations(method: str, limit: int) -> None:
    solution = METHODS[method](*problem_and_start(), Tolerances(max_iterations=limit))
    assert not solution.converged and solution.iterations == limit
    assert f"limit of {limit} iterations" in solution.reason
    assert 'solver.method = "newton"' in solution.reason
    if limit:
        assert solution.objective < solution.history[0].objective


@pytest.mark.parametrize("method", OURS)
def test_a_critical_point_is_returned_at_once(method: str) -> None:
    problem, start = problem_and_start(kernel=False)
    found = solve_newton(problem, start, Tolerances(rtol=1e-10))
    again = METHODS[method](problem, found.control, Tolerances(atol=1e-6))
    assert again.converged and again.iterations == 0
    assert np.array_equal(again.control, found.control)


@pytest.mark.parametrize("method", OURS)
def test_more_than_round_off_allows(method: str) -> None:
    """Ends by itself, says why, and has come as far as can be."""
    problem, start = problem_and_start(kernel=False, scheme="resnet")
    solution = METHODS[method](problem, start, Tolerances(rtol=0, atol=0, max_iterations=400))
    assert not solution.converged
    assert "solver.rtol" in solution.reason or "limit of 400" in solution.reason
    assert solution.gradient_norm < 1e-12


@pytest.mark.parametrize("method", OURS)
def test_petsc_options_have_no_reader(method: str) -> None:
    problem, start = problem_and_start(kernel=False)
    for name in ("tao_monitor", "snes_max_it", "ksp_view"):
        with pytest.raises(BadInput, match=f"-{name}.*nothing in this solve reads it"):
            METHODS[method](problem, start, options={name: None})
    assert not PETSc.Options("fem_dnn_").getAll()


@pytest.mark.parametrize("method", OURS)
def test_steps_to_where_there_is_no_state_are_taken_back(method: str, monkeypatch) -> None:
    """The state equation fails at the first trial points: shorter steps are tried."""
    problem, start = problem_and_start(scheme="resnet")
    expected = solve_newton(problem, start, Tolerances(rtol=1e-9))
    undisturbed = METHODS[method](problem, start, Tolerances(max_iterations=1))
    state, calls = LearningProblem.state, []

    def fails_at_first(self, weights):
        calls.append(self)
        if 2 <= len(calls) <= 4:
            raise SlabFailure(0.0, 1.0, 1.0, 80)
        return state(self, weights)

    monkeypatch.setattr(LearningProblem, "state", fails_at_first)
    solution = METHODS[method](problem, start, Tolerances(rtol=1e-7))
    assert solution.converged, solution.reason
    assert solution.history[1].objective != undisturbed.objective
    assert solution.history[1].objective < solution.history[0].objective
    assert abs(solution.objective - expected.objective) < 1e-9 * expected.objective


@pytest.mark.parametrize("method", OURS)
def test_what_was_reached_is_kept_where_no_step_has_a_state(method: str, monkeypatch) -> None:
    problem, start = problem_and_start(scheme="resnet")
    state, calls = LearningProblem.state, []

    def fails_soon(self, weights):
        calls.append(self)
        if len(calls) > 12:
            raise SlabFailure(0.0, 1.0, 1.0, 80)
        return state(self, weights)

    monkeypatch.setattr(LearningProblem, "state", fails_soon)
    solution = METHODS[method](problem, start)
    assert not solution.converged
    assert "use more layers" in solution.reason
    assert solution.objective < solution.history[0].objective


@pytest.mark.parametrize("method", OURS)
@pytest.mark.one_rank
def test_leaves_saddles(method: str) -> None:
    """Exact case 5: started at the saddle itself, where the gradient is below atol."""
    space = width_space(WORLD, 2, 0)
    network = make_network(space, "dg1", "linear", points=uniform(1.0, 2))
    f = np.full(2, 1.7)
    problem = l2_problem(network, f, -f, kernel=0.1, bias=0.1, weight=2.0)
    start, tight = problem.controls.constant(), Tolerances(rtol=1e-9)
    saddle = solve_newton(problem, start, tight, escape=False)
    loose = Tolerances(atol=5e-3)
    stays = METHODS[method](problem, saddle.control, loose, escape=False)
    assert stays.converged and stays.iterations == 0
    leaves = METHODS[method](problem, saddle.control, loose)
    assert leaves.converged and leaves.iterations > 0, leaves.reason
    assert leaves.objective < saddle.objective - 1e-3
