"""The learning problem as PETSc sees it."""

import numpy as np
import pytest
from helpers import random_control, random_problem
from mpi4py import MPI
from petsc4py import PETSc

from fem_dnn.errors import BadInput
from fem_dnn.solvers.petsc import INFEASIBLE, PetscProblem, inserted_options

pytestmark = pytest.mark.mpi

WORLD = MPI.COMM_WORLD


def pair(**options):
    problem = random_problem(WORLD, loss="mse", learn_outputs=True, **options)
    return problem, PetscProblem(problem)


def test_objective_gradient_and_hessian_are_the_problems() -> None:
    problem, petsc = pair()
    control, d = random_control(problem), problem.controls.random_direction(1)
    at = problem.linearise(control)
    x, direction, y = petsc.vector(control), petsc.vector(d), petsc.vector()
    assert x.getSize() == problem.controls.n_global
    assert petsc.objective(None, x) == at.objective
    petsc.gradient(None, x, y)
    assert np.array_equal(y.array_r, at.gradient)
    # Coordinates are L2-orthonormal: PETSc's norm is the L2 norm.
    assert y.norm() == pytest.approx(at.gradient_norm, rel=1e-14)
    assert petsc.objective_gradient(None, x, y) == at.objective
    assert np.array_equal(y.array_r, at.gradient)
    petsc.set_hessian(None, x, petsc.hessian, petsc.hessian)
    for multiply in (petsc.hessian.mult, petsc.hessian.multTranspose):
        multiply(direction, y)
        assert np.array_equal(y.array_r, at.hessian_action(d))
    for thing in (x, direction, y):
        thing.destroy()
    petsc.destroy()


def test_vectors_are_copies() -> None:
    problem, petsc = pair()
    control = random_control(problem)
    x = petsc.vector(control)
    x.scale(2.0)
    assert np.array_equal(control, random_control(problem))
    x.destroy()
    petsc.destroy()


def test_one_linearisation_per_control() -> None:
    """The iterate and the trial point are remembered; a third drives the oldest out."""
    problem, petsc = pair()
    vectors = [petsc.vector(random_control(problem, seed)) for seed in (1, 2, 3)]
    first, second = petsc.at(vectors[0]), petsc.at(vectors[1])
    assert petsc.at(vectors[0]) is first and petsc.at(vectors[1]) is second
    petsc.at(vectors[2])
    assert petsc.at(vectors[1]) is second
    assert petsc.at(vectors[0]) is not first
    adopted = problem.linearise(random_control(problem, 4))
    x = petsc.start(adopted)
    assert petsc.at(x) is adopted
    for thing in (*vectors, x):
        thing.destroy()
    petsc.destroy()


def test_a_change_on_one_rank_is_a_change() -> None:
    problem, petsc = pair()
    control = random_control(problem)
    x = petsc.vector(control)
    known = petsc.at(x)
    if WORLD.rank == WORLD.size - 1:
        control[0] += 1.0
    y = petsc.vector(control)
    assert petsc.at(y) is not known
    x.destroy()
    y.destroy()
    petsc.destroy()


def test_a_state_that_cannot_be_solved_is_infeasible() -> None:
    """Line searches and trust regions must see a bad point, not an exception."""
    problem, petsc = pair(activation="softplus")
    x = petsc.vector(random_control(problem, scale=1e4))
    g = petsc.vector()
    assert petsc.objective(None, x) == INFEASIBLE
    petsc.gradient(None, x, g)
    assert np.all(np.isinf(g.array_r))
    x.destroy()
    g.destroy()
    petsc.destroy()


def all_options() -> dict:
    return PETSc.Options("test_").getAll()


def test_options_are_there_and_go_away() -> None:
    with inserted_options("test_", {"ksp_type": "cg", "pc_type": "none"}, {"ksp_type": "minres"}):
        assert all_options() == {"ksp_type": "minres", "pc_type": "none"}  # the user's win
        ksp = PETSc.KSP().create(WORLD)
        ksp.setOptionsPrefix("test_")
        ksp.setFromOptions()
        assert ksp.getType() == "minres"
        ksp.destroy()
    assert all_options() == {}


def test_unread_options_of_the_user_are_mistakes() -> None:
    """Defaults that nothing reads are not the user's fault."""
    with (
        pytest.raises(BadInput, match=r"PETSc option -ksp_tpye: nothing in this solve reads it"),
        inserted_options("test_", {"pc_type": "none"}, {"ksp_tpye": "cg"}) as options,
    ):
        options.require_read()
    assert all_options() == {}


def test_options_that_are_read_late_are_told_at_the_end() -> None:
    defaults = {"ksp_type": "cg"}
    with inserted_options("test_", defaults, {"snes_view": None, "ksp_view": None}) as options:
        assert options.unread() == ["snes_view", "ksp_view"]
        with pytest.raises(BadInput, match="snes_view"):  # there is no SNES here
            options.require_read()
    with inserted_options("test_", defaults, {"ksp_view": None}) as options:
        options.require_read()
        assert options.unread() == ["ksp_view"]
    assert all_options() == {}


def test_options_go_away_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), inserted_options("test_", {}, {"ksp_type": "cg"}):
        raise ZeroDivisionError
    assert all_options() == {}
