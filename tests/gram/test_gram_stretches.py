"""How the Gram form's work is cut up, by nodes and by depth, changes time and memory alone."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from helpers import l2_problem, make_network, random_problem, relative, uniform, width_space
from mpi4py import MPI
from test_gram_newton import smooth_problem, solved
from test_gram_problem import KINDS, control_of

from fem_dnn.gram import GramLinearisation, GramProblem, choice
from fem_dnn.gram.stretch import ARRAYS
from fem_dnn.solvers import Tolerances, solve_newton

WORLD = MPI.COMM_WORLD

CUTS = {
    "blocks": {"rows": 2},
    "stretches of one layer": {"layers_at_once": 1},
    "unequal stretches in blocks": {"layers_at_once": 2, "rows": 3},
}


def known(at: GramLinearisation) -> dict[str, np.ndarray]:
    """What a solver asks for, more than once where arrays are made anew."""
    controls = at.problem.controls
    v, other = (controls.random_direction(seed) for seed in (2, 3))
    gradient = at.gradient.copy()
    first = at.hessian_action(v)
    moved = at.moved(0.3 * v)
    there = at.problem.linearise(moved)
    return {
        "objective": np.array(at.objective),
        "gradient norm": np.array(at.gradient_norm),
        "gradient": gradient,
        "product": first,
        "moved": moved,
        "there": there.gradient,
        "another product": at.hessian_action(other),
        "state": at.state.ends,
        "u": at.state.u,
    }


@pytest.mark.mpi
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("kind", ["tracking", "given bias", "learned outputs"])
@pytest.mark.parametrize("scheme", ["resnet", "dg1"])
def test_cuts_change_nothing(scheme: str, kind: str, cut: str) -> None:
    dense = random_problem(WORLD, scheme=scheme, cells=9, **KINDS[kind])
    whole, pieces = (GramProblem.of(dense, **how) for how in ({"rows": 9}, CUTS[cut]))
    assert (len(whole.stretches), len(whole.form.blocks)) == (1, 1)
    assert len(pieces.stretches) > 1 or len(pieces.form.blocks) > 1 or WORLD.size > 1
    control = control_of(whole)
    expected, found = (known(p.linearise(control)) for p in (whole, pieces))
    for name, value in expected.items():
        assert relative(found[name], value) < 1e-13, name


@pytest.mark.mpi
def test_products_in_coordinates_of_the_metric() -> None:
    """T' H T z in one go, z overwritten or not, is what it is one after the other."""
    dense = random_problem(WORLD, scheme="resnet", cells=9, **KINDS["learned outputs"])
    for how in ({}, {"layers_at_once": 2}):
        problem = GramProblem.of(dense, **how)
        at = problem.linearise(control_of(problem))
        metric, z = problem.metric(at), problem.controls.random_direction(4)
        expected = metric.apply(at.hessian_action(metric.apply(z)))
        out = np.empty_like(z)
        at.hessian_in(metric, z, out)
        assert relative(out, expected) < 1e-13
        at.hessian_in(metric, z, z)
        assert np.array_equal(z, out)
        descent = -metric.apply(at.gradient)
        assert relative(at.descent_in(metric), descent) < 1e-14
        assert relative(at.descent_in(metric), descent) < 1e-14, "asked for again"


CASES = {
    "resnet": {},
    "dg1": {"scheme": "dg1", "activation": "sigmoid", "layers": 3, "cells": 6, "samples": 2},
    "repeated inputs": {"repeated": True},
    "far": {"kernel": 2e-3, "bias": 5e-2},
}


@pytest.mark.mpi
@pytest.mark.parametrize("case", CASES)
def test_newton_with_few_vectors_finds_what_petsc_finds(case: str) -> None:
    """SNES is asked for by one of its options."""
    problem = GramProblem.of(smooth_problem(**CASES[case]))
    expected = solved(problem, options={"ksp_max_it": 1000})
    found = solved(replace(problem, layers_at_once=2))
    assert found.converged and "a local minimiser" in found.reason
    assert found.objective == pytest.approx(expected.objective, rel=1e-11)
    assert relative(*(s.at.dense().control for s in (found, expected))) < 1e-6
    assert found.iterations <= expected.iterations + 2
    assert found.hessian_solves <= expected.hessian_solves


@pytest.mark.mpi
def test_newton_with_few_vectors_leaves_a_saddle() -> None:
    space = width_space(WORLD, 8)
    network = make_network(space, "resnet", "linear", points=uniform(1.0, 8))
    f = np.full((1, 8), 2.0)
    dense = l2_problem(network, f, -f, kernel=1.0, bias=1.0, weight=20.0)
    problem = GramProblem.of(dense, layers_at_once=3)
    saddle, left = solved(problem, escape=False), solved(problem)
    assert left.converged and left.objective < 0.95 * saddle.objective


def test_newton_with_few_vectors_stops_at_its_limit() -> None:
    problem = GramProblem.of(smooth_problem(MPI.COMM_SELF), layers_at_once=2)
    start = np.zeros(problem.controls.n_local)
    solution = solve_newton(problem, start, Tolerances(1e-12, 0.0, max_iterations=2))
    assert not solution.converged and solution.iterations == 2
    assert "the limit of 2 iterations" in solution.reason


def test_depth_is_cut_where_trajectories_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = smooth_problem(MPI.COMM_SELF, layers=10)
    assert choice.layers_at_once(problem) is None
    size = 8 * ARRAYS * problem.network.levels.count * problem.inputs.size
    monkeypatch.setattr(choice, "TRAJECTORY_BYTES", size - 1)
    assert choice.layers_at_once(problem) == 4
    monkeypatch.setattr(choice, "TRAJECTORY_BYTES", size)
    assert choice.layers_at_once(problem) is None


def test_memory_is_that_of_few_vectors_and_one_stretch() -> None:
    """Traced at 32 layers: what numpy holds beyond what it held before."""
    layers, at_once, cells, samples = 32, 4, 1500, 4
    space = width_space(MPI.COMM_SELF, cells)
    network = make_network(space, "resnet", points=uniform(1.0, layers))
    s, x = np.arange(samples)[:, None], space.nodes[:, 0]
    dense = l2_problem(network, np.sin((1 + s) * x), np.cos((1 + s) * x), kernel=0.1, bias=0.1)
    problem = GramProblem.of(dense, at_once)
    vector = 8 * layers * cells * samples
    node_sample = vector / layers
    stretches = layers // at_once
    # One stretch's arrays; f, w p and df at all starts; the loss's, and blocks in hand.
    beside = (ARRAYS * (at_once + 1) + 3 * stretches + 12) * node_sample

    def peak(run: Callable[[], object]) -> float:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        run()
        return tracemalloc.get_traced_memory()[1] - before

    tracemalloc.start()
    try:
        at = problem.linearise(np.zeros(problem.controls.n_local))
        metric = problem.metric(at)
        z = problem.controls.random_direction(1)
        product = peak(partial(at.hessian_in, metric, z, z))
        del at
        start = np.zeros(problem.controls.n_local)
        solve = peak(lambda: solve_newton(problem, start, Tolerances(1e-2), escape=False))
    finally:
        tracemalloc.stop()
    # The gradient, which comes first and is kept.
    assert product < vector + beside
    # Start, control, step, residual, direction, product.
    assert solve < 6 * vector + beside
    whole = 2 * ARRAYS * vector
    assert solve < 0.85 * whole
