"""State, adjoint and controls as one system: against Newton's method, on any mesh, and failures."""

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
from systems import krylov_solver, random_unknowns

from fem_dnn.errors import BadInput
from fem_dnn.problem import LearningProblem
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers import Tolerances, solve_all_at_once, solve_newton
from fem_dnn.solvers.composite_step import CompositeStep
from fem_dnn.solvers.schur import SchurSystem
from fem_dnn.verification import fitted_order

pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF
STRONG = (0.1, 0.1, 0.1)

PROBLEMS = {
    "resnet": {},
    "dg1": {"scheme": "dg1", "loss": "logistic", "cells": 3},
    "dg2, tracking": {"scheme": "dg2", "tracking": True, "activation": "softplus", "cells": 2,
                      "samples": 2},
    "mask, learned outputs": {"loss": "mse", "learn_outputs": True, "mask": True},
    "given kernel": {"kernel": False, "given": True, "loss": "softmax", "outputs": 3},
    "kernel alone": {"bias": False, "tracking": True},
    "outputs alone": {"kernel": False, "bias": False, "given": True, "learn_outputs": True,
                      "loss": "mse"},
}  # fmt: skip


def problem_and_start(comm=WORLD, **options):
    problem = random_problem(comm, **{"scheme": "resnet", "regularization": STRONG, **options})
    return problem, random_control(problem, scale=0.1)


@pytest.mark.parametrize("name", PROBLEMS)
def test_same_solution_as_newton(name: str) -> None:
    """Gradients of 1e-10 over eigenvalues of 0.05: controls, states and objectives agree."""
    tight, options = Tolerances(rtol=1e-11), PROBLEMS[name]
    a, b = (
        solve(*problem_and_start(**options), tight) for solve in (solve_all_at_once, solve_newton)
    )
    assert a.converged and b.converged, (a.reason, b.reason)
    assert a.initial_gradient_norm == b.initial_gradient_norm
    assert a.gradient_norm <= 1e-11 * a.initial_gradient_norm
    assert "local minimiser" in a.reason and a.lowest_eigenvalue > 0
    assert abs(a.objective - b.objective) < 1e-12 * b.objective
    assert relative(everywhere(a.problem, a.control), everywhere(b.problem, b.control)) < 1e-8
    assert relative(a.at.state.ends, b.at.state.ends) < 1e-8
    if "mask" in options:
        start = a.problem.controls.values(problem_and_start(**options)[1]).kernel
        assert np.all(a.problem.controls.values(a.control).kernel[start == 0] == 0)


@pytest.mark.parametrize("options", [{}, {"loss": "mse", "learn_outputs": True}])
def test_same_solution_as_newton_where_controls_are_smoothed(options: dict) -> None:
    def solved(solve):
        problem, start = problem_and_start(**options)
        smooth = dict.fromkeys(("kernel_depth", "bias_depth", "kernel_width", "bias_width"), 0.02)
        smoothed = replace(problem, regularization=replace(problem.regularization, **smooth))
        return solve(smoothed, start, Tolerances(rtol=1e-11))

    a, b = solved(solve_all_at_once), solved(solve_newton)
    assert a.converged and b.converged, (a.reason, b.reason)
    assert abs(a.objective - b.objective) < 1e-12 * b.objective
    assert relative(everywhere(a.problem, a.control), everywhere(b.problem, b.control)) < 1e-8


@pytest.mark.parametrize("scheme", ["resnet", "dg1"])
@pytest.mark.one_rank
def test_converges_quadratically(scheme: str) -> None:
    """One step with exact linear solves from points at all distances, infeasible ones too."""
    problem, start = problem_and_start(scheme=scheme, cells=2, samples=2)
    found = solve_newton(problem, start, Tolerances(rtol=1e-13, atol=1e-13))
    system = SchurSystem(problem)
    space = system.space
    x = space.coordinates(space.solved(found.at).unknowns)
    d = space.coordinates(random_unknowns(problem, 5))
    d /= space.norm(d)
    sizes = 2.0 ** -np.arange(5.0, 10.0)
    errors = []
    with krylov_solver(system) as ksp:
        steps = CompositeStep(system, ksp, problem.linearise(start))
        for size in sizes:
            following = steps.take(space.point(x + size * d), 1e-12)
            assert following is not None
            errors.append(space.norm(space.coordinates(following.unknowns) - x))
        steps.destroy()
    system.destroy()
    assert abs(fitted_order(sizes, np.array(errors)) - 2) < 0.1


def smooth_problem(cells: int, layers: int, scheme: str, smooth: bool) -> LearningProblem:
    network = make_network(width_space(WORLD, cells), scheme, points=uniform(1.0, layers))
    x = network.space.nodes[:, 0]
    inputs, targets = np.stack([np.sin(np.pi * x), x * x]), np.stack([0.5 + 0 * x, 1 - x])
    problem = l2_problem(network, inputs, targets, kernel=0.1, bias=0.1)
    if not smooth:
        return problem
    weights = {"kernel_depth": 3e-3, "bias_depth": 3e-3, "kernel_width": 1e-3, "bias_width": 1e-3}
    return replace(problem, regularization=replace(problem.regularization, **weights))


@pytest.mark.parametrize(
    ("scheme", "smooth"), [("resnet", False), ("resnet", True), ("dg0", False)]
)
@pytest.mark.one_rank
def test_iterations_do_not_feel_the_mesh(scheme: str, smooth: bool) -> None:
    """Newton and Krylov counts, from 8 to 32 nodes and from 3 to 12 layers."""
    counts = []
    for cells, layers in ((8, 3), (32, 3), (8, 12), (32, 12)):
        problem = smooth_problem(cells, layers, scheme, smooth)
        solution = solve_all_at_once(problem, problem.controls.constant(), escape=False)
        assert solution.converged, solution.reason
        counts.append((solution.iterations, solution.linear_iterations))
    lowest, highest = np.min(counts, axis=0), np.max(counts, axis=0)
    assert np.all(highest <= 1.25 * lowest), counts


@pytest.mark.several_ranks
def test_same_iterates_on_any_number_of_ranks() -> None:
    """Iterate by iterate, with all kinds of controls."""
    options = {"loss": "mse", "learn_outputs": True, "mask": True}
    shared, alone = (
        solve_all_at_once(*problem_and_start(comm, **options), Tolerances(max_iterations=6))
        for comm in (WORLD, SELF)
    )
    for a, b in zip(shared.history, alone.history, strict=True):
        assert abs(a.objective - b.objective) < 1e-10 * b.objective
        assert abs(a.gradient_norm - b.gradient_norm) < 1e-8 * b.gradient_norm
        assert (a.linear_iterations, a.hessian_solves) == (b.linear_iterations, b.hessian_solves)
    x, y = (everywhere(s.problem, s.control) for s in (shared, alone))
    assert relative(x, y) < 1e-9


@pytest.mark.parametrize("loss", ["l2", "softmax"])
@pytest.mark.parametrize("rtol", [1e-6, 1e-12])
def test_tolerances_are_met_by_the_reduced_gradient(rtol: float, loss: str) -> None:
    """What is returned has its state and adjoint solved, and is what the control says."""
    problem, start = problem_and_start(loss=loss, tracking=True, regularization=(0.02, 0.02, 0.02))
    solution = solve_all_at_once(problem, start, Tolerances(rtol=rtol), escape=False)
    assert solution.converged, solution.reason
    again = problem.linearise(solution.control.copy())
    assert again.gradient_norm <= rtol * solution.initial_gradient_norm * (1 + 1e-3)
    assert abs(again.objective - solution.objective) < 1e-14 * again.objective


def test_history_and_counts() -> None:
    problem, start = problem_and_start()
    told = []
    solution = solve_all_at_once(problem, start, report=told.append, accuracy=lambda at: 0.25)
    assert solution.converged
    assert told == solution.history
    assert [line.iteration for line in told] == list(range(solution.iterations + 1))
    assert all(line.accuracy == 0.25 for line in told)
    assert told[0].gradient_norm == solution.initial_gradient_norm
    assert (told[-1].objective, told[-1].gradient_norm) == (
        solution.objective, solution.gradient_norm,
    )  # fmt: skip
    assert solution.linear_iterations == told[-1].linear_iterations > 0
    # a product and a preconditioner for each Krylov iteration, two products for each step
    products = 2 * solution.linear_iterations + 2 * solution.iterations
    assert solution.hessian_solves == problem.work.hessians >= products
    assert solution.state_solves == problem.work.states > 2 * solution.iterations
    assert solution.adjoint_solves == problem.work.adjoints > 2 * solution.iterations
    assert np.array_equal(start, random_control(problem, scale=0.1))  # the guess is left alone
    again = solve_all_at_once(problem, start)
    assert (again.state_solves, again.hessian_solves) == (
        solution.state_solves, solution.hessian_solves,
    )  # fmt: skip


def test_iterates_are_infeasible_on_the_way() -> None:
    """No state equation is solved between start and end: two solves in all."""
    problem, start = problem_and_start(scheme="dg1", loss="softmax")
    solved = []
    state = LearningProblem.state

    def counting(self, weights):
        solved.append(self)
        return state(self, weights)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LearningProblem, "state", counting)
        solution = solve_all_at_once(problem, start, escape=False)
    assert solution.converged and solution.iterations > 3
    assert len(solved) == 2


@pytest.mark.parametrize("limit", [0, 2])
def test_limit_of_iterations(limit: int) -> None:
    solution = solve_all_at_once(*problem_and_start(), Tolerances(max_iterations=limit))
    assert not solution.converged and solution.iterations == limit
    assert f"limit of {limit} iterations" in solution.reason
    assert solution.history[-1].objective == solution.objective
    if limit:
        assert solution.objective < solution.history[0].objective


def test_a_critical_point_is_returned_at_once() -> None:
    problem, start = problem_and_start(kernel=False)
    found = solve_newton(problem, start, Tolerances(rtol=1e-10))
    again = solve_all_at_once(problem, found.control, Tolerances(atol=1e-6))
    assert again.converged and again.iterations == 0
    assert np.array_equal(again.control, found.control)


def test_more_than_round_off_allows() -> None:
    problem, start = problem_and_start(kernel=False)
    solution = solve_all_at_once(problem, start, Tolerances(rtol=0, atol=0, max_iterations=60))
    assert not solution.converged
    assert "solver.rtol" in solution.reason or "limit of 60" in solution.reason
    assert solution.gradient_norm < 1e-12


@pytest.mark.one_rank
def test_leaves_saddles() -> None:
    """Exact case 5: the symmetric branch is a saddle, where the method stays without escape."""
    network = make_network(width_space(WORLD, 2), "dg1", "linear", points=uniform(1.0, 2))
    f = np.full(2, 1.7)
    problem = l2_problem(network, f, -f, kernel=0.1, bias=0.1, weight=2.0)
    start, tight = problem.controls.constant(), Tolerances(rtol=1e-9)
    saddle = solve_all_at_once(problem, start, tight, escape=False)
    assert saddle.converged and "curvature was not examined" in saddle.reason
    minimum = solve_all_at_once(problem, start, tight)
    assert minimum.converged, minimum.reason
    assert minimum.objective < saddle.objective - 1e-3
    assert minimum.lowest_eigenvalue > 0
    stays = solve_all_at_once(problem, saddle.control, Tolerances(atol=1e-7))
    assert stays.converged and stays.objective < saddle.objective - 1e-3


def test_kink_of_relu_is_no_minimum() -> None:
    problem, _ = problem_and_start(activation="relu")
    solution = solve_all_at_once(problem, problem.controls.constant())
    assert not solution.converged and "kink" in solution.reason


def test_petsc_options() -> None:
    problem, start = problem_and_start()
    short = solve_all_at_once(problem, start, options={"snes_max_it": 3})
    assert not short.converged and short.iterations == 3
    early = solve_all_at_once(problem, start, options={"snes_atol": 1e-2}, escape=False)
    assert not early.converged and "-snes_atol stopped it" in early.reason
    rough = solve_all_at_once(problem, start, Tolerances(rtol=1e-4), options={"ksp_max_it": 2})
    loose = solve_all_at_once(problem, start, Tolerances(rtol=1e-4), options={"ksp_rtol": 0.3})
    full = solve_all_at_once(problem, start, Tolerances(rtol=1e-4))
    assert rough.converged and rough.iterations > full.iterations
    assert loose.converged and loose.history != full.history
    with pytest.raises(BadInput, match=r"-snes_nonsense.*nothing in this solve reads it"):
        solve_all_at_once(problem, start, options={"snes_nonsense": 1})
    with pytest.raises(BadInput, match=r"-snes_type.*brings its own"):
        solve_all_at_once(problem, start, options={"snes_type": "newtonls"})
    assert not PETSc.Options("fem_dnn_").getAll()


def test_interruption_comes_out_as_itself() -> None:
    def interrupt(line):
        if line.iteration == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve_all_at_once(*problem_and_start(), report=interrupt)
    assert not PETSc.Options("fem_dnn_").getAll()


def failing(calls: range, counter: list):
    """A state equation that fails at some of its solves, counted from 1."""
    state = LearningProblem.state

    def fails(self, weights):
        counter.append(self)
        if len(counter) in calls:
            raise SlabFailure(0.0, 1.0, 1.0, 80)
        return state(self, weights)

    return fails


def test_goes_back_from_where_there_is_no_state(monkeypatch) -> None:
    """The second solve is that of the end: it goes on from the start with shorter steps."""
    problem, start = problem_and_start()
    expected = solve_newton(problem, start, Tolerances(rtol=1e-9))
    monkeypatch.setattr(LearningProblem, "state", failing(range(2, 3), []))
    solution = solve_all_at_once(problem, start, Tolerances(rtol=1e-8))
    assert solution.converged, solution.reason
    assert abs(solution.objective - expected.objective) < 1e-12 * expected.objective
    objectives = [line.objective for line in solution.history]
    assert objectives.count(objectives[0]) == 2


def test_what_was_reached_is_returned_where_there_is_no_state(monkeypatch) -> None:
    problem, start = problem_and_start()
    monkeypatch.setattr(LearningProblem, "state", failing(range(2, 100), []))
    solution = solve_all_at_once(problem, start, Tolerances(max_iterations=20))
    assert not solution.converged
    assert np.array_equal(solution.control, start)
    assert solution.history[-1].objective == solution.objective == solution.history[0].objective


def test_linear_solves_that_fail(monkeypatch) -> None:
    """At the start itself, where the method can go back nowhere."""

    def fails(self, right, control=None):
        raise SlabFailure(0.0, 1.0, 1.0, 80)

    path = "fem_dnn.solvers.optimality_system.OptimalityPoint.solve_linearised_state"
    monkeypatch.setattr(path, fails)
    problem, start = problem_and_start()
    solution = solve_all_at_once(problem, start)
    assert not solution.converged and "use more layers" in solution.reason
    assert solution.iterations == 0 and np.array_equal(solution.control, start)


def test_multipliers_that_overflow_end_it(monkeypatch) -> None:
    """PETSc would take them for a mistake in the program."""

    def overflow(self, at, trial, right):
        return trial.with_multipliers(np.full_like(at.multipliers, np.nan))

    monkeypatch.setattr(CompositeStep, "_with_new_multipliers", overflow)
    solution = solve_all_at_once(*problem_and_start())
    assert not solution.converged and "the gradient is not finite" in solution.reason
    assert solution.iterations == 1 and solution.objective < solution.history[0].objective


def test_state_that_cannot_be_solved_at_the_start() -> None:
    problem, _ = problem_and_start(scheme="dg1", activation="softplus")
    with pytest.raises(SlabFailure, match="use more layers"):
        solve_all_at_once(problem, random_control(problem, scale=1e4))
