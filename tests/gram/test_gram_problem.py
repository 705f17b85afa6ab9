"""The learning problem in Gram form is the dense one, restricted to controls of that form."""

import numpy as np
import pytest
from helpers import in_file_order, random_problem, relative
from mpi4py import MPI

from fem_dnn.controls import ControlParts, ControlValues
from fem_dnn.depth import SCHEMES
from fem_dnn.gram import GramLinearisation, GramProblem
from fem_dnn.gram.operator import GramOperator
from fem_dnn.gram.problem import why_not
from fem_dnn.gram.sweeps import Direction, solve_tangent

pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF

SCALE = 0.003
"""Of q, which is of the size of lambda times the controls."""

KINDS = {
    "plain": {},
    "no bias": {"bias": False},
    "given bias": {"bias": False, "given": True},
    "tracking": {"tracking": True, "activation": "sigmoid"},
    "learned outputs": {"loss": "mse", "learn_outputs": True},
    "classes": {"loss": "softmax", "degree": 1, "cells": 5},
}


def gram_point(comm: MPI.Comm = WORLD, **options) -> GramLinearisation:
    """At a random control, the output layer included."""
    options = {"cells": 9, **options}
    problem = GramProblem.of(random_problem(comm, **options))
    return problem.linearise(control_of(problem))


def control_of(problem: GramProblem, seed: int = 1) -> np.ndarray:
    controls, rng = problem.controls, np.random.default_rng(seed)
    outer = ControlValues(
        outputs=0.1 * rng.standard_normal((controls.outputs, problem.network.space.n_nodes)),
        offsets=0.1 * rng.standard_normal(controls.outputs),
    )
    return controls.random(seed, SCALE) + controls.coordinates(outer)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_equals_the_dense_problem_at_equal_controls(scheme: str, kind: str) -> None:
    at = gram_point(scheme=scheme, **KINDS[kind])
    dense = at.dense()
    for name in ("objective", "loss", "regularization", "gradient_norm"):
        assert getattr(at, name) == pytest.approx(getattr(dense, name), rel=1e-13), name
    for mine, other in (
        (at.state.ends, dense.state.ends),
        (at.state.u, dense.state.u),
        (at.adjoint.ends, dense.adjoint.ends),
        (at.adjoint.q, dense.adjoint.q),
    ):
        space = at.problem.network.space
        assert relative(in_file_order(space, mine), in_file_order(space, other)) < 1e-13


def change_of_controls(at: GramLinearisation, step: np.ndarray) -> np.ndarray:
    """da = sum (dq f + q df) / lambda_a, db = sum dq / lambda_b, as a dense control vector."""
    problem, form = at.problem, at.problem.form
    space, omega = problem.network.space, problem.network.levels.weights
    dq = problem.controls.q(step) / problem.controls.bias_scale[:, :, None]
    (stretch,), start = at._stretches, np.zeros_like(problem.inputs)
    tangent = solve_tangent(stretch, Direction(problem.controls.q(step), None), start, start[:0])
    changes = [
        GramOperator(space, omega, form.kernel * left, right).coefficients
        for left, right in (
            (dq, at.state.stages),
            (at.q(slice(None)), tangent.stages / form.root),
        )
    ]
    layer, controls = problem.controls.split(step), problem.dense.controls
    bias = form.bias * dq.sum(axis=2) * controls.bias_scale
    return controls.join(ControlParts(sum(changes), bias, layer.outputs, layer.offsets))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_gradient_and_hessian_by_the_chain_rule(scheme: str, kind: str) -> None:
    """dJ/dq dq = grad J . D dq, and dq' H dq = D dq' . H D dq."""
    at = gram_point(scheme=scheme, **KINDS[kind])
    dense, controls = at.dense(), at.problem.controls
    v, other = (controls.random_direction(seed) for seed in (2, 3))
    Dv, Dother = (change_of_controls(at, step) for step in (v, other))
    dot = dense.problem.controls.dot
    assert controls.dot(at.gradient, v) == pytest.approx(dot(dense.gradient, Dv), rel=1e-11)
    product = at.hessian_action(v)
    scale = controls.norm(product)
    expected = dense.hessian_action(Dv)
    assert abs(controls.dot(product, other) - dot(expected, Dother)) < 1e-12 * scale
    assert abs(controls.dot(product, v) - dot(expected, Dv)) < 1e-12 * scale


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", ["resnet", "dg1"])
def test_taylor_remainders_and_symmetry(scheme: str, kind: str) -> None:
    """Along `moved` J differs from its quadratic expansion by the third power of the step.

    That J + gradient + Hessian is the expansion only where steps are taken like this, and that the
    same states are met along q + dq to first order, is what makes Newton's method quadratic.
    """
    at = gram_point(scheme=scheme, **KINDS[kind])
    problem, controls = at.problem, at.problem.controls
    v, other = (controls.random_direction(seed) for seed in (3, 4))
    v *= 1 / at.length_of(v)
    product = at.hessian_action(v)
    steps = 2e-2 * 0.5 ** np.arange(4)
    remainders = []
    for step in steps:
        there = problem.linearise(problem.moved(at, step * v))
        linear = step * controls.dot(at.gradient, v) + 0.5 * step**2 * controls.dot(product, v)
        along = controls.norm(there.control - at.control - step * v)
        remainders.append((abs(there.objective - at.objective - linear), along))
    slopes = np.polyfit(np.log(steps), np.log(remainders), 1)[0]
    assert slopes[0] > 2.8 and slopes[1] > 1.8
    one, two = controls.dot(other, product), controls.dot(v, at.hessian_action(other))
    assert abs(one - two) < 1e-13 * controls.norm(product) * controls.norm(other)


@pytest.mark.parametrize("kind", ["tracking", "given bias"])
@pytest.mark.parametrize("scheme", ["resnet", "dg1"])
def test_a_step_keeps_the_states_of_kernel_and_bias(scheme: str, kind: str) -> None:
    """And has less R: what is left out of the kernel sees no sample."""
    at = gram_point(scheme=scheme, **KINDS[kind])
    step = 0.1 * at.problem.controls.random_direction(3)
    step *= at.length / at.length_of(step)
    there = at.problem.linearise(at.problem.moved(at, step))
    dense = at.dense()
    ahead = dense.problem.linearise(dense.control + change_of_controls(at, step))
    assert relative(there.state.ends, at.state.ends) > 1e-3, "a step that moves nothing"
    assert there.loss == pytest.approx(ahead.loss, rel=1e-11)
    space = at.problem.network.space
    assert relative(*(in_file_order(space, p.state.ends) for p in (there, ahead))) < 1e-11
    assert there.regularization < ahead.regularization


@pytest.mark.parametrize("scheme", ["resnet", "dg2"])
@pytest.mark.parametrize("kind", ["tracking", "learned outputs"])
def test_the_same_on_any_number_of_ranks(scheme: str, kind: str) -> None:
    here, alone = (gram_point(comm, scheme=scheme, **KINDS[kind]) for comm in (WORLD, SELF))
    assert here.objective == pytest.approx(alone.objective, rel=1e-13)
    assert here.gradient_norm == pytest.approx(alone.gradient_norm, rel=1e-13)
    for make in (
        lambda at: at.gradient,
        lambda at: at.hessian_action(at.problem.controls.random_direction(5)),
    ):
        mine, other = (at.problem.controls.values(make(at)) for at in (here, alone))
        assert relative(mine.q, other.q) < 1e-12
        if mine.outputs is not None:
            assert relative(mine.outputs, other.outputs) < 1e-12
            assert relative(mine.offsets, other.offsets) < 1e-12


def test_vectors_and_values_are_inverse() -> None:
    problem = gram_point(loss="mse", learn_outputs=True).problem
    control = control_of(problem)
    again = problem.controls.coordinates(problem.controls.values(control))
    assert np.allclose(again, control, rtol=1e-15, atol=0)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"kernel": False}, "kernel is not a control"),
        ({"mask": True}, "mask"),
        ({"bounds": {"bias": (-1.0, 1.0)}}, "bounds"),
        ({"regularization": (0.0, 0.1, 0.1)}, "Tikhonov"),
    ],
)
def test_says_why_a_problem_has_no_gram_form(options: dict, reason: str) -> None:
    problem = random_problem(WORLD, **options)
    assert reason in why_not(problem)
    with pytest.raises(ValueError, match=reason):
        GramProblem.of(problem)


def test_steps_are_measured_in_kernel_and_bias() -> None:
    """|z|^2 is the square length of the change of kernel and bias, the states held."""
    at = gram_point(regularization=(0.01, 0.05, 0.0))
    problem, controls, form = at.problem, at.problem.controls, at.problem.form
    z = controls.random_direction(6)
    dq = controls.q(problem.metric(at).apply(z)) / controls.bias_scale[:, :, None]
    space, omega = problem.network.space, problem.network.levels.weights
    kernel = GramOperator(space, omega, form.kernel * dq, at.state.stages).coefficients
    dense = problem.dense.controls
    change = dense.join(ControlParts(kernel, form.bias * dq.sum(2) * dense.bias_scale, None, None))
    assert dense.norm(change) == pytest.approx(1.0, rel=1e-10)


def test_repeated_inputs_make_the_metric_singular_but_finite() -> None:
    problem = random_problem(WORLD, cells=9)
    problem.inputs[:, 1] = problem.inputs[:, 0]
    problem = GramProblem.of(problem)
    at = problem.linearise(np.zeros(problem.controls.n_local))
    z = problem.controls.random_direction(1)
    step = problem.metric(at).apply(z)
    assert np.all(np.isfinite(step))
    # What the metric cannot see does not move the objective either.
    blocks = problem.controls.q(step)
    hidden = np.zeros_like(step)
    problem.controls.q(hidden)[..., 0] = blocks[..., 0]
    problem.controls.q(hidden)[..., 1] = -blocks[..., 0]
    first = problem.linearise(1e-3 * hidden / problem.controls.norm(hidden))
    assert first.objective == pytest.approx(at.objective, rel=1e-12)
