"""The lowest Hessian eigenvalue, against a dense eigenvalue solver."""

import numpy as np
import pytest
from helpers import random_control, random_problem
from mpi4py import MPI

from fem_dnn.assembly import assemble
from fem_dnn.case import Case
from fem_dnn.solvers import curvature
from fem_dnn.solvers.curvature import lowest_eigenpair, signed_lowest_eigenpair
from fem_dnn.solvers.newton import solve_newton
from fem_dnn.solvers.petsc import PetscProblem

pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF


def problem_on(comm=WORLD, **options):
    return random_problem(comm, scheme="resnet", cells=3, **options)


def dense_spectrum(problem, control) -> np.ndarray:
    """On one rank: all eigenvalues from one Hessian product per unknown."""
    at = problem.linearise(control)
    H = np.stack([at.hessian_action(e) for e in np.eye(problem.controls.n_global)])
    assert np.allclose(H, H.T, rtol=0, atol=1e-12)
    return np.linalg.eigvalsh(H)


SMOOTH = {"regularization": (0.01, 0.02, 0.03, 0.0, 0.05, 0.02, 0.004, 0.03)}
"""Derivatives penalised: Davidson's method in place of Lanczos's."""


def test_most_eigenvalues_are_not_taken_for_the_lowest() -> None:
    """With strong weights most are the weight itself; residuals are small there on the way."""
    inputs = [f"sin(pi*{1 + k / 12:.3f}*x + {k * k / 7:.3f})" for k in range(12)]
    case = Case.parse(
        {
            "mesh": {
                "width": {"shape": "interval", "length": 1.0, "cells": 16},
                "depth": {"length": 1.0, "cells": 4},
            },
            "network": {"activation": "tanh", "depth_scheme": "resnet"},
            "data": {"inputs": inputs, "targets": [f"({each})**2" for each in inputs]},
            "regularization": {"kernel": 0.3, "bias": 0.3},
            "solver": {"representation": "dense"},
        }
    )
    model = assemble(case, WORLD)
    assert model.problem is not None
    at = solve_newton(model.problem, model.initial, escape=False).at
    petsc = PetscProblem(model.problem)
    lowest = lowest_eigenpair(petsc, at, tolerance=1e-6)
    signed = signed_lowest_eigenpair(petsc, at, 1e-5)
    assert lowest is not None and signed is not None
    assert 0 < lowest.value < 0.27
    assert signed.value == pytest.approx(lowest.value, rel=0.05)


@pytest.mark.parametrize(
    "options", [{}, {"loss": "mse", "learn_outputs": True, "mask": True}, SMOOTH]
)
def test_lowest_eigenpair(options: dict) -> None:
    alone, problem = problem_on(SELF, **options), problem_on(**options)
    exact = dense_spectrum(alone, random_control(alone))
    assert exact[0] < 0  # random controls are no minimiser
    petsc = PetscProblem(problem)
    at = problem.linearise(random_control(problem))
    pair = lowest_eigenpair(petsc, at, tolerance=1e-8)
    assert abs(pair.value - exact[0]) < 1e-10
    assert abs(problem.controls.norm(pair.vector) - 1) < 1e-14
    defect = at.hessian_action(pair.vector) - pair.value * pair.vector
    assert problem.controls.norm(defect) == pytest.approx(pair.residual, abs=1e-14)
    assert pair.residual < 1e-8

    signed = signed_lowest_eigenpair(petsc, at, 1e-5)
    assert signed.value < 0 and abs(signed.value) > 4 * signed.residual
    petsc.destroy()


def test_positive_curvature_is_certain_of_its_sign() -> None:
    """Without influence on the loss the Hessian is the Tikhonov term: its lowest weight."""
    problem = problem_on(activation="linear", kernel=False, regularization=(0.0, 0.02, 0.0))
    petsc = PetscProblem(problem)
    at = problem.linearise(random_control(problem))
    pair = signed_lowest_eigenpair(petsc, at, 2e-5)
    petsc.destroy()
    # Linear and bias only: H = lambda I plus a positive operator with a kernel.
    assert pair.value == pytest.approx(0.02, abs=4 * pair.residual + 1e-12)
    assert pair.value > 4 * pair.residual


def test_limit_of_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the shortest basis that memory can force, one restart does not reach round-off."""
    monkeypatch.setattr(curvature, "MEMORY_BYTES", 0)
    problem = random_problem(WORLD, cells=8, samples=8, tracking=True)
    petsc = PetscProblem(problem)
    at = problem.linearise(random_control(problem))
    assert lowest_eigenpair(petsc, at, tolerance=1e-14, max_restarts=1) is None
    assert lowest_eigenpair(petsc, at, tolerance=1e-6) is not None
    petsc.destroy()
