"""Samples a portion at a time: the same problem to round-off, in less memory, with more sweeps."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from helpers import (
    everywhere,
    l2_problem,
    make_network,
    random_control,
    random_problem,
    relative,
    uniform,
    width_space,
)
from mpi4py import MPI
from test_process_grid import CASES, problems

from fem_dnn.curvature_metric import curvature_coordinates
from fem_dnn.portions import PortionedProblem
from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.solvers import METHODS, Tolerances

WORLD = MPI.COMM_WORLD

KINDS: dict[str, dict[str, Any]] = {
    "tracking": {"tracking": True},
    "learned outputs": {"loss": "softmax", "learn_outputs": True, "outputs": 3},
    "mask, given bias": {"loss": "mse", "mask": True, "bias": False, "given": True},
    "bounds": {"bounds": {"kernel": (-0.3, 0.4)}, "loss": "logistic"},
}


def known(at: Linearisation) -> dict[str, np.ndarray]:
    """What solvers ask for, in the order in which they do, products more than once."""
    controls, inputs = at.problem.controls, at.problem.inputs
    v, w = (controls.random_direction(seed) for seed in (2, 3))
    return {
        "objective": np.array(at.objective),
        "gradient": at.gradient,
        "projected gradient norm": np.array(at.gradient_norm),
        "product": at.hessian_action(v),
        "another product": at.hessian_action(w),
        "by inputs": at.gradient_by_inputs(np.cos(inputs)),
        "losses": at.loss_point.values,
        "regularization": np.array(at.regularization),
        "state": at.state.ends,
    }


def assert_same(whole: LearningProblem, count: int, resident: int, control: np.ndarray) -> None:
    portioned = PortionedProblem.of(whole, count, resident)
    assert len(portioned.portions) == count
    expected, found = (known(of.linearise(control)) for of in (whole, portioned))
    for name, value in expected.items():
        assert relative(found[name], value) < 1e-13, name


@pytest.mark.mpi
@pytest.mark.parametrize(("count", "resident"), [(1, 0), (3, 0), (3, 2), (7, 1)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", ["resnet", "dg1"])
def test_portions_change_nothing(scheme: str, kind: str, count: int, resident: int) -> None:
    whole = random_problem(WORLD, scheme=scheme, samples=7, **KINDS[kind])
    assert_same(whole, count, resident, whole.controls.project(random_control(whole)))


@pytest.mark.mpi
@pytest.mark.parametrize("name", CASES)
def test_portions_of_groups_of_samples(name: str) -> None:
    _, grid = problems(CASES[name])
    if len(grid.problem.sample_weights) < 2:
        pytest.skip("more groups than pairs of samples")
    whole = grid.problem
    assert_same(whole, 2, 1, whole.controls.project(random_control(whole)))


@pytest.mark.mpi
def test_the_ranks_agree() -> None:
    found = []
    for comm in (WORLD, MPI.COMM_SELF):
        of = PortionedProblem.of(random_problem(comm, scheme="resnet", samples=5), 2, 1)
        at = of.linearise(random_control(of))
        found.append(everywhere(of, at.hessian_action(of.controls.random_direction(2))))
    assert relative(*found) < 1e-12


def test_what_is_made_anew_is_counted() -> None:
    whole = random_problem(MPI.COMM_SELF, scheme="resnet", samples=8)
    for resident, again in ((0, 1.0), (1, 0.75), (3, 0.25)):
        of = PortionedProblem.of(whole, 4, resident)
        of = PortionedProblem.of(of.of_samples(slice(None)), 4, resident)  # counts from zero
        at = of.linearise(random_control(of))
        _ = at.objective, at.gradient
        assert (of.work.states, of.work.adjoints) == (1, 1)
        at.hessian_action(of.controls.random_direction(2))
        at.hessian_action(of.controls.random_direction(3))
        assert (of.work.states, of.work.adjoints) == pytest.approx((1 + 2 * again, 1 + 2 * again))
        assert of.work.hessians == 2


def test_where_the_state_overflows_there_is_no_gradient() -> None:
    whole = random_problem(
        MPI.COMM_SELF, scheme="resnet", activation="linear", samples=4, points=uniform(1.0, 30)
    )
    of = PortionedProblem.of(whole, 2)
    at = of.linearise(1e300 * random_control(of))
    with np.errstate(all="ignore"):
        assert not np.isfinite(at.objective)
        assert np.all(np.isnan(at.gradient))
    assert of.work.adjoints == 0


def sines(samples: int, nodes: int = 8, layers: int = 6) -> LearningProblem:
    """Shifted sines to be turned into their cosines: smooth, and any number of samples."""
    network = make_network(
        width_space(MPI.COMM_SELF, nodes, 0), "resnet", points=uniform(1.0, layers)
    )
    x = 2 * np.pi * network.space.nodes[network.space.file_position.argsort(), 0]
    phase = np.linspace(0, 2, samples)[:, None]
    return l2_problem(network, np.sin(x + phase), np.cos(x + phase), kernel=0.02, bias=0.02)


def test_memory_is_a_portions() -> None:
    """The peak of gradient and product, by the number of samples in a portion: a line."""
    samples = 4096
    whole = sines(samples)
    control, direction = (whole.controls.random_direction(seed) for seed in (0, 1))

    def peak(of: LearningProblem) -> int:
        _ = getattr(of, "portions", None)
        tracemalloc.start()
        at = of.linearise(control)
        _ = at.gradient
        at.hessian_action(direction)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    terminal = 8 * whole.inputs.size
    counts = [2, 4, 8, 16]
    peaks = [peak(PortionedProblem.of(whole, count)) - terminal for count in counts]
    order = -np.polyfit(np.log(counts), np.log(peaks), 1)[0]
    assert 0.9 < order < 1.1, peaks
    assert peak(PortionedProblem.of(whole, 8)) < peak(whole) / 4


@pytest.mark.parametrize("method", ["newton", "lbfgs", "gradient"])
def test_a_solve_ends_at_the_same_point(method: str) -> None:
    whole = sines(60)
    start, tolerances = np.zeros(whole.controls.n_local), Tolerances(1e-9, max_iterations=2000)
    expected = METHODS[method](whole, start, tolerances)
    found = METHODS[method](PortionedProblem.of(whole, 4, 1), start, tolerances)
    assert expected.converged
    assert found.converged
    assert relative(found.control, expected.control) < 1e-6
    assert found.lowest_eigenvalue == pytest.approx(expected.lowest_eigenvalue, rel=0.3)


def test_a_typical_portion_measures_as_all_samples_do() -> None:
    """T T' of every count-th sample differs from that of all as the sums do: by O(count - 1)."""
    whole = sines(128, nodes=16, layers=8)
    control = whole.controls.random(0, 0.5)
    g = whole.controls.random_direction(1)
    inverse = curvature_coordinates(whole.linearise(control)).inverse(g)
    counts, errors = [2, 4, 8], []
    for count in counts:
        before, of = whole.work.states, PortionedProblem.of(whole, count)
        errors.append(relative(curvature_coordinates(of.linearise(control)).inverse(g), inverse))
        assert of.typical.sample_weights.sum() == pytest.approx(whole.sample_weights.sum())
        assert of.work.states - before == 1 / count
    order = np.polyfit(np.log(np.array(counts) - 1), np.log(errors), 1)[0]
    assert 0.7 < order < 1.3, errors
    assert errors[0] < 0.02


def test_more_portions_than_samples() -> None:
    with pytest.raises(ValueError, match="5 portions of 3 samples"):
        PortionedProblem.of(random_problem(MPI.COMM_SELF), 5)
