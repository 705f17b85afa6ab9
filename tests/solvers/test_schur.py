"""The preconditioner: a matrix's exact inverse, and what conjugate gradients make of it."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import random_control, random_problem, relative
from mpi4py import MPI
from petsc4py import PETSc
from systems import infeasible, krylov_solver, random_unknowns

from fem_dnn.problem import LearningProblem
from fem_dnn.solvers import solve_newton
from fem_dnn.solvers.optimality_system import SystemSpace, Unknowns
from fem_dnn.solvers.schur import ControlMetric, SchurSystem, set_trust_radius

pytestmark = pytest.mark.mpi

WORLD = MPI.COMM_WORLD

SMOOTH = dict.fromkeys(("kernel_depth", "bias_depth", "kernel_width"), 0.01)


def smoothed(problem: LearningProblem) -> LearningProblem:
    return replace(problem, regularization=replace(problem.regularization, **SMOOTH))


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("scheme", ["resnet", "dg1"])
def test_inverts_the_system_without_second_derivatives(scheme: str, smooth: bool) -> None:
    """(0 A*; A 0) and R'' for the controls: what is put in comes back."""
    at = infeasible(scheme=scheme, loss="mse", learn_outputs=True)
    problem = smoothed(at.problem) if smooth else at.problem
    at = SystemSpace(problem).point(SystemSpace(problem).coordinates(at.unknowns))
    system = SchurSystem(problem)
    system.at = at
    d = random_unknowns(problem, 5)
    nothing, no_control = np.zeros_like(d.slopes), np.zeros_like(d.control)
    # A d of (dz, dc), and A* of dP, as the system's matrix has them
    forward = at.product(Unknowns(d.slopes, nothing, d.control)).multipliers
    backward = at.product(Unknowns(nothing, d.multipliers, no_control))
    right = Unknowns(
        backward.slopes,
        forward,
        backward.control + problem.regularization.action(d.control),
    )
    found = system.precondition(right)
    for a, b in ((found.slopes, d.slopes), (found.multipliers, d.multipliers)):
        assert relative(a, b) < 1e-12
    norm = problem.controls.norm
    assert norm(found.control - d.control) < 1e-12 * norm(d.control)
    system.destroy()


@pytest.mark.parametrize("smooth", [False, True])
def test_metric(smooth: bool) -> None:
    """Its norm is that of R; where R leaves a control free, the smallest other weight counts."""
    problem = random_problem(WORLD, loss="mse", learn_outputs=True, regularization=(0.3, 0.2, 0.0))
    problem = smoothed(problem) if smooth else problem
    metric, controls = ControlMetric(problem), problem.controls
    c = random_control(problem)
    free = np.zeros_like(c)
    for name in ("outputs", "offsets"):
        free[controls.blocks[name]] = c[controls.blocks[name]]
    square = 2 * problem.regularization.value(c) + 0.2 * controls.dot(free, free)
    assert abs(metric.norm(c) ** 2 - square) < 1e-13 * square
    image = problem.regularization.action(c) + 0.2 * free
    assert controls.norm(metric.solve(image) - c) < 1e-12 * controls.norm(c)


def test_conjugate_gradients_stay_with_the_linearised_state_equation() -> None:
    """PETSc's truncated CG on an indefinite matrix: the minimiser of the reduced model.

    The trust region bounds it in the norm of R.
    """
    problem = random_problem(WORLD, scheme="resnet", regularization=(0.5, 0.4, 0.3))
    reduced = solve_newton(problem, random_control(problem, scale=0.1)).at
    force = problem.controls.random_direction(3)
    system = SchurSystem(problem)
    system.at = system.space.solved(reduced)
    right = Unknowns(0 * system.at.slopes, 0 * system.at.slopes, force)

    def solve(radius: float) -> tuple[Unknowns, PETSc.KSP.ConvergedReason]:
        b, x = system.vector(), system.vector()
        b.array_w[:] = system.space.coordinates(right)
        with krylov_solver(system) as ksp:
            ksp.setTolerances(rtol=1e-12)
            set_trust_radius(ksp, radius)
            ksp.solve(b, x)
            found, reason = system.space.values(np.array(x.array_r)), ksp.getConvergedReason()
        b.destroy()
        x.destroy()
        return found, reason

    free, reason = solve(1e3)
    norm = problem.controls.norm
    assert reason == PETSc.KSP.ConvergedReason.CONVERGED_RTOL
    assert norm(reduced.hessian_action(free.control) - force) < 1e-10
    tangent = system.at.product(Unknowns(free.slopes, 0 * free.slopes, free.control))
    assert np.max(np.abs(tangent.multipliers), initial=0) < 1e-12
    length = system.metric.norm(free.control)
    bounded, reason = solve(0.3 * length)
    assert reason == PETSc.KSP.ConvergedReason.CONVERGED_STEP_LENGTH
    assert abs(system.metric.norm(bounded.control) - 0.3 * length) < 1e-10 * length
    system.destroy()
