"""The regulariser is half the weights times the squared L2 norms, and its derivative."""

import numpy as np
import pytest
from helpers import everywhere, fitted_order, random_control, random_problem, relative
from mpi4py import MPI

from fem_dnn.assembly import assemble
from fem_dnn.case import Case
from fem_dnn.controls import ControlParts, ControlValues
from fem_dnn.verification import verify

pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF
WEIGHTS = (0.1, 0.03, 0.7)


def problem_on(comm=WORLD, **options):
    return random_problem(
        comm, loss="mse", learn_outputs=True, degree=1, regularization=WEIGHTS, **options
    )


def test_value_is_half_the_weighted_l2_norms() -> None:
    problem = problem_on()
    control = random_control(problem)
    v = problem.controls.values(control)
    h, omega = problem.network.space.node_weights, problem.network.levels.weights
    expected = 0.5 * (
        0.1 * np.einsum("k,x,y,kxy->", omega, h, h, v.kernel**2)
        + 0.03 * np.einsum("k,x,kx->", omega, h, v.bias**2)
        + 0.7 * (np.sum(v.outputs**2 @ h) + np.sum(v.offsets**2))
    )
    assert abs(problem.regularization.value(control) - expected) < 1e-14 * expected


def test_value_of_known_functions() -> None:
    """a = 2, b = 3 on (0, 1.1) x (0, 1): the depth is that of the graded slabs."""
    problem = problem_on()
    R = problem.regularization.value(problem.controls.constant(2.0, 3.0))
    assert abs(R - 0.5 * 1.1 * (0.1 * 4 + 0.03 * 9)) < 1e-14


def test_derivative() -> None:
    """R is quadratic: R(c + d) - R(c) = R'(c) d + R(d), exactly."""
    problem = problem_on()
    R, controls = problem.regularization, problem.controls
    c, d = random_control(problem, 1), random_control(problem, 2)
    derivative = R.action(c)
    left = R.value(c + d) - R.value(c) - R.value(d)
    assert abs(left - controls.dot(derivative, d)) < 1e-13
    v, dv = controls.values(c), controls.values(derivative)
    for name, weight in zip(("kernel", "bias", "outputs", "offsets"), (*WEIGHTS, 0.7), strict=True):
        assert relative(getattr(dv, name), weight * getattr(v, name)) < 1e-13


def test_weights_of_the_controls_that_there_are() -> None:
    assert problem_on().regularization.weights == [0.1, 0.03, 0.7]
    assert problem_on(bias=False).regularization.weights == [0.1, 0.7]
    l2 = random_problem(WORLD, kernel=False, regularization=WEIGHTS)
    assert l2.regularization.weights == [0.03]


@pytest.mark.parametrize("mask", [False, True])
def test_same_on_any_number_of_ranks(mask: bool) -> None:
    shared, alone = (problem_on(comm, mask=mask) for comm in (WORLD, SELF))
    a, b = random_control(shared), random_control(alone)
    exact = alone.regularization.value(b)
    assert abs(shared.regularization.value(a) - exact) < 1e-14 * exact
    da, db = shared.regularization.action(a), alone.regularization.action(b)
    assert relative(everywhere(shared, da), everywhere(alone, db)) < 1e-14


def test_nothing_is_learned_nothing_is_paid() -> None:
    problem = problem_on()
    nothing = problem.controls.coordinates(ControlValues())
    assert problem.regularization.value(nothing) == 0.0


def test_first_derivatives_of_known_functions() -> None:
    """a = cos(pi x) cos(pi y) cos(pi t), b = cos(pi x) cos(pi t), natural at every boundary.

    Over (0, 1): |d_t a|^2 = pi^2 / 8, |grad a|^2 = pi^2 / 4, |d_t b|^2 = |d_x b|^2 = pi^2 / 4.
    """
    points, errors = [4, 8, 16], []
    for n in points:
        problem = random_problem(
            WORLD,
            cells=n,
            degree=1,
            scheme="dg1",
            points=np.linspace(0, 1, n + 1),
            regularization=(0.0, 0.0, 0.0, 0.0, 0.1, 0.2, 0.4, 0.8),
        )
        x, t = problem.network.space.nodes[:, 0], problem.network.levels.t
        wave, depth = np.cos(np.pi * x), np.cos(np.pi * t)
        kernel = depth[:, None, None] * wave[:, None] * wave
        control = problem.controls.coordinates(ControlValues(kernel, depth[:, None] * wave))
        exact = np.pi**2 / 4 * 0.5 * (0.1 / 2 + 0.4 + 0.2 + 0.8)
        errors.append(abs(problem.regularization.value(control) - exact))
    assert abs(fitted_order(points, errors) - 2) < 0.2


SMOOTH = (0.01, 0.02, 0.03, 0.0, 0.05, 0.02, 0.004, 0.03)
"""With weights on all derivatives."""


@pytest.mark.parametrize("options", [{}, {"mask": True}, {"degree": 1}, {"scheme": "resnet"}])
def test_derivatives_stay_exact_with_smoothing(options: dict) -> None:
    """Taylor, symmetry, adjoint and forward-against-reverse tests of the whole objective."""
    problem = random_problem(
        WORLD, **{"loss": "mse", "learn_outputs": True, **options}, regularization=SMOOTH
    )
    assert verify(problem, random_control(problem)).passed


@pytest.mark.parametrize("scheme", ["resnet", "dg1", "dg2"])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("comm", [WORLD, SELF])
def test_depth_derivatives_act_on_every_entry_alike(
    comm: MPI.Comm, mask: bool, scheme: str
) -> None:
    """M by the levels of kernel and bias as arrays, which a vector is not spread into."""
    problem = random_problem(
        comm, scheme=scheme, mask=mask, regularization=(0.01, 0.0, 0.0, 0.0, 0.05, 0.02)
    )
    controls, R = problem.controls, problem.regularization
    control = random_control(problem)
    parts = controls.split(control)
    a, b = (R.forms.in_depth(R.terms[name]).toarray() for name in ("kernel", "bias"))
    kernel = np.einsum("kl,lyx->kyx", a, parts.kernel)
    expected = controls.join(ControlParts(kernel, b @ parts.bias, None, None))
    found = R.action(control)
    assert controls.norm(found - expected) < 1e-14 * controls.norm(expected)
    value = 0.5 * controls.dot(control, expected)
    assert R.value(control) == pytest.approx(value, rel=1e-14)
    R.add_action(control, found)
    assert controls.norm(found - 2 * expected) < 2e-14 * controls.norm(expected)


def test_what_is_given_pays_for_its_derivatives_too() -> None:
    """R is the same number whether a control was found or handed in."""
    case = {
        "mesh": {
            "width": {"shape": "interval", "length": 1.0, "cells": 4},
            "depth": {"length": 1.0, "cells": 3},
        },
        "network": {"kernel": "x*y*t", "bias": "x + t"},
        "data": {"inputs": ["x"], "targets": ["1"]},
        "regularization": {
            "kernel_depth": 0.1, "bias_depth": 0.2, "kernel_width": 0.3, "bias_width": 0.4,
        },
    }  # fmt: skip
    handed = assemble(Case.parse(case), WORLD).problem
    trained = assemble(Case.parse(case | {"network": {}}), WORLD).problem
    x, t = trained.network.space.nodes[:, 0], trained.network.levels.t
    kernel = t[:, None, None] * x[:, None] * x
    control = trained.controls.coordinates(ControlValues(kernel, x + t[:, None]))
    R = trained.regularization.value(control)
    assert abs(handed.regularization.given - R) < 1e-14 * R
