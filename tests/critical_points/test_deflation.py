"""The deflation operator, its derivative, and the Sherman-Morrison step."""

import math

import pytest
from helpers import random_control, random_problem
from mpi4py import MPI
from petsc4py import PETSc

from fem_dnn.critical_points import Deflation, Root
from fem_dnn.critical_points.deflated_newton import (
    DEFAULTS,
    DeflatedGradient,
    DeflatedSolve,
    HessianSolve,
)
from fem_dnn.solvers.petsc import PREFIX, PetscProblem, inserted_options

pytestmark = pytest.mark.mpi


def deflation_at(seed=3):
    problem = random_problem(MPI.COMM_WORLD, scheme="resnet", cells=3)
    controls = problem.controls
    roots = [
        Root(random_control(problem, seed=seed + k), length)
        for k, length in enumerate((0.5, 1.0, 4.0))
    ]
    return problem, Deflation(controls, roots), random_control(problem, seed=20)


def test_factor():
    problem, deflation, control = deflation_at()
    expected = math.prod(
        1 + (root.length / problem.controls.norm(control - root.control)) ** 2
        for root in deflation.roots
    )
    assert deflation.factor(control) == pytest.approx(expected, rel=1e-14)
    assert deflation.factor(deflation.roots[1].control) == math.inf
    assert Deflation(problem.controls).factor(control) == 1.0
    # The shift: far from the roots nothing is deflated, and units do not matter.
    assert deflation.factor(1e8 * control) == pytest.approx(1.0, abs=1e-14)
    scaled = [Root(7 * root.control, 7 * root.length) for root in deflation.roots]
    same = Deflation(problem.controls, scaled).factor(7 * control)
    assert same == pytest.approx(deflation.factor(control), rel=1e-13)


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_slope_is_the_derivative_of_the_logarithm(power):
    problem, deflation, control = deflation_at()
    deflation = Deflation(problem.controls, deflation.roots, power)
    step = problem.controls.random_direction(4)
    h = 1e-5
    ahead, behind = (math.log(deflation.factor(control + s * h * step)) for s in (1, -1))
    difference = (ahead - behind) / (2 * h)
    assert deflation.slope(control, step) == pytest.approx(difference, rel=1e-8)


@pytest.mark.parametrize(
    "options",
    [{}, {"regularization": (0.1, 0.1, 0.1, 0.02, 0.03, 0.01, 0.01, 0.02)}],
    ids=["plain", "smoothed"],
)
def test_derivative_of_the_deflated_gradient_and_its_inverse(options):
    """G' = M (H + F grad log M') against differences of G; then the solve against G'.

    The right sides are G, of the Newton step, and another one.
    """
    problem = random_problem(MPI.COMM_WORLD, scheme="resnet", cells=2, **options)
    roots = [Root(random_control(problem, seed=3 + k), 1.0) for k in range(2)]
    petsc = PetscProblem(problem)
    with inserted_options(PREFIX, DEFAULTS, {}):
        inner = HessianSolve(petsc)
    inner.ksp.setTolerances(rtol=1e-13)
    gradient = DeflatedGradient(petsc, Deflation(problem.controls, roots), inner)
    solve = DeflatedSolve(inner, gradient)
    x = petsc.start(problem.linearise(random_control(problem, seed=20)))
    g, ahead, direction = petsc.vector(), petsc.vector(), petsc.vector()
    gradient.evaluate(None, x, g)
    gradient.move(None, x, petsc.hessian, petsc.hessian)
    direction.array_w[:] = problem.controls.random_direction(9)
    product, h = petsc.vector(), 1e-6
    gradient.mult(None, direction, product)
    differences = []
    for sign in (1, -1):
        shifted = petsc.vector(x.array_r + sign * h * direction.array_r)
        gradient.evaluate(None, shifted, ahead)
        differences.append(sign * ahead.array_r / (2 * h))
        shifted.destroy()
    error = problem.controls.norm(sum(differences) - product.array_r)
    assert error < 1e-7 * product.norm()

    gradient.move(None, x, petsc.hessian, petsc.hessian)
    ksp, y = PETSc.KSP().create(petsc.comm), petsc.vector()
    for right in (g, direction):
        solve.solve(ksp, right, y)
        gradient.mult(None, y, product)
        assert problem.controls.norm(product.array_r - right.array_r) < 1e-9 * right.norm()
    solve.destroy(ksp)
    for thing in (x, g, ahead, direction, product, y, ksp, inner, petsc):
        thing.destroy()
