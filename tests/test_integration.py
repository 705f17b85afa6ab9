"""Integration in depth: what the sweeps march, and its exact adjoint."""

import numpy as np
import pytest
from helpers import random_problem
from mpi4py import MPI

from fem_dnn.depth import SCHEMES
from fem_dnn.integration import integrate, integrate_back
from fem_dnn.problem import Linearisation


def linearisation(scheme: str) -> Linearisation:
    problem = random_problem(MPI.COMM_SELF, scheme=scheme, tracking=True)
    return problem.linearise(problem.controls.random(1, 0.7))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_integrates_what_the_sweep_marches(scheme: str) -> None:
    """From the slopes sigma(u) of a solved state, the state itself; slabs are of unequal size."""
    at = linearisation(scheme)
    problem, state = at.problem, at.state
    slopes = problem.network.activation(state.u)
    f = integrate(problem.network.levels, problem.inputs, slopes, tracked=True)
    space = problem.network.space
    assert np.allclose(f.ends, state.ends, rtol=0, atol=1e-13)
    assert np.allclose(f.tracked, state.tracked, rtol=0, atol=1e-13)
    assert np.allclose(f.stages * space.sqrt_weights[:, None], state.gathered, rtol=0, atol=1e-13)
    untracked = integrate(problem.network.levels, problem.inputs, slopes, tracked=False)
    assert len(untracked.tracked) == 0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_integrates_back_what_the_adjoint_marches(scheme: str) -> None:
    at = linearisation(scheme)
    adjoint, operator = at.adjoint, at.weights.operator
    slopes = np.stack([operator.apply_transpose(k, q) for k, q in enumerate(adjoint.q)])
    residuals = at.problem.tracking.weight * at.misfit
    levels, terminal = at.problem.network.levels, at.loss_point.terminal
    ends, stages = integrate_back(levels, terminal, slopes, residuals)
    assert np.allclose(ends, adjoint.ends, rtol=0, atol=1e-12)
    assert np.allclose(stages, adjoint.levels, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_is_adjoint(scheme: str, tracked: bool) -> None:
    """(Q z, (y, p, r)) = (z, Q*(y, p, r)) in the levels' inner product, for all z and y, p, r."""
    levels = linearisation(scheme).problem.network.levels
    rng = np.random.default_rng(0)
    shape = (3, 2)
    z, y = rng.standard_normal((2, levels.count, *shape))
    terminal = rng.standard_normal(shape)
    points = len(levels.tracking_t) if tracked else 0
    r = rng.standard_normal((points, *shape))
    f = integrate(levels, np.zeros(shape), z, tracked=tracked)
    ends, P = integrate_back(levels, terminal, y, r)
    depth = np.outer(levels.steps, levels.scheme.tracking_weights).ravel()[:points]
    left = np.einsum("k,kns,kns->", levels.weights, f.stages, y) + np.sum(f.ends[-1] * terminal)
    left += np.einsum("k,kns,kns->", depth, f.tracked, r)
    right = np.einsum("k,kns,kns->", levels.weights, z, P)
    assert abs(left - right) < 1e-13 * (abs(left) + abs(right))
    # and the start's part is p(0)
    start = rng.standard_normal(shape)
    constant = integrate(levels, start, np.zeros_like(z), tracked=tracked)
    left = np.einsum("k,kns,kns->", levels.weights, constant.stages, y)
    left += np.sum(constant.ends[-1] * terminal)
    left += np.einsum("k,kns,kns->", depth, constant.tracked, r)
    assert abs(left - np.sum(start * ends[0])) < 1e-13 * (abs(left) + 1)
