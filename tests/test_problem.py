"""The learning problem against an independent implementation, and on any number of ranks."""

import numpy as np
import pytest
from helpers import (
    GRADED,
    LOSSES,
    everywhere,
    in_file_order,
    random_control,
    random_problem,
    relative,
)
from mpi4py import MPI
from scipy.special import expit, logsumexp

from fem_dnn.controls import ControlValues
from fem_dnn.depth import SCHEMES
from fem_dnn.problem import LearningProblem

pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF


def residual_network_objective(problem: LearningProblem, values: ControlValues) -> float:
    """J of `resnet` by a plain loop over layers, as anyone would write it (on one rank)."""
    space, w = problem.network.space, problem.sample_weights
    h, f = space.node_weights, in_file_order(space, problem.inputs)
    J = 0.0
    tracked = problem.tracking
    for n, tau in enumerate(np.diff(GRADED)):
        f_next = f + tau * np.tanh((f * h) @ values.kernel[n].T + values.bias[n])
        if tracked is not None:
            misfit = (f + f_next) / 2 - in_file_order(space, tracked.targets)[n]
            J += 0.5 * tracked.weight * tau * w @ (misfit**2 @ h)
        J += 0.5 * 0.01 * tau * h @ values.kernel[n] ** 2 @ h
        J += 0.5 * 0.02 * tau * h @ values.bias[n] ** 2
        f = f_next
    loss = problem.loss
    if values.outputs is None:
        g = in_file_order(space, loss.targets)
        return J + 0.5 * 1.3 * w @ ((f - g) ** 2 @ h)
    z = (values.outputs * h) @ f.T + values.offsets[:, None]
    ell = {
        "mse": lambda y: 0.5 * np.sum((z - y) ** 2, axis=0),
        "logistic": lambda y: -np.log(expit(y * z))[0],
        "softmax_cross_entropy": lambda y: logsumexp(z, axis=0) - np.sum(z * y, axis=0),
    }[loss.pointwise.__name__](loss.targets)
    J += 0.5 * 0.03 * (np.sum(values.outputs**2 @ h) + np.sum(values.offsets**2))
    return J + 1.3 * w @ ell


@pytest.mark.parametrize("degree", [0, 1])
@pytest.mark.parametrize("loss", LOSSES)
def test_resnet_is_a_residual_network(loss: str, degree: int) -> None:
    build = {
        "scheme": "resnet",
        "loss": loss,
        "degree": degree,
        "tracking": True,
        "learn_outputs": loss != "l2",
    }
    alone, shared = random_problem(SELF, **build), random_problem(WORLD, **build)
    values = alone.controls.values(random_control(alone))
    expected = residual_network_objective(alone, values)
    assert abs(shared.objective(random_control(shared)) - expected) < 1e-13 * expected


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_same_on_any_number_of_ranks(scheme: str, loss: str) -> None:
    """Objective, states, gradient and Hessian action, compared in file order."""
    build = {
        "scheme": scheme,
        "loss": loss,
        "tracking": True,
        "learn_outputs": loss != "l2",
        "degree": 1,
        "samples": 4,
        "mask": loss == "mse",
    }
    shared, alone = (random_problem(comm, **build) for comm in (WORLD, SELF))
    at, ref = (p.linearise(random_control(p)) for p in (shared, alone))
    assert abs(at.objective - ref.objective) < 1e-13 * ref.objective
    assert abs(at.loss - ref.loss) < 1e-13 * ref.loss
    ends = in_file_order(shared.network.space, at.state.ends)
    assert relative(ends, in_file_order(alone.network.space, ref.state.ends)) < 1e-13
    ends = in_file_order(shared.network.space, at.adjoint.ends)
    assert relative(ends, in_file_order(alone.network.space, ref.adjoint.ends)) < 1e-12
    assert relative(everywhere(shared, at.gradient), everywhere(alone, ref.gradient)) < 1e-12
    assert abs(at.gradient_norm - ref.gradient_norm) < 1e-12 * ref.gradient_norm
    Hd, ref_Hd = (
        everywhere(p, a.hessian_action(p.controls.random_direction(1)))
        for p, a in ((shared, at), (alone, ref))
    )
    assert relative(Hd, ref_Hd) < 1e-12


def test_same_on_any_number_of_ranks_over_a_rectangle() -> None:
    shared, alone = (
        random_problem(comm, cells=(3, 2), degree=1, loss="softmax") for comm in (WORLD, SELF)
    )
    at, ref = (p.linearise(random_control(p)) for p in (shared, alone))
    assert abs(at.objective - ref.objective) < 1e-13 * ref.objective
    assert relative(everywhere(shared, at.gradient), everywhere(alone, ref.gradient)) < 1e-12


def test_a_repeated_sample_counts_by_its_weight() -> None:
    """Weights are used as given: two halves of a sample are that sample."""
    problem = random_problem(WORLD, samples=1)
    twice = random_problem(WORLD, samples=1)
    for name, value in {
        "inputs": np.repeat(problem.inputs, 2, axis=1),
        "sample_weights": np.repeat(problem.sample_weights / 2, 2),
    }.items():
        object.__setattr__(twice, name, value)
    object.__setattr__(twice.loss, "targets", np.repeat(problem.loss.targets, 2, axis=1))
    control = random_control(problem)
    at, at_twice = problem.linearise(control), twice.linearise(control)
    assert abs(at.objective - at_twice.objective) < 1e-14 * at.objective
    assert relative(everywhere(twice, at_twice.gradient), everywhere(problem, at.gradient)) < 1e-13


def test_given_and_trained_weights_are_the_same_network() -> None:
    """A kernel given by hand and the same kernel as a control lead to the same states."""
    both = random_problem(WORLD)
    given = random_problem(WORLD, kernel=False, given=True)
    control = random_control(both)
    parts = both.controls.split(control)
    weights = both.direction(parts)
    object.__setattr__(given.given, "operator", weights.operator)
    bias_only = control[both.controls.blocks["bias"]]
    assert np.array_equal(given.linearise(bias_only).state.ends, both.linearise(control).state.ends)


def test_work_is_counted_and_nothing_computed_twice() -> None:
    problem = random_problem(WORLD)
    at = problem.linearise(random_control(problem))
    for _ in range(2):
        at.objective, at.gradient, at.gradient_norm  # noqa: B018
        at.hessian_action(at.gradient)
    work = problem.work
    assert (work.states, work.adjoints, work.hessians) == (1, 1, 2)


def test_masked_gradient_is_the_gradient_without_the_masked_entries() -> None:
    masked, free = (random_problem(WORLD, mask=mask) for mask in (True, False))
    values = masked.controls.values(random_control(masked))
    control = free.controls.coordinates(values)
    at_masked = masked.linearise(masked.controls.coordinates(values))
    at_free = free.linearise(control)
    assert abs(at_masked.objective - at_free.objective) < 1e-14 * at_free.objective
    g, full = masked.controls.values(at_masked.gradient), free.controls.values(at_free.gradient)
    connected = values.kernel[0] != 0
    assert not connected.all()
    assert np.all(g.kernel[:, ~connected] == 0)
    assert relative(g.kernel[:, connected], full.kernel[:, connected]) < 1e-13
    assert relative(g.bias, full.bias) < 1e-13
