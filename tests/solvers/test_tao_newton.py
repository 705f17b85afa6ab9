"""PETSc TAO's Newton types, and that no type's options are lost."""

import pytest
from helpers import everywhere, random_control, random_problem, relative
from mpi4py import MPI

from fem_dnn.errors import BadInput
from fem_dnn.solvers import ALL_METHODS, METHODS, Tolerances, solve_newton
from fem_dnn.solvers.tao import REASONS
from fem_dnn.solvers.tao_newton import TYPES

pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF


def problem_and_start(comm=WORLD, **options):
    problem = random_problem(comm, **{"regularization": (0.1, 0.1, 0.1), **options})
    return problem, random_control(problem, scale=0.1)


@pytest.mark.parametrize("tao_type", TYPES)
@pytest.mark.parametrize("options", [{"kernel": False}, {"scheme": "resnet", "loss": "softmax"}])
def test_agrees_with_newton(options: dict, tao_type: str) -> None:
    """Also where the Hessian is indefinite on the way and TAO shifts it."""
    tolerances = Tolerances(rtol=1e-9)
    a = ALL_METHODS[tao_type](*problem_and_start(**options), tolerances)
    b = solve_newton(*problem_and_start(**options), tolerances)
    assert a.converged and b.converged, (a.reason, b.reason)
    assert abs(a.objective - b.objective) < 1e-12 * b.objective
    assert relative(everywhere(a.problem, a.control), everywhere(b.problem, b.control)) < 1e-6
    assert 0 < a.linear_iterations <= a.hessian_solves
    assert a.iterations < 30


@pytest.mark.parametrize("tao_type", ["bntr", "bnls"])
@pytest.mark.several_ranks
def test_same_solution_on_any_number_of_ranks(tao_type: str) -> None:
    shared, alone = (
        ALL_METHODS[tao_type](*problem_and_start(comm, scheme="resnet"), Tolerances(rtol=1e-9))
        for comm in (WORLD, SELF)
    )
    assert shared.converged and alone.converged
    assert abs(shared.objective - alone.objective) < 1e-11 * alone.objective


def test_limits_and_options() -> None:
    solve = ALL_METHODS["bntr"]
    stopped = solve(*problem_and_start(), Tolerances(max_iterations=2))
    assert not stopped.converged and stopped.iterations == 2
    assert "limit of 2 iterations" in stopped.reason
    early = solve(*problem_and_start(), options={"tao_gatol": 1.0})
    assert not early.converged and "-tao_gatol stopped it" in early.reason
    with pytest.raises(BadInput, match="-snes_monitor"):
        solve(*problem_and_start(), options={"snes_monitor": None})


def test_every_reason_of_petsc_has_a_sentence() -> None:
    from petsc4py import PETSc

    codes = {
        value
        for name, value in vars(PETSc.TAO.ConvergedReason).items()
        if name.isupper() and value != 0
    }
    assert codes == set(REASONS)


def test_names() -> None:
    assert set(TYPES) == set(ALL_METHODS) - set(METHODS)
