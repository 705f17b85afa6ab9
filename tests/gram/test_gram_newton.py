"""Newton's method in Gram form finds what it finds in the dense form, in as many steps."""

from collections.abc import Callable

import numpy as np
import pytest
from helpers import l2_problem, make_network, relative, uniform, width_space
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn import curvature_metric
from fem_dnn.controls import ControlSpace
from fem_dnn.gram import GramProblem
from fem_dnn.problem import LearningProblem
from fem_dnn.solvers import Solution, Tolerances, solve_newton
from fem_dnn.solvers.curvature import lowest_eigenpair
from fem_dnn.solvers.petsc import PetscProblem

pytestmark = pytest.mark.mpi

Array = NDArray[np.float64]

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF


def smooth_problem(
    comm: MPI.Comm = WORLD,
    *,
    scheme: str = "resnet",
    activation: str = "tanh",
    cells: int = 24,
    samples: int = 3,
    layers: int = 5,
    kernel: float = 1e-2,
    bias: float | None = 1e-2,
    repeated: bool = False,
) -> LearningProblem:
    space = width_space(comm, cells)
    network = make_network(space, scheme, activation, points=uniform(1.0, layers))
    s, x = np.arange(samples)[:, None], space.nodes[:, 0]
    inputs = np.sin(np.pi * (1 + s) * x + 0.3 * s)
    targets = (0.5 + 0.1 * s) * np.cos(np.pi * (1 + s) * x)
    if repeated:
        inputs[1] = inputs[0]
    return l2_problem(network, inputs, targets, kernel=kernel, bias=bias)


def solved(problem: LearningProblem, rtol: float = 1e-9, **options) -> Solution:
    return solve_newton(problem, np.zeros(problem.controls.n_local), Tolerances(rtol), **options)


CASES = {
    "resnet": {},
    "dg1": {"scheme": "dg1", "activation": "sigmoid", "layers": 2, "cells": 12, "samples": 2},
    "no bias": {"bias": None, "activation": "softplus"},
    "unequal weights": {"kernel": 2e-3, "bias": 5e-2},
    "repeated inputs": {"repeated": True},
}


@pytest.mark.parametrize("case", CASES)
def test_solution_is_the_dense_solution(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Counts are compared with those of the dense form in its own L2 metric.
    monkeypatch.setattr(curvature_metric, "FEW_CONTROLS", 10**9)
    dense = smooth_problem(**CASES[case])
    expected, found = solved(dense), solved(GramProblem.of(dense))
    assert expected.converged and found.converged, found.reason
    assert "a local minimiser" in found.reason
    assert found.objective == pytest.approx(expected.objective, rel=1e-10)
    assert found.initial_gradient_norm == pytest.approx(expected.initial_gradient_norm, rel=1e-13)
    there = found.at.dense()
    assert there.gradient_norm < 1.1e-9 * expected.initial_gradient_norm
    assert relative(there.control, expected.control) < 1e-6
    # The metric makes the Gram form as well conditioned as the dense one is in L2.
    metric = found.problem.metric(found.at)

    def by_metric(z: Array) -> Array:
        out = np.empty_like(z)
        found.at.hessian_in(metric, z, out)
        return out

    steps = cg_steps(found.problem.controls, by_metric)
    assert steps <= 1.3 * cg_steps(there.problem.controls, there.hessian_action) + 5
    assert found.iterations <= expected.iterations + 3
    assert found.linear_iterations <= 2 * expected.linear_iterations + 5


def cg_steps(controls: ControlSpace, product: Callable[[Array], Array]) -> int:
    """Steps of conjugate gradients that reduce a residual in the operator's range by 1e6."""
    r = product(controls.random_direction(7))
    p, rr = r.copy(), controls.dot(r, r)
    enough = 1e-12 * rr
    for step in range(1, 1000):
        Hp = product(p)
        r -= rr / controls.dot(p, Hp) * Hp
        before, rr = rr, controls.dot(r, r)
        if rr <= enough:
            return step
        p = r + rr / before * p
    raise AssertionError("no convergence")


def test_eigenvalues_have_the_signs_of_the_dense_hessians() -> None:
    """At a saddle, the symmetric solution of carrying f to -f (theory.md section 9, case 5)."""
    space = width_space(WORLD, 8)
    network = make_network(space, "resnet", "linear", points=uniform(1.0, 8))
    f = np.full((1, 8), 2.0)
    dense = l2_problem(network, f, -f, kernel=1.0, bias=1.0, weight=20.0)
    problem = GramProblem.of(dense)
    saddle = solved(problem, escape=False)
    values = []
    for which, at in ((problem, saddle.at), (dense, saddle.at.dense())):
        petsc = PetscProblem(which)
        pair = lowest_eigenpair(petsc, at)
        assert pair is not None
        values.append(pair.value)
        petsc.destroy()
    assert values[0] < -1e-3 and values[1] < -1e-3
    # What q leaves out is no direction of descent, and one of q is one of kernel and bias.
    left, expected = solved(problem), solved(dense)
    assert left.converged and left.objective < 0.95 * saddle.objective
    assert left.objective == pytest.approx(expected.objective, rel=1e-10)


def test_the_same_on_any_number_of_ranks() -> None:
    here, alone = (solved(GramProblem.of(smooth_problem(comm))) for comm in (WORLD, SELF))
    assert here.iterations == alone.iterations
    for line, other in zip(here.history, alone.history, strict=True):
        assert line.objective == pytest.approx(other.objective, rel=1e-11)
    mine, other = (s.problem.controls.values(s.control).q for s in (here, alone))
    assert relative(mine, other) < 1e-9
