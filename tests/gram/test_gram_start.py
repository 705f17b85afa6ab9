"""Kernels that are held as factors, and how given controls start a solve in Gram form."""

import numpy as np
import pytest
from helpers import everywhere, in_file_order, random_control, random_problem, relative
from mpi4py import MPI
from scipy.sparse import csr_array

from fem_dnn.control_transfer import transfer_values
from fem_dnn.controls import ControlValues
from fem_dnn.depth import SCHEMES
from fem_dnn.gram import GramProblem
from fem_dnn.kernel_factors import KernelFactors

pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF
KINDS = {
    "plain": {},
    "no bias": {"bias": False},
    "given bias": {"bias": False, "given": True},
    "learned outputs": {"loss": "mse", "learn_outputs": True, "degree": 1, "cells": 5},
}


def pair(comm=WORLD, **options):
    """A dense problem at a random control, and its Gram form."""
    dense = random_problem(comm, **{"cells": 7, **options})
    return dense.linearise(random_control(dense, scale=0.3)), GramProblem.of(dense)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_given_controls_become_the_ones_of_least_r_along_the_same_states(scheme, kind):
    there, problem = pair(scheme=scheme, **KINDS[kind])
    values = there.problem.controls.values(there.control)
    here = problem.linearise(problem.control_of(values))
    space = problem.network.space
    for mine, other in ((here.state.ends, there.state.ends), (here.state.u, there.state.u)):
        assert relative(in_file_order(space, mine), in_file_order(space, other)) < 1e-11
    assert here.loss == pytest.approx(there.loss, rel=1e-11)
    assert here.regularization < 0.99 * there.regularization, "random controls waste some"
    # What is of least R already stays: kernel, bias and output layer.
    kept = here.dense()
    again = problem.linearise(problem.control_of(kept.problem.controls.values(kept.control)))
    assert relative(again.dense().control, kept.control) < 1e-10


def test_the_same_on_any_ranks():
    found = []
    for comm in (WORLD, SELF):
        there, problem = pair(comm, scheme="dg1", loss="mse", learn_outputs=True)
        values = there.problem.controls.values(there.control)
        found.append(problem.controls.values(problem.control_of(values)))
    assert relative(found[0].q, found[1].q) < 1e-10
    assert relative(found[0].outputs, found[1].outputs) < 1e-14


def test_repeated_inputs_have_one_trajectory_and_any_q_that_makes_it():
    dense = random_problem(WORLD, cells=7)
    dense.inputs[:, 1] = dense.inputs[:, 0]
    there = dense.linearise(random_control(dense, scale=0.3))
    problem = GramProblem.of(dense)
    here = problem.linearise(problem.control_of(dense.controls.values(there.control)))
    assert relative(here.state.ends, there.state.ends) < 1e-10


def test_controls_that_blow_up_are_seen_to():
    dense = random_problem(WORLD, cells=5, activation="relu", scheme="resnet")
    values = dense.controls.values(random_control(dense, scale=1e200))
    problem = GramProblem.of(dense)
    with np.errstate(all="ignore"):
        assert not np.isfinite(problem.objective(problem.control_of(values)))


def factors_of(levels: int, terms: int, nodes: int, seed: int = 0) -> KernelFactors:
    rng = np.random.default_rng(seed)
    return KernelFactors(*rng.standard_normal((2, levels, terms, nodes)))


@pytest.mark.parametrize("mask", [False, True])
def test_factors_are_the_same_control_as_their_kernel(mask):
    problem = random_problem(WORLD, cells=4, degree=1, scheme="dg1", mask=mask)
    factors = factors_of(problem.network.levels.count, 3, problem.network.space.n_nodes)
    one, other = (
        problem.control_of(values)
        for values in (ControlValues(factors=factors), ControlValues(factors.values()))
    )
    assert relative(everywhere(problem, one), everywhere(problem, other)) < 1e-14
    if not mask:
        omega, h = problem.network.levels.weights, problem.network.space.node_weights
        norm = problem.controls.norm(one)
        assert omega @ factors.squares(h) == pytest.approx(norm**2, rel=1e-13)


@pytest.mark.parametrize("scheme", ["resnet", "dg1"])
def test_factors_start_the_gram_form_as_their_kernel_does(scheme):
    problem = GramProblem.of(random_problem(WORLD, cells=7, scheme=scheme))
    space, levels = problem.network.space, problem.network.levels
    factors, bias = factors_of(levels.count, 4, space.n_nodes), np.ones((levels.count, 7))
    one, other = (
        problem.controls.values(problem.control_of(values)).q
        for values in (
            ControlValues(factors=factors, bias=bias),
            ControlValues(factors.values(), bias),
        )
    )
    assert relative(one, other) < 1e-10


def test_projected_factors_are_the_projected_kernel():
    rng = np.random.default_rng(1)
    factors = factors_of(3, 2, 6)
    width = csr_array(rng.standard_normal((4, 6)))
    depth = np.array([[0.3, 0.7, 0.0], [0.0, 0.0, -1.0]])
    moved = transfer_values(ControlValues(factors=factors), width, depth).factors
    expected = transfer_values(ControlValues(factors.values()), width, depth).kernel
    assert relative(moved.values(), expected) < 1e-14
    x, y = np.array([3, 0]), np.array([1, 2, 2])
    assert relative(moved.block(1, x, y), expected[1][np.ix_(x, y)]) < 1e-14
