"""Infima, minimising sequences and gamma -> 0 of frozen neurons (theory.md sections 5 and 9.6)."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import fitted_order, random_problem, relative
from mpi4py import MPI

import fem_dnn
from fem_dnn import demos
from fem_dnn.activations import ACTIVATIONS
from fem_dnn.errors import BadInput
from fem_dnn.existence import (
    FrozenNeuron,
    FrozenProblem,
    Layered,
    NotFrozen,
    VelocitySet,
    assemble_exactly,
    best_constant,
    best_layers,
    lower_bound,
    minimising_sequence,
    power_law,
    refine,
    relax,
    smoothing_study,
)
from fem_dnn.existence.depth_refinement import Refined, Refinement
from fem_dnn.existence.layered import derivative_ratio
from fem_dnn.existence.minimising_sequence import turns
from fem_dnn.existence.newton_step import _ByControls, _ByStates
from fem_dnn.solvers import Tolerances, solve_newton

COMM = MPI.COMM_SELF
INFIMUM = 1.2962397
"""Theory.md 9.6, with and without tracking."""


def case_6(tracking=0.0, layers=32, name="existence"):
    settings = [f"loss.tracking={tracking}", f"mesh.depth.cells={layers}"]
    return fem_dnn.read_case(demos.folder() / f"{name}.toml", settings)


def problem_of(case):
    return FrozenProblem.of(assemble_exactly(case, COMM).problem)


def neuron_of(*arguments, **options):
    return problem_of(case_6(*arguments, **options)).neurons[0]


@pytest.fixture(scope="module")
def tracked():
    neuron = neuron_of(tracking=50.0)
    return neuron, relax(neuron)


def some_neuron(name="tanh", samples=2, tracking=1.5):
    rng = np.random.default_rng(4)
    factor = rng.standard_normal((samples, samples))
    start, targets, slope = rng.standard_normal((3, samples))
    return FrozenNeuron(
        VelocitySet.of_factor(ACTIVATIONS[name], factor),
        1.3,
        start,
        rng.uniform(1, 2, samples),
        targets,
        tracking * rng.uniform(1, 2, samples),
        start + 0.1,
        slope,
    )


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "relu"])
def test_derivatives_on_layers(name):
    """Gradient and Hessian against central differences, with tracking and smoothing."""
    problem = Layered(some_neuron(name, samples=3), 5, smoothing=0.2)
    rng = np.random.default_rng(0)
    z, d = rng.standard_normal((2, 5, 3))
    h = 1e-6
    slope = (problem.objective(z + h * d) - problem.objective(z - h * d)) / (2 * h)
    assert slope == pytest.approx(float(np.sum(problem.gradient(z) * d)), rel=1e-7)
    change = (problem.gradient(z + h * d) - problem.gradient(z - h * d)) / (2 * h)
    assert relative(problem.hessian(z) @ d.ravel(), change.ravel()) < 1e-7


def test_the_banded_step_is_the_full_one():
    problem = Layered(some_neuron("tanh", samples=2), 7, smoothing=0.2)
    z = np.random.default_rng(1).standard_normal((7, 2))
    slopes = 1 - np.tanh(problem.neuron.velocities.u(z)) ** 2
    g = problem.gradient(z).ravel()
    for shift in (50.0, 100.0):
        banded = _ByStates(problem, z, slopes)(g, shift)
        assert relative(banded, _ByControls(problem, z)(g, shift)) < 1e-11


def test_layers_are_those_of_the_program(tracked):
    """J on layers is the learning problem's with exact tracking, and so are its minimisers."""
    problem = problem_of(case_6(tracking=50.0, layers=12))
    neuron = problem.neurons[0]
    layered = Layered(neuron, 12)
    z = np.random.default_rng(2).standard_normal((12, 2))
    J = problem.objective({0: layered.objective(z)})
    at = problem.problem.linearise(problem.control({0: z}))
    assert at.objective == pytest.approx(J, rel=1e-13)
    best = best_layers(layered, tracked[1], trials=20)
    at = problem.problem.linearise(problem.control({0: best.z}))
    assert best.strict
    assert at.gradient_norm < 1e-12
    solution = solve_newton(problem.problem, at.control, Tolerances(0.0, 1e-11, 5))
    assert solution.converged
    assert solution.lowest_eigenvalue > 0
    assert solution.objective == pytest.approx(at.objective, abs=1e-14)


def test_case_6_without_tracking():
    """9.6: the best constant control gives 1.3031064, one switch attains 1.2962397."""
    problem = problem_of(case_6())
    neuron = problem.neurons[0]
    constant = best_constant(neuron)
    assert constant.objective == pytest.approx(1.3031064, abs=5e-8)
    relaxed = relax(neuron)
    assert relaxed.upper == pytest.approx(INFIMUM, abs=5e-8)
    assert 0 <= relaxed.upper - relaxed.lower < 5e-11
    assert relaxed.mixed == 2
    # One switch, in the program itself, its depth graded so that the switch is a slab end.
    (shares,), (atoms,) = relaxed.shares, relaxed.atoms
    case = case_6().as_dict()
    case["mesh"]["depth"] = {"length": None, "points": [0.0, float(shares[0]), 1.0]}
    case["mesh"]["depth"].pop("length")
    model = fem_dnn.assemble(fem_dnn.Case.parse(case), COMM)
    switched = FrozenProblem.of(model.problem).control({0: atoms[:2]})
    at = model.problem.linearise(switched)
    assert at.objective == pytest.approx(relaxed.upper, abs=1e-12)
    assert at.gradient_norm < 1e-6


def test_case_6_with_tracking(tracked):
    """9.6: the infimum stays; the best gaps known, 16 and 32 layers; decay and growth."""
    neuron, relaxed = tracked
    assert relaxed.upper == pytest.approx(INFIMUM, abs=5e-8)
    assert relaxed.upper - relaxed.lower < 5e-9
    sequence = minimising_sequence(neuron, relaxed, (16, 32, 64), trials=250, seed=1)
    gaps = [term.gap for term in sequence.terms]
    assert gaps[0] <= 1.6753e-3
    assert gaps[1] <= 4.566e-4
    assert gaps[2] <= 1.30e-4
    assert all(
        term.minimum.strict and term.minimum.gradient_norm < 1e-12 for term in sequence.terms
    )
    assert sequence.decay.exponent == pytest.approx(-2.0, abs=0.25)
    assert sequence.growth.exponent == pytest.approx(1.0, abs=0.1)
    assert "oscillate ever faster" in sequence.explanation


def test_bounds_of_the_infimum_hold_at_any_velocities(tracked):
    """The lower bound is valid wherever it is taken, and sharp at the relaxed minimum."""
    neuron, relaxed = tracked
    problem = Layered(neuron, 4)
    rng = np.random.default_rng(0)
    for scale in (0.0, 0.01, 0.1):
        v = relaxed.velocities + scale * rng.uniform(-1, 1, (4, 2))
        bound = lower_bound(problem, v, 1e-10)[0]
        assert bound <= relaxed.upper + 1e-12
        if scale == 0:
            assert bound == pytest.approx(relaxed.upper, abs=1e-8)
        else:
            assert bound < relaxed.upper - 1e-5 * scale


def test_targets_out_of_reach_close_the_bounds_at_second_order():
    """Tracking what constant velocities cannot: the bracket of inf J shrinks with the layers."""
    neuron = replace(neuron_of(tracking=50.0), slope=np.array([0.3, 0.3]))
    brackets = [relax(neuron, layers) for layers in (2, 4)]
    widths = [found.upper - found.lower for found in brackets]
    assert max(found.lower for found in brackets) < min(found.upper for found in brackets)
    assert widths[1] > 0
    assert fitted_order((2, 4), widths) > 1.6


def test_one_sample_needs_no_oscillation():
    """S = 1 is convex: one control attains the infimum, and more layers gain nothing."""
    neuron = some_neuron("tanh", samples=1, tracking=0.0)
    relaxed = relax(neuron)
    assert relaxed.mixed == 1
    assert relaxed.upper == pytest.approx(best_constant(neuron).objective, abs=1e-10)
    assert best_layers(Layered(neuron, 8), relaxed).objective >= relaxed.lower
    assert "one control per depth attains it" in relaxed.explanation


RHO, LAMBDA, OMEGA, MU = 0.7, 0.5, 8.0, 10.0
"""The ReLU example of demos/existence_relu.toml."""


def test_relu_in_closed_form():
    """docs/existence.md: inf J = 2 lambda omega / (2 lambda + omega); the best constant control
    moves both samples at once, or one."""
    neuron = neuron_of(name="existence_relu")
    relaxed = relax(neuron)
    exact = 2 * LAMBDA * OMEGA / (2 * LAMBDA + OMEGA)
    assert relaxed.upper == pytest.approx(exact, abs=1e-12)
    assert relaxed.lower == pytest.approx(exact, abs=5e-11)
    assert relaxed.velocities[0] == pytest.approx(np.full(2, 8 / 9), abs=1e-7)
    both = LAMBDA * OMEGA / (LAMBDA + OMEGA * (1 - RHO))
    assert best_constant(neuron).objective == pytest.approx(both, abs=1e-12)


def test_relu_takes_turns_in_closed_form():
    """With tracking the layers that take turns are mu v^2 / (3 N^2) above the infimum."""
    neuron = neuron_of(tracking=MU, name="existence_relu")
    relaxed = relax(neuron)
    v = OMEGA / (2 * LAMBDA + OMEGA)
    for N in (8, 16):
        problem = Layered(neuron, N)
        z = neuron.velocities.controls(2 * v * np.array([[1, -RHO], [-RHO, 1]]))
        gap = problem.objective(np.tile(z, (N // 2, 1))) - 2 * LAMBDA * v
        assert gap == pytest.approx(MU * v**2 / (3 * N**2), rel=1e-10)
        best = problem.minimise(turns(problem, relaxed))
        assert 0 < best.objective - relaxed.lower < gap
        moving = neuron.velocities.velocity(best.z) > 0
        assert np.all(moving.sum(axis=1) == 1)  # one sample at a time


def test_gamma_restores_a_minimiser(tracked):
    """gamma > 0: J_gamma falls to inf J as gamma^{1/2} without tracking, with it as gamma^{1/3}."""
    neuron = neuron_of()
    ratios = np.geomspace(1e-3, 5e-5, 3)
    plain = smoothing_study(neuron, relax(neuron), ratios, 64, turning=(1, 4))
    assert plain.decay.exponent == pytest.approx(1 / 2, abs=0.03)
    ratios = np.geomspace(2e-5, 5e-7, 3)
    study = smoothing_study(*tracked, ratios, 192, turning=(12, 16, 24))
    assert study.decay.exponent == pytest.approx(1 / 3, abs=0.06)
    for term in (*plain.terms, *study.terms):
        assert term.minimum.strict
        assert term.minimum.gradient_norm < 1e-10
        assert term.gap > 0
    assert "every gamma has a smooth minimiser" in study.explanation


def test_smooth_minimisers_do_not_depend_on_the_layers(tracked):
    """At one gamma the derivative settles as the layers grow; with gamma = 0 it doubles."""
    settled, grown = [], []
    for N in (48, 96):
        start = np.repeat(turns(Layered(tracked[0], 16), tracked[1]), N // 16, axis=0)
        z = Layered(tracked[0], N, smoothing=1e-5).minimise(start).z
        settled.append(derivative_ratio(z, 1.0))
        free = Layered(tracked[0], N)
        grown.append(derivative_ratio(free.minimise(turns(free, tracked[1])).z, 1.0))
    assert settled[1] == pytest.approx(settled[0], rel=0.1)
    assert grown[1] == pytest.approx(2 * grown[0], rel=0.1)


def test_an_exact_reading_of_the_tracking_term(tracked):
    """In the middle of the layers an oscillation looks better than it is: by tau |dv|^2 / 12."""
    case = case_6(tracking=50.0, layers=16)
    exact = problem_of(case)
    best = best_layers(Layered(exact.neurons[0], 16), tracked[1], trials=0)
    control = exact.control({0: best.z})
    midpoint = fem_dnn.assemble(case, COMM).problem.linearise(control).objective
    v = exact.neurons[0].velocities.velocity(best.z) - exact.neurons[0].slope
    missing = 25.0 / 16**3 * float(np.sum(v**2)) / 12
    assert exact.problem.linearise(control).objective - midpoint == pytest.approx(missing, rel=1e-9)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "a kernel mask has to hold them"),
        ({"mask": True, "bias": False}, "reads one that moves"),
        ({"loss": "mse", "kernel": False}, "only l2"),
        ({"kernel": False, "given": True}, "given, not trained"),
        ({"kernel": False, "tracking": True}, "not affine"),
        ({"kernel": False, "bounds": {"bias": (-1.0, 1.0)}}, "box bounds"),
    ],
)
def test_what_is_not_frozen_says_so(options, why):
    with pytest.raises(NotFrozen, match=why):
        FrozenProblem.of(random_problem(COMM, scheme="resnet", **options))


def test_bias_only_is_frozen():
    """Section 9.2: every neuron is one of its own; K = 1 / lambda_b whatever the states."""
    problem = random_problem(COMM, scheme="resnet", kernel=False, samples=2)
    frozen = FrozenProblem.of(problem)
    assert sorted(frozen.neurons) == [0, 1, 2, 3]
    rng = np.random.default_rng(0)
    z = {node: np.repeat(rng.standard_normal((1, 1)), 3, axis=0) for node in frozen.neurons}
    parts = {n: Layered(frozen.neurons[n], 3).objective(z[n]) for n in z}
    J = problem.linearise(frozen.control(z)).objective
    assert frozen.objective(parts) == pytest.approx(J, rel=1e-12)


def test_other_schemes_have_their_own_tracking():
    case = fem_dnn.Case.parse({**case_6().as_dict(), "network": {"depth_scheme": "dg1"}})
    with pytest.raises(BadInput, match=r"network\.depth_scheme"):
        assemble_exactly(case, COMM)


@pytest.mark.mpi
def test_refinement_of_any_case():
    """Where the problem is convex the controls settle; the derivative does not depend on ranks."""
    case = fem_dnn.Case.parse(
        {
            "mesh": {
                "width": {"shape": "interval", "length": 1.0, "cells": 2},
                "depth": {"length": 1.0, "cells": 2},
            },
            "network": {"depth_scheme": "resnet"},
            "data": {"inputs": ["1 + x"], "targets": ["2 - x"]},
            "solver": {"escape": False},
        }
    )
    found = refine(case, (1, 2, 4))
    assert all(term.converged for term in found.terms)
    assert [(term.layers, term.nodes) for term in found.terms] == [(2, 2), (4, 2), (8, 2)]
    assert found.grows is False
    assert "the controls settle" in found.explanation
    finer = refine(case, (1, 2), width=True, request=fem_dnn.Request(comm=COMM)).terms[1]
    assert (finer.layers, finer.nodes) == (4, 4)
    solution = fem_dnn.solve(case, fem_dnn.Request(comm=COMM)).solution
    a = solution.problem.controls.values(solution.control).kernel
    exact = np.linalg.norm(a[1] - a[0]) / (0.5 * np.linalg.norm(a))
    assert found.terms[0].derivative == pytest.approx(exact, rel=1e-5)


def test_growth_is_told_from_settling():
    def refinement(*ratios):
        terms = [Refined(2**k, 2, 1.0, r, True, None) for k, r in enumerate(ratios)]
        return Refinement(terms, power_law([t.layers for t in terms], ratios))

    assert refinement(1.9, 2.4, 3.1).grows
    assert "oscillate more" in refinement(1.9, 2.4, 3.1).explanation
    assert refinement(0.48, 0.47, 0.47).grows is False
    assert refinement(1.0, 1.5, 1.7).grows is False
    assert refinement(1.0, 1.5).grows is None
