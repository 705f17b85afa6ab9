"""Bordered systems, against dense ones; regular where the Hessian alone is singular."""

import numpy as np
import pytest
from helpers import everywhere, random_control, random_problem, relative
from mpi4py import MPI

from fem_dnn.continuation.bordered import Bordered, BorderedSolver
from fem_dnn.continuation.equations import Place
from fem_dnn.solvers.curvature import lowest_eigenpair
from fem_dnn.solvers.petsc import PetscProblem

pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF

SMOOTH = (0.01, 0.02, 0.03, 0.0, 0.05, 0.02, 0.004, 0.03)


def system_on(comm, options) -> tuple:
    problem = random_problem(comm, scheme="resnet", cells=3, **options)
    at = problem.linearise(random_control(problem))
    direction = problem.controls.random_direction
    return problem, Bordered(at, direction(1), Place(direction(2), 0.3)), Place(direction(3), 0.7)


@pytest.mark.parametrize("options", [{}, {"regularization": SMOOTH}, {"bias": False}])
def test_against_a_dense_solve(options: dict) -> None:
    problem, system, right = system_on(WORLD, options)
    solver = BorderedSolver(problem.controls)
    solution = solver.solve(system, right, 1e-12)
    solver.destroy()

    alone, dense, rhs = system_on(SELF, options)
    n = alone.controls.n_global
    matrix = np.zeros((n + 1, n + 1))
    matrix[:n, :n] = np.stack([dense.at.hessian_action(e) for e in np.eye(n)]).T
    matrix[:n, n], matrix[n, :n], matrix[n, n] = dense.rate, dense.row.control, dense.row.xi
    exact = np.linalg.solve(matrix, np.append(rhs.control, rhs.xi))
    assert solution.xi == pytest.approx(exact[-1], rel=1e-8)
    assert relative(everywhere(problem, solution.control), everywhere(alone, exact[:-1])) < 1e-8


def test_regular_where_the_hessian_is_singular() -> None:
    """H - theta I has the null vector v; with v in the row the solution is v itself."""
    problem, system, _ = system_on(WORLD, {})
    petsc = PetscProblem(problem)
    pair = lowest_eigenpair(petsc, system.at, tolerance=1e-10)
    petsc.destroy()
    assert pair is not None

    class Shifted:
        def __init__(self, problem) -> None:
            self.problem = problem

        def hessian_action(self, direction):
            return system.at.hessian_action(direction) - pair.value * direction

    solver = BorderedSolver(problem.controls)
    singular = Bordered(Shifted(problem), system.rate, Place(pair.vector, 0.0))
    solution = solver.solve(singular, Place(np.zeros_like(pair.vector), 1.0), 1e-10)
    solver.destroy()
    assert abs(solution.xi) < 1e-7
    assert problem.controls.norm(solution.control - pair.vector) < 1e-6
