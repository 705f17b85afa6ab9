"""Limited-memory BFGS, the first-order baseline, against Newton's method."""

import numpy as np
import pytest
from helpers import everywhere, random_control, random_problem, relative
from mpi4py import MPI
from petsc4py import PETSc

from fem_dnn.errors import BadInput
from fem_dnn.solvers import METHODS, Tolerances, solve_lbfgs, solve_newton

pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF


def problem_and_start(comm=WORLD, **options):
    problem = random_problem(comm, **{"regularization": (0.1, 0.1, 0.1), **options})
    return problem, random_control(problem, scale=0.1)


@pytest.mark.parametrize(
    "options", [{"kernel": False}, {"scheme": "resnet", "loss": "softmax", "mask": True}]
)
def test_agrees_with_newton(options: dict) -> None:
    """Both end at the same minimiser: gradients of 1e-8 over eigenvalues of 0.1."""
    tolerances = Tolerances(rtol=1e-8)
    a, b = (METHODS[m](*problem_and_start(**options), tolerances) for m in ("lbfgs", "newton"))
    assert a.converged and b.converged, (a.reason, b.reason)
    assert a.initial_gradient_norm == b.initial_gradient_norm
    assert abs(a.objective - b.objective) < 1e-12 * b.objective
    x, y = everywhere(a.problem, a.control), everywhere(b.problem, b.control)
    assert relative(x, y) < 1e-5
    assert "local minimiser" in a.reason
    if "mask" in options:
        start = a.problem.controls.values(problem_and_start(**options)[1]).kernel
        assert np.all(a.problem.controls.values(a.control).kernel[start == 0] == 0)


@pytest.mark.several_ranks
def test_same_solution_on_any_number_of_ranks() -> None:
    shared, alone = (
        solve_lbfgs(*problem_and_start(comm, scheme="resnet"), Tolerances(rtol=1e-7))
        for comm in (WORLD, SELF)
    )
    assert shared.converged and alone.converged
    assert abs(shared.objective - alone.objective) < 1e-10 * alone.objective


def test_history_has_every_iterate() -> None:
    problem, start = problem_and_start(kernel=False)
    told = []
    solution = solve_lbfgs(problem, start, Tolerances(rtol=1e-6), escape=False, report=told.append)
    assert told == solution.history
    assert [line.iteration for line in told] == list(range(solution.iterations + 1))
    assert told[0].gradient_norm == solution.initial_gradient_norm
    assert told[-1].objective == solution.objective
    assert solution.gradient_norm <= 1e-6 * solution.initial_gradient_norm
    assert solution.state_solves == problem.work.states > solution.iterations
    assert solution.hessian_solves == 0


def test_limit_of_iterations() -> None:
    solution = solve_lbfgs(*problem_and_start(), Tolerances(max_iterations=3))
    assert not solution.converged and solution.iterations == 3
    assert "limit of 3 iterations" in solution.reason
    assert 'solver.method = "newton"' in solution.reason


def test_a_critical_point_is_returned_at_once() -> None:
    problem, start = problem_and_start(kernel=False)
    found = solve_newton(problem, start, Tolerances(rtol=1e-10))
    again = solve_lbfgs(problem, found.control, Tolerances(atol=1e-6))
    assert again.converged and again.iterations == 0
    assert np.array_equal(again.control, found.control)


def test_petsc_options() -> None:
    solution = solve_lbfgs(*problem_and_start(), options={"tao_max_it": 2})
    assert not solution.converged and solution.iterations == 2
    with pytest.raises(BadInput, match=r"-tao_nonsense"):
        solve_lbfgs(*problem_and_start(kernel=False), options={"tao_nonsense": 1})
    assert not PETSc.Options("fem_dnn_").getAll()
