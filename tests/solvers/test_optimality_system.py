"""The system of state, adjoint and controls: the Lagrangian's gradient and Hessian."""

import numpy as np
import pytest
import ufl
from dolfinx import fem
from helpers import GRADED, everywhere, in_file_order, random_control, random_problem, relative
from mpi4py import MPI
from systems import infeasible, random_unknowns

from fem_dnn.adjoint import transpose
from fem_dnn.depth import SCHEMES
from fem_dnn.integration import Integral, integrate, integrate_back
from fem_dnn.mesh import DepthWidthMesh
from fem_dnn.network import LayerWeights
from fem_dnn.solvers.optimality_system import OptimalityPoint, SystemSpace, Unknowns
from fem_dnn.verification import fitted_order
from fem_dnn.weak_form import (
    CylinderSpace,
    activation_slope,
    adjoint_form,
    layered_adjoint_form,
    state_form,
)

pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF

PROBLEMS = {
    "resnet": {"scheme": "resnet", "tracking": True},
    "dg1": {"scheme": "dg1", "tracking": True, "loss": "mse", "learn_outputs": True, "mask": True},
    "dg2": {"scheme": "dg2", "kernel": False, "given": True, "tracking": True},
    "no bias": {"scheme": "dg0", "loss": "softmax", "bias": False},
}


CYLINDERS = [*((scheme, 3, 1) for scheme in SCHEMES), ("dg1", (2, 2), 0)]
"""Scheme, cells and width degree."""


def lagrangian(space: SystemSpace, vector: np.ndarray) -> float:
    at = space.point(vector)
    return at.objective + space.level_dot(at.multipliers, at.state_residual)


@pytest.mark.parametrize("name", PROBLEMS)
def test_is_the_gradient_and_hessian_of_the_lagrangian(name: str) -> None:
    """Taylor remainders of orders 2 and 3 away from any solution."""
    at = infeasible(**PROBLEMS[name])
    space = SystemSpace(at.problem)
    x = space.coordinates(at.unknowns)
    directions = [space.coordinates(random_unknowns(at.problem, seed)) for seed in (5, 6)]
    steps = 2.0 ** -np.arange(4.0, 8.0)
    remainders = np.zeros((2, len(steps)))
    for d in directions:
        d = d / space.norm(d)
        change = np.array([lagrangian(space, x + e * d) for e in steps]) - lagrangian(space, x)
        first = change - steps * space.dot(space.coordinates(at.residual), d)
        product = space.coordinates(at.product(space.values(d)))
        second = first - 0.5 * steps**2 * space.dot(product, d)
        remainders += np.abs([first, second])
    assert abs(fitted_order(steps, remainders[0]) - 2) < 0.1
    assert abs(fitted_order(steps, remainders[1]) - 3) < 0.15


@pytest.mark.parametrize("name", PROBLEMS)
def test_matrix_is_symmetric(name: str) -> None:
    at = infeasible(**PROBLEMS[name])
    space = SystemSpace(at.problem)
    d, e = (space.coordinates(random_unknowns(at.problem, seed)) for seed in (5, 6))
    Kd, Ke = (space.coordinates(at.product(space.values(v))) for v in (d, e))
    size = space.norm(Kd) * space.norm(e) + space.norm(d) * space.norm(Ke)
    assert abs(space.dot(Kd, e) - space.dot(d, Ke)) < 1e-14 * size
    assert abs(space.dot(Kd, e)) > 1e-6 * size


@pytest.mark.parametrize("name", PROBLEMS)
def test_solved_equations_leave_the_reduced_gradient(name: str) -> None:
    problem = random_problem(WORLD, **PROBLEMS[name])
    reduced = problem.linearise(random_control(problem))
    at = SystemSpace(problem).solved(reduced)
    residual = at.residual
    for part in (residual.slopes, residual.multipliers, residual.control - reduced.gradient):
        assert np.max(np.abs(part), initial=0) < 1e-13
    assert abs(at.objective - reduced.objective) < 1e-14 * reduced.objective
    assert np.allclose(at.adjoint.ends, reduced.adjoint.ends, rtol=0, atol=1e-13)
    assert abs(at.gradient_norm - reduced.gradient_norm) < 1e-12


@pytest.mark.parametrize("name", PROBLEMS)
def test_linearised_sweeps_solve_their_equations(name: str) -> None:
    """At a point that satisfies no equation, for any right-hand side."""
    at = infeasible(**PROBLEMS[name])
    d = random_unknowns(at.problem, 5)
    nothing, no_control = np.zeros_like(d.slopes), np.zeros_like(d.control)
    for control in (None, d.control):
        slopes = at.solve_linearised_state(d.multipliers, control)
        moved = no_control if control is None else control
        product = at.product(Unknowns(slopes, nothing, moved))
        assert relative(product.multipliers, d.multipliers) < 1e-13
    adjoint = at.solve_linearised_adjoint(d.slopes)
    product = at.product(Unknowns(nothing, adjoint.levels, no_control))
    assert relative(product.slopes, d.slopes) < 1e-13
    part = at.stationarity_part(adjoint.q)
    assert at.problem.controls.norm(product.control - part) == 0


@pytest.mark.parametrize("name", ["resnet", "dg1", "dg2"])
def test_eliminating_state_and_adjoint_leaves_the_reduced_hessian(name: str) -> None:
    problem = random_problem(WORLD, **PROBLEMS[name])
    reduced = problem.linearise(random_control(problem))
    at = SystemSpace(problem).solved(reduced)
    control = problem.controls.random_direction(7)
    nothing = np.zeros_like(at.slopes)
    tangent = Unknowns(at.solve_linearised_state(nothing, control), nothing, control)
    product = at.product(tangent)
    assert np.max(np.abs(product.multipliers), initial=0) < 1e-13
    adjoint = at.solve_linearised_adjoint(product.slopes)
    eliminated = product.control - at.stationarity_part(adjoint.q)
    expected = reduced.hessian_action(control)
    norm = problem.controls.norm
    assert norm(eliminated - expected) < 1e-13 * norm(expected)


def everything_moved(at: OptimalityPoint, d: Unknowns) -> tuple[Integral, np.ndarray, LayerWeights]:
    """Changes of f, of u, and of kernel and bias, put together from the operators."""
    levels, tracked = at.problem.network.levels, at.problem.tracking is not None
    df = integrate(levels, np.zeros_like(d.slopes[0]), d.slopes, tracked=tracked)
    change = at.problem.direction(at.problem.controls.split(d.control))
    K, dK = at.weights.operator, change.operator
    moved = [
        K.apply(k, K.gather(f)) + dK.apply(k, at.state.gathered[k]) for k, f in enumerate(df.stages)
    ]
    return df, np.stack(moved) + change.bias, change


class WeakForms:
    """UFL on the cylinder of a point's problem."""

    def __init__(self, at: OptimalityPoint) -> None:
        network = at.problem.network
        self.scheme, self.levels = network.levels.scheme, network.levels
        width = network.space
        self.space = CylinderSpace(DepthWidthMesh(width.mesh, GRADED), width, self.scheme)
        self.v = ufl.TestFunction(self.space.function_space)
        self.weights = self.assembled(self.v * self.space.dx_nodal)

    def assembled(self, form: ufl.Form) -> np.ndarray:
        """(level, width node)"""
        return self.space.values(fem.assemble_vector(fem.form(form)).array)

    def function(self, f: Integral, sample: int) -> fem.Function:
        """For resnet the piecewise constant function of the outgoing values."""
        values = f.ends[1:] if self.scheme.explicit else f.stages
        return self.space.function(values[:, :, sample])

    def by_slopes(self, form: ufl.Form) -> np.ndarray:
        """A vector of test functions as a function of the slopes that make them."""
        vector = self.assembled(form)[:, :, None] / self.weights[:, :, None]
        if self.scheme.explicit:  # every outgoing value holds all slopes before it
            after = np.cumsum((self.levels.weights[:, None, None] * vector)[::-1], axis=0)
            return after[::-1, :, 0]
        return integrate_back(self.levels, np.zeros_like(vector[0]), vector, vector[:0])[1][:, :, 0]


@pytest.mark.parametrize(("scheme", "cells", "degree"), CYLINDERS)
def test_state_equation_is_the_weak_form(
    scheme: str, cells: int | tuple[int, int], degree: int
) -> None:
    """L_P is UFL's residual of the state form, and its derivative UFL's derivative of that."""
    at = infeasible(scheme=scheme, cells=cells, degree=degree, samples=2)
    problem, forms, s = at.problem, WeakForms(at), 1
    d = random_unknowns(problem, 5)
    df, du, _ = everything_moved(at, d)
    whole = integrate(forms.levels, problem.inputs, at.slopes, tracked=False)
    space = forms.space
    f, u = forms.function(whole, s), space.function(at.state.u[:, :, s])
    F = state_form(space, f, u, space.on_depth_ends(problem.inputs[:, s]), forms.v, "tanh")
    residual = -forms.weights * at.state_residual[:, :, s]
    assert relative(forms.assembled(F), residual) < 1e-13
    dF = ufl.derivative(F, f, forms.function(df, s))
    dF += ufl.derivative(F, u, space.function(du[:, :, s]))
    product = -forms.weights * at.product(d).multipliers[:, :, s]
    assert relative(forms.assembled(dF), product) < 1e-13


@pytest.mark.parametrize(("scheme", "cells", "degree"), CYLINDERS)
def test_adjoint_equation_is_the_weak_form(
    scheme: str, cells: int | tuple[int, int], degree: int
) -> None:
    """L_z is the residual of the adjoint form, and its derivative that of the derived form.

    Nonlocal terms enter UFL as coefficients; what they act on, sigma'(u) P, UFL differentiates.
    """
    at = infeasible(scheme=scheme, cells=cells, degree=degree, samples=1, tracking=True)
    problem, forms = at.problem, WeakForms(at)
    space, v, tracking = forms.space, forms.v, problem.tracking
    d = random_unknowns(problem, 5)
    df, du, change = everything_moved(at, d)
    u, P, du_h, dP = (
        space.function(a[:, :, 0]) for a in (at.state.u, at.multipliers, du, d.multipliers)
    )
    q = activation_slope(u, "tanh") * P * v * space.dx_nodal
    dq = ufl.derivative(q, u, du_h) + ufl.derivative(q, P, dP)
    q, dq = ((forms.assembled(form) / forms.weights)[:, :, None] for form in (q, dq))
    form = layered_adjoint_form if forms.scheme.explicit else adjoint_form

    def residual(P, transposed, tracked, terminal) -> np.ndarray:
        source, r = (space.function(a[:, :, 0]) for a in (transposed, tracked))
        return forms.by_slopes(form(space, P, source, r, space.on_depth_ends(terminal[:, 0]), v))

    everywhere = range(len(q))
    found = residual(
        P,
        transpose(at.weights, everywhere, q),
        tracking.weight * (at.state.tracked - tracking.targets),
        at.loss_point.terminal,
    )
    assert relative(found, -at.adjoint_residual[:, :, 0]) < 1e-13
    found = residual(
        dP,
        transpose(at.weights, everywhere, dq) + transpose(change, everywhere, q),
        tracking.weight * df.tracked,
        problem.loss.weight * df.ends[-1],
    )
    assert relative(found, -at.product(d).slopes[:, :, 0]) < 1e-13


@pytest.mark.parametrize("scheme", ["resnet", "dg1"])
def test_same_on_any_number_of_ranks(scheme: str) -> None:
    options = {"scheme": scheme, "tracking": True, "loss": "mse", "learn_outputs": True}
    found = []
    for comm in (WORLD, SELF):
        at = infeasible(comm, mask=True, **options)
        space = at.problem.network.space
        for values in (at.residual, at.product(random_unknowns(at.problem, 5))):
            levels = (in_file_order(space, a) for a in (values.slopes, values.multipliers))
            found.append([*levels, everywhere(at.problem, values.control)])
    for shared, alone in zip(found[:2], found[2:], strict=True):
        for a, b in zip(shared, alone, strict=True):
            assert relative(a, b) < 1e-12
