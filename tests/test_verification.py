"""Derivatives are exact, for everything a problem can be made of; and `verify` can fail."""

import numpy as np
import pytest
from helpers import LOSSES, SMOOTH, random_control, random_problem
from mpi4py import MPI

from fem_dnn.activations import ACTIVATIONS, Activation
from fem_dnn.controls import ControlValues
from fem_dnn.depth import SCHEMES
from fem_dnn.losses import L2Loss, LossTangent
from fem_dnn.nonlocal_operator import NonlocalOperator
from fem_dnn.verification import fitted_order, hessian_asymmetry, verify

pytestmark = pytest.mark.mpi

WORLD = MPI.COMM_WORLD


def assert_exact(problem, control=None):
    report = verify(problem, random_control(problem) if control is None else control)
    assert report.passed, str(report)
    assert "NOT" not in str(report)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    "activation",
    # An activation is pointwise: what ranks may change is the same for all.
    [SMOOTH[0], *(pytest.param(name, marks=pytest.mark.one_rank) for name in SMOOTH[1:])],
)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_exact_for_all_schemes_activations_and_losses(scheme, activation, loss) -> None:
    """Everything at once: tracking, learned outputs, unequal weights, unequal slabs."""
    assert_exact(
        random_problem(
            WORLD,
            scheme=scheme,
            activation=activation,
            loss=loss,
            learn_outputs=loss != "l2",
            tracking=True,
        )
    )


OPTIONS = {
    "plain": {},
    "given outputs": {"loss": "softmax", "outputs": 3, "seed": 4},
    "learned outputs without tracking": {"loss": "mse", "learn_outputs": True},
    "mask": {"mask": True, "tracking": True},
    "no bias": {"bias": False, "tracking": True},
    "no kernel": {"kernel": False, "tracking": True},
    "given kernel": {"kernel": False, "given": True, "tracking": True},
    "given bias": {"bias": False, "given": True, "tracking": True},
    "only outputs": {
        "kernel": False,
        "bias": False,
        "given": True,
        "loss": "softmax",
        "learn_outputs": True,
    },
    "width degree 1": {"degree": 1, "tracking": True},
    "rectangle": {"cells": (2, 2), "degree": 1, "tracking": True},
    "one sample": {"samples": 1},
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_exact_for_all_options(scheme: str, option: str) -> None:
    assert_exact(random_problem(WORLD, scheme=scheme, **OPTIONS[option]))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.one_rank
def test_exact_for_relu_away_from_the_kink(scheme: str, loss: str) -> None:
    """Half the neurons on, half off, and none near the kink for any step of the test."""
    problem = random_problem(WORLD, scheme=scheme, activation="relu", loss=loss, tracking=True)
    controls, N = problem.controls, problem.network.space.n_nodes
    switches = np.tile(2.0 * (-1.0) ** np.arange(N), (problem.network.levels.count, 1))
    control = controls.random(5, 0.1) + controls.coordinates(ControlValues(bias=switches))
    u = problem.linearise(control).state.u
    lowest = WORLD.allreduce(np.min(np.abs(u), initial=np.inf), op=MPI.MIN)
    assert lowest > 0.5
    assert_exact(problem, control)


def wrong_tanh(first: float = 1.0, second: float = 1.0) -> Activation:
    """tanh with derivatives that are off by factors."""
    tanh = ACTIVATIONS["tanh"].evaluate
    return Activation.from_functions(
        "wrong",
        np.tanh,
        lambda u: first * tanh(u, 1)[1],
        lambda u: second * tanh(u, 2)[2],
    )


def test_catches_a_wrong_gradient() -> None:
    problem = random_problem(WORLD, activation=wrong_tanh(first=1.01))
    report = verify(problem, random_control(problem))
    assert not report.passed
    assert report.taylor.first_order < 1.9
    assert "NOT exact" in str(report)


def test_catches_a_wrong_hessian() -> None:
    """The gradient is right, the Hessian symmetric but wrong: only the third order sees it."""
    problem = random_problem(WORLD, activation=wrong_tanh(second=1.1))
    report = verify(problem, random_control(problem))
    assert not report.passed
    assert report.taylor.first_order > 1.9
    assert report.taylor.second_order < 2.8
    assert max(report.hessian_asymmetry, report.adjoint_defect, report.mode_defect) < 1e-10


class _LopsidedLoss(L2Loss):
    """Its second derivative couples every sample to the next: not symmetric."""

    def at(self, f, layer=None):
        point = super().at(f, layer)
        point.tangent = lambda df, layer: LossTangent(np.roll(df, 1, axis=1))
        return point


def test_catches_an_unsymmetric_hessian() -> None:
    problem = random_problem(WORLD)
    object.__setattr__(problem, "loss", _LopsidedLoss(problem.network.space, problem.loss.targets))
    control = random_control(problem)
    d, e = (problem.controls.random_direction(k) for k in range(2))
    assert hessian_asymmetry(problem, control, d, e) > 1e-3
    assert not verify(problem, control).passed


def test_catches_a_wrong_adjoint(monkeypatch: pytest.MonkeyPatch) -> None:
    transpose = NonlocalOperator.apply_transpose
    monkeypatch.setattr(
        NonlocalOperator,
        "apply_transpose",
        lambda self, level, g, out=None: np.multiply(
            1.001, transpose(self, level, g, out), out=out
        ),
    )
    problem = random_problem(WORLD)
    report = verify(problem, random_control(problem))
    assert report.adjoint_defect > 1e-6
    assert report.mode_defect > 1e-6
    assert not report.passed


def test_fitted_order_of_known_errors() -> None:
    steps = np.array([0.1, 0.05, 0.025])
    assert abs(fitted_order(steps, 3 * steps**2) - 2) < 1e-12
    assert fitted_order(steps, np.zeros(3)) == np.inf


def test_quadratic_problem_has_no_remainder() -> None:
    """Bias only and linear: J is quadratic, so the second remainder vanishes to round-off."""
    problem = random_problem(WORLD, activation="linear", kernel=False)
    assert verify(problem, random_control(problem)).taylor.second_order == np.inf
