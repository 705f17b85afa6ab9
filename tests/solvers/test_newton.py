"""Newton's method: convergence, saddles, options, and what it says when it fails."""

from dataclasses import replace
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
from petsc4py import PETSc

from fem_dnn.errors import BadInput
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers import Tolerances, solve_lbfgs, solve_newton
from fem_dnn.solvers.curvature import lowest_eigenpair
from fem_dnn.solvers.petsc import PetscProblem

pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF
STRONG = (0.1, 0.1, 0.1)
"""Regularisation that keeps random problems well away from degenerate Hessians."""


def problem_and_start(comm=WORLD, **options):
    problem = random_problem(comm, **{"scheme": "resnet", "regularization": STRONG, **options})
    return problem, random_control(problem, scale=0.1)


@pytest.mark.parametrize(
    "options",
    [{"loss": "softmax", "outputs": 3}, {"kernel": False}, {"scheme": "dg1", "loss": "logistic"}],
)
@pytest.mark.one_rank
def test_converges_quadratically_at_the_end(options: dict) -> None:
    """Order fitted to |g_{k+1}| against |g_k|, from where Newton's model is good to round-off."""
    solution = solve_newton(*problem_and_start(**options), Tolerances(rtol=1e-12))
    assert solution.converged, solution.reason
    norms = np.array([line.gradient_norm for line in solution.history])
    g = norms / norms[0]
    late = (g[:-1] < 3e-2) & (g[:-1] > 5e-8)
    assert late.sum() >= 3
    before, after = np.log(g[:-1][late]), np.log(g[1:][late])
    assert abs(np.polyfit(before, after, 1)[0] - 2) < 0.2


@pytest.mark.parametrize(
    ("scheme", "loss"),
    [
        ("resnet", "l2"),
        ("resnet", "mse"),
        ("resnet", "logistic"),
        ("resnet", "softmax"),
        ("dg1", "logistic"),
    ],
)
@pytest.mark.parametrize("rtol", [pytest.param(1e-9, marks=pytest.mark.one_rank), 1e-12])
def test_tight_tolerances_are_met(rtol: float, scheme: str, loss: str) -> None:
    """The last steps change J by less than its round-off, and must be taken all the same."""
    for tracking in (False, True):
        problem, start = problem_and_start(
            scheme=scheme, loss=loss, tracking=tracking, regularization=(0.02, 0.02, 0.02)
        )
        solution = solve_newton(problem, start, Tolerances(rtol=rtol), escape=False)
        assert solution.converged, solution.reason
        assert solution.gradient_norm <= rtol * solution.initial_gradient_norm


@pytest.mark.parametrize("scheme", ["resnet", "dg1"])
@pytest.mark.several_ranks
def test_same_solution_on_any_number_of_ranks(scheme: str) -> None:
    shared, alone = (
        solve_newton(
            *problem_and_start(comm, scheme=scheme, loss="softmax"), Tolerances(rtol=1e-12)
        )
        for comm in (WORLD, SELF)
    )
    assert shared.converged and alone.converged
    assert abs(shared.objective - alone.objective) < 1e-10 * alone.objective
    a, b = (everywhere(s.problem, s.control) for s in (shared, alone))
    assert relative(a, b) < 1e-9


def test_rtol_refers_to_the_initial_guess() -> None:
    problem, start = problem_and_start()
    initial = problem.linearise(start).gradient_norm
    solution = solve_newton(problem, start, Tolerances(rtol=1e-3), escape=False)
    norms = [line.gradient_norm for line in solution.history]
    assert solution.initial_gradient_norm == norms[0] == initial
    assert norms[-1] <= 1e-3 * initial < min(norms[:-1])
    assert solution.gradient_norm == norms[-1]
    assert np.array_equal(start, random_control(problem, scale=0.1))  # the guess is left alone


def test_history_and_counts() -> None:
    problem, start = problem_and_start()
    told = []
    solution = solve_newton(problem, start, report=told.append, accuracy=lambda at: 0.25)
    assert solution.converged
    assert told == solution.history
    assert [line.iteration for line in told] == list(range(solution.iterations + 1))
    assert all(line.accuracy == 0.25 and line.as_dict()["accuracy"] == 0.25 for line in told)
    objectives = [line.objective for line in told]
    assert all(b <= a * (1 + 1e-12) for a, b in pairwise(objectives))
    assert objectives[-1] == solution.objective
    assert solution.linear_iterations == told[-1].linear_iterations > 0
    assert solution.state_solves == problem.work.states
    assert solution.hessian_solves == problem.work.hessians >= solution.linear_iterations
    assert 0 < told[-1].seconds <= solution.seconds
    # A second solve counts its own work only.
    again = solve_newton(problem, start)
    assert again.state_solves == solution.state_solves


@pytest.mark.parametrize("parts", [{"kernel": False}, {"bias": False}, {"mask": True}])
def test_parts_that_are_no_controls_stay_as_they_are(parts: dict) -> None:
    problem, start = problem_and_start(**parts)
    solution = solve_newton(problem, start)
    assert solution.converged, solution.reason
    before, after = (problem.controls.values(c) for c in (start, solution.control))
    if "mask" in parts:
        assert np.all((before.kernel == 0) <= (after.kernel == 0))
        assert np.any(after.kernel != before.kernel)
    else:
        assert (after.kernel is None) == ("kernel" in parts)
        assert (after.bias is None) == ("bias" in parts)


def reflection(size: float, comm=WORLD, layers: int = 4):
    """Exact case 5: carry f to -f, |f| = size, sigma linear, omega T/lambda_b = 20."""
    space = width_space(comm, 2, 0)
    network = make_network(space, "dg1", "linear", points=uniform(1.0, layers))
    f = np.full(2, size)
    return l2_problem(network, f, -f, kernel=0.1, bias=0.1, weight=2.0)


def symmetric_branch(problem):
    """Zero controls are symmetric, and Newton's method without escape stays so."""
    return solve_newton(problem, problem.controls.constant(), Tolerances(rtol=1e-9), escape=False)


def lowest_eigenvalue(at) -> float:
    petsc = PetscProblem(at.problem)
    pair = lowest_eigenpair(petsc, at, tolerance=1e-10)
    petsc.destroy()
    assert pair is not None and pair.residual < 1e-9
    return pair.value


@pytest.mark.one_rank
def test_bifurcation_threshold() -> None:
    """The straight path loses stability at |f| = 1.5094118 (theory.md section 9, case 5)."""
    sizes = np.array([1.50, 1.52])
    lowest = [lowest_eigenvalue(symmetric_branch(reflection(size, layers=8)).at) for size in sizes]
    assert lowest[0] > 0 > lowest[1]
    crossing = np.interp(0.0, lowest[::-1], sizes[::-1])
    assert abs(crossing - 1.5094118) < 2e-4


@pytest.mark.parametrize("size", [1.7, pytest.param(2.5, marks=pytest.mark.one_rank)])
def test_escapes_from_a_saddle(size: float) -> None:
    problem = reflection(size)
    saddle = symmetric_branch(problem)
    assert saddle.converged
    assert "curvature was not examined" in saddle.reason
    assert saddle.lowest_eigenvalue is None
    assert lowest_eigenvalue(saddle.at) < -1e-2

    minimum = solve_newton(problem, problem.controls.constant(), Tolerances(rtol=1e-9))
    assert minimum.converged
    assert minimum.objective < saddle.objective - 1e-3
    assert "a local minimiser" in minimum.reason
    assert minimum.lowest_eigenvalue > 0
    assert abs(minimum.lowest_eigenvalue - lowest_eigenvalue(minimum.at)) < 1e-2


@pytest.mark.one_rank
def test_examines_curvature_before_calling_the_guess_a_solution() -> None:
    """Started at the saddle itself, where the gradient is below atol."""
    problem = reflection(1.7)
    saddle = symmetric_branch(problem)
    loose = Tolerances(rtol=1e-9, atol=1e-7)
    stays = solve_newton(problem, saddle.control, loose, escape=False)
    assert stays.converged and stays.iterations == 0
    leaves = solve_newton(problem, saddle.control, loose)
    assert leaves.converged and leaves.iterations > 0
    assert leaves.objective < saddle.objective - 1e-3


def test_a_minimiser_is_returned_at_once() -> None:
    problem, start = problem_and_start(kernel=False)
    found = solve_newton(problem, start, Tolerances(rtol=1e-10))
    again = solve_newton(problem, found.control, Tolerances(atol=1e-6))
    assert again.converged and again.iterations == 0
    assert np.array_equal(again.control, found.control)
    assert "a local minimiser" in again.reason


@pytest.mark.parametrize("limit", [0, 2])
def test_limit_of_iterations(limit: int) -> None:
    solution = solve_newton(*problem_and_start(), Tolerances(max_iterations=limit))
    assert not solution.converged
    assert solution.iterations == limit
    assert f"limit of {limit} iterations" in solution.reason
    assert "raise solver.max_iterations" in solution.reason
    if limit:  # what was reached is returned all the same
        assert solution.objective < solution.history[0].objective


def test_kink_of_relu_is_no_minimum() -> None:
    problem, _ = problem_and_start(activation="relu")
    solution = solve_newton(problem, problem.controls.constant())
    assert not solution.converged
    assert "kink" in solution.reason and "bias = 0.1" in solution.reason


def test_petsc_options_are_used_and_then_gone() -> None:
    problem, start = problem_and_start()
    solution = solve_newton(problem, start, options={"snes_max_it": 3})
    assert not solution.converged and solution.iterations == 3
    short = solve_newton(problem, start, Tolerances(rtol=1e-3), options={"ksp_max_it": 1})
    full = solve_newton(problem, start, Tolerances(rtol=1e-3))
    assert short.iterations > full.iterations
    assert not PETSc.Options("fem_dnn_").getAll()


def test_unknown_petsc_options_are_refused() -> None:
    with pytest.raises(BadInput, match=r"-snes_nonsense.*nothing in this solve reads it"):
        solve_newton(*problem_and_start(kernel=False), options={"snes_nonsense": 1})
    assert not PETSc.Options("fem_dnn_").getAll()


def test_state_that_cannot_be_solved_at_the_start() -> None:
    problem, _ = problem_and_start(scheme="dg1", activation="softplus")
    with pytest.raises(SlabFailure, match="use more layers"):
        solve_newton(problem, random_control(problem, scale=1e4))


def test_interruption_comes_out_as_itself() -> None:
    """Ctrl-C arrives inside a PETSc callback; nothing is left behind."""

    def interrupt(line):
        if line.iteration == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve_newton(*problem_and_start(), report=interrupt)
    assert not PETSc.Options("fem_dnn_").getAll()


SMOOTH = (0.1, 0.1, 0.1, 0.0, 0.05, 0.05, 0.01, 0.01)
"""Derivatives of the controls are penalised too."""


@pytest.mark.parametrize("options", [{}, {"mask": True}, {"loss": "mse", "learn_outputs": True}])
def test_smoothed_controls(options: dict) -> None:
    """The Riesz coordinates change the way, not the minimiser nor what counts as converged."""
    problem, start = problem_and_start(regularization=SMOOTH, **options)
    solution = solve_newton(problem, start, Tolerances(rtol=1e-10))
    assert solution.converged, solution.reason
    assert solution.gradient_norm <= 1e-10 * solution.initial_gradient_norm
    first_order = solve_lbfgs(problem, start, Tolerances(rtol=1e-7, max_iterations=3000))
    assert first_order.converged, first_order.reason
    assert solution.lowest_eigenvalue > 0
    # Half of this is what a gradient of that size leaves of a quadratic objective.
    left = first_order.gradient_norm**2 / solution.lowest_eigenvalue
    assert abs(first_order.objective - solution.objective) < left + 1e-14


@pytest.mark.one_rank
def test_iterations_do_not_feel_the_mesh_with_smoothed_controls() -> None:
    """Newton and CG counts on a smooth case, from 8 to 32 nodes and from 4 to 16 layers."""
    counts = []
    for cells, layers in ((8, 4), (32, 4), (8, 16), (32, 16)):
        network = make_network(width_space(WORLD, cells), "resnet", points=uniform(1.0, layers))
        x = network.space.nodes[:, 0]
        inputs, targets = np.stack([np.sin(np.pi * x), x * x]), np.stack([0.5 + 0 * x, 1 - x])
        problem = l2_problem(network, inputs, targets, kernel=1e-2, bias=1e-2)
        R = replace(
            problem.regularization,
            kernel_depth=3e-3, bias_depth=3e-3, kernel_width=1e-3, bias_width=1e-3,
        )  # fmt: skip
        problem = replace(problem, regularization=R)
        solution = solve_newton(problem, problem.controls.constant())
        assert solution.converged, solution.reason
        counts.append((solution.iterations, solution.linear_iterations))
    lowest, highest = np.min(counts, axis=0), np.max(counts, axis=0)
    assert np.all(highest <= 1.25 * lowest), counts
