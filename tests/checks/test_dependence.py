"""Continuous dependence, and the bound on controls that are better than none."""

import numpy as np
import pytest
from helpers import random_control, random_problem
from mpi4py import MPI
from test_well_posedness import constant_kernel

from fem_dnn.activations import ACTIVATIONS, Activation
from fem_dnn.checks import Subject, continuous_dependence, control_bound
from fem_dnn.solvers import Tolerances, solve_newton

COMM = MPI.COMM_SELF


@pytest.mark.parametrize("scheme", ["resnet", "dg1"])
def test_states_depend_continuously_on_the_data(scheme):
    problem = random_problem(COMM, scheme=scheme)
    check = continuous_dependence(
        Subject.of_linearisation(problem.linearise(random_control(problem)))
    )
    assert check.holds
    assert 0.01 < check.sharpness < 1


def test_untrue_lipschitz_constants_are_suspected():
    wrong = Activation("steep", ACTIVATIONS["linear"].evaluate, lipschitz=0.25)
    check = continuous_dependence(constant_kernel("dg1", 1.0, 4, wrong))
    assert check.holds is False
    assert "suspect the constants" in check.explanation


def test_a_coarse_depth_mesh_breaks_it():
    check = continuous_dependence(constant_kernel("dg0", 1.0, 2))
    assert check.holds is False
    assert "dg0 under-resolves the depth" in check.explanation


def test_controls_better_than_none_are_bounded():
    problem = random_problem(COMM, scheme="resnet")
    zero = np.zeros(problem.controls.n_local)
    solution = solve_newton(problem, zero, Tolerances())
    check = control_bound(Subject.of_linearisation(solution.at, zero))
    levels = problem.network.levels
    kernel = problem.controls.values(solution.control).kernel
    h = problem.network.space.node_weights
    norms = np.sqrt(np.einsum("kxy,x,y->k", kernel**2, h, h))
    assert check.holds
    assert check.value == pytest.approx(levels.weights @ norms, rel=1e-12)
    J = problem.objective(zero)
    assert check.bound == pytest.approx(np.sqrt(2 * levels.points[-1] * J / 0.01), rel=1e-12)


def test_an_objective_of_other_controls_is_not_believed():
    problem = random_problem(COMM)
    at = problem.linearise(random_control(problem, scale=100.0))
    assert control_bound(Subject.of_linearisation(at)).holds is None
    at.__dict__["loss"] = at.__dict__["regularization"] = 0.0
    check = control_bound(Subject.of_linearisation(at))
    assert check.holds is False
    assert "does not belong to this kernel" in check.explanation


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"kernel": False}, "the kernel is not trained"),
        ({"regularization": (0.0, 0.1, 0.1)}, "regularization.kernel is 0"),
    ],
)
def test_where_there_is_no_bound(options, why):
    problem = random_problem(COMM, **options)
    at = problem.linearise(np.zeros(problem.controls.n_local))
    check = control_bound(Subject.of_linearisation(at))
    assert check.holds is None
    assert why in check.explanation


@pytest.mark.mpi
def test_dependence_does_not_depend_on_the_ranks():
    found = []
    for comm in (MPI.COMM_WORLD, MPI.COMM_SELF):
        problem = random_problem(comm, scheme="dg1", cells=(2, 2))
        at = problem.linearise(random_control(problem, scale=0.1))
        found.append(continuous_dependence(Subject.of_linearisation(at)))
    here, alone = found
    assert here.holds and alone.holds
    assert here.value == pytest.approx(alone.value, rel=1e-9)
    assert here.bound == pytest.approx(alone.bound, rel=1e-9)
