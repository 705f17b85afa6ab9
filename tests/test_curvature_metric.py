"""Coordinates in which the Hessian is nearly a multiple of the identity."""

import numpy as np
import pytest
from helpers import (
    assert_is_its_inverse,
    assert_same_inverses,
    assert_transposes,
    random_control,
    random_problem,
    uniform,
)
from mpi4py import MPI

from fem_dnn import curvature_metric, gauss_newton
from fem_dnn.curvature_metric import CurvatureMetric, why_not
from fem_dnn.solvers import Tolerances, solve_newton

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF

CASES = [
    {},
    {"loss": "softmax", "outputs": 3, "learn_outputs": True},
    {"loss": "logistic", "kernel": False},
    {"loss": "mse", "bias": False, "regularization": (0.01, 0.0, 0.0)},
    {"scheme": "resnet", "tracking": True, "samples": 9},
    {"cells": 6, "samples": 20},
    {"loss": "softmax", "outputs": 4, "samples": 50},
    {"mask": True, "samples": 4},
    {"mask": True, "loss": "logistic", "bias": False, "regularization": (0.01, 0.0, 0.0)},
]


def metric_at(problem) -> CurvatureMetric:
    return CurvatureMetric(problem.linearise(random_control(problem)))


@pytest.fixture(autouse=True)
def many_outputs_are_looked_at_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauss_newton, "NEAR", np.inf)


@pytest.fixture
def everything_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curvature_metric, "SEEN", 1e-13)


@pytest.mark.parametrize("options", CASES)
def test_transpose_and_inverse(options: dict) -> None:
    problem = random_problem(WORLD, **options)
    metric = metric_at(problem)
    assert_transposes(metric, problem.controls)
    assert_is_its_inverse(metric)


@pytest.mark.mpi
@pytest.mark.parametrize("options", CASES)
def test_is_the_same_on_any_number_of_ranks(options: dict) -> None:
    problems = [random_problem(comm, **options) for comm in (WORLD, SELF)]
    assert_same_inverses([(metric_at(problem), problem.controls) for problem in problems])


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "l2"},
        {"loss": "l2", "samples": 6, "cells": 3},
        {"loss": "mse", "outputs": 2},
        {"loss": "mse", "outputs": 2, "mask": True},
        {"loss": "l2", "mask": True},
        {"loss": "logistic", "regularization": (0.01, 0.002, 0.0)},
    ],
)
def test_is_exact_where_levels_are_not_coupled(options: dict, everything_is_seen: None) -> None:
    """One layer and, put in by hand, a convex Hamiltonian: T' H T = s I."""
    problem = random_problem(SELF, scheme="resnet", points=uniform(1.0, 1), **options)
    at = problem.linearise(random_control(problem))
    vars(at)["curvature"] = np.abs(at.curvature)
    metric = CurvatureMetric(at)
    z = problem.controls.random_direction(5)
    image = metric.apply_transpose(at.hessian_action(metric.apply(z)))
    assert problem.controls.norm(image - metric.weight * z) < 1e-6 * metric.weight


@pytest.mark.parametrize("loss", ["l2", "softmax"])
def test_hessian_is_close_to_a_multiple_of_the_identity(loss: str) -> None:
    """At a minimiser: all but a few eigenvalues of T' H T / s are near 1; in L2 they are not."""
    problem = random_problem(
        SELF, scheme="resnet", loss=loss, cells=6, points=uniform(2.0, 6), samples=4
    )
    start = random_control(problem)
    at = solve_newton(problem, start, Tolerances(rtol=1e-6)).at
    metric = CurvatureMetric(at)
    units = np.eye(problem.controls.n_local)
    plain = np.stack([at.hessian_action(unit) for unit in units])
    image = np.stack([metric.apply_transpose(at.hessian_action(metric.apply(u))) for u in units])
    spectra = [np.linalg.eigvalsh(matrix) for matrix in (plain, image)]
    spread = [np.mean(np.abs(s / metric.weight - 1) > 0.5) for s in spectra]
    assert spread[1] < 0.3 * spread[0]
    assert spectra[1][-1] < 3 * metric.weight < 0.3 * spectra[0][-1]


@pytest.mark.mpi
@pytest.mark.parametrize("overflow", [np.nan, np.inf, 1e300])
@pytest.mark.parametrize("loss", ["l2", "logistic"])
def test_one_node_that_overflows_leaves_no_rank_waiting(loss: str, overflow: float) -> None:
    problem = random_problem(WORLD, loss=loss, kernel=False)
    at = problem.linearise(random_control(problem))
    if WORLD.rank == WORLD.size - 1:
        at.curvature[:, 0] = overflow
        at.curvature[:, 0, 1:] *= -1
        if loss == "l2":
            at.state.slope[:, 0] = np.nan
    metric = CurvatureMetric(at)
    image = metric.apply(problem.controls.random_direction(1))
    assert np.all(np.isfinite(image))


def test_what_has_none_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(SELF)
    assert "few" in str(why_not(problem))
    monkeypatch.setattr(curvature_metric, "FEW_CONTROLS", 10)
    assert why_not(problem) is None
    for options, reason in (
        ({"regularization": (0.01, 0.02, 0.0, 0.0, 0.0, 0.0, 0.05)}, "derivatives"),
        ({"bounds": {"bias": (-1.0, 1.0)}}, "bounds"),
        ({"regularization": (0.0, 0.0, 0.0)}, "penalised"),
        ({"kernel": False, "bias": False, "given": True}, "neither"),
    ):
        lacking = random_problem(SELF, **options)
        assert reason in str(why_not(lacking))
        at = lacking.linearise(random_control(lacking))
        assert curvature_metric.curvature_metric(at) is None
