"""Layer-by-layer descent: the parts of the depth, and one sweep. See test_methods for the rest."""

from itertools import pairwise

import numpy as np
import pytest
from helpers import random_control, random_problem
from mpi4py import MPI

from fem_dnn.solvers import Tolerances, solve_layerwise
from fem_dnn.solvers.tail import Tails

pytestmark = pytest.mark.mpi

WORLD = MPI.COMM_WORLD


@pytest.mark.parametrize("scheme", ["resnet", "dg1"])
def test_tails_are_parts_of_the_whole(scheme: str) -> None:
    """State, cost and adjoint from a layer on, and a layer's adjoint, on unequal slabs."""
    problem = random_problem(WORLD, scheme=scheme, loss="mse", tracking=True)
    at = problem.linearise(random_control(problem))
    tails = Tails(problem, at.weights)
    tracking = problem.tracking_costs(at.misfit)
    terminal = float(problem.sample_weights @ at.loss_point.values)
    assert abs(terminal + tracking.sum() - at.loss) < 1e-14 * at.loss
    for n in range(tails.layers):
        before = problem.work.states, problem.work.adjoints
        tail = tails.state(n, at.state.ends[n], at.output_layer)
        adjoint = tails.adjoint(n, tail)
        share = (tails.layers - n) / tails.layers
        assert np.allclose(problem.work.states - before[0], share)
        assert np.allclose(problem.work.adjoints - before[1], share)
        first = n * tails.per_slab
        assert np.allclose(tail.state.ends, at.state.ends[n:], rtol=0, atol=1e-13)
        assert np.allclose(tail.state.gathered, at.state.gathered[first:], rtol=0, atol=1e-13)
        assert np.allclose(adjoint.ends, at.adjoint.ends[n:], rtol=0, atol=1e-13)
        assert np.allclose(adjoint.q, at.adjoint.q[first:], rtol=0, atol=1e-13)
        assert abs(tail.loss - terminal - tracking[n:].sum()) < 1e-13 * at.loss
        layer = tails.layer_adjoint(n, at.state, at.misfit, at.adjoint.ends[n + 1])
        assert np.allclose(layer.ends, at.adjoint.ends[n : n + 2], rtol=0, atol=1e-13)
        levels = slice(first, first + tails.per_slab)
        assert np.allclose(layer.q, at.adjoint.q[levels], rtol=0, atol=1e-13)


@pytest.mark.parametrize("mask", [False, True])
def test_a_sweep_is_gauss_seidel_from_the_last_layer(mask: bool) -> None:
    """Each block's change is along its own gradient at the point where the later blocks are new."""
    options = {"loss": "mse", "learn_outputs": True, "mask": mask, "tracking": True}
    problem = random_problem(WORLD, scheme="dg1", regularization=(0.1, 0.1, 0.1), **options)
    start = random_control(problem, scale=0.3)
    once = solve_layerwise(problem, start, Tolerances(max_iterations=1), escape=False)
    controls, layers = problem.controls, problem.network.levels.layers
    numbers = np.arange(controls.n_local)
    blocks = [
        np.concatenate(
            [numbers[controls.blocks[k]].reshape(layers, -1)[n] for k in ("kernel", "bias")]
        )
        for n in range(layers)
    ]
    blocks.append(numbers[controls.blocks["outputs"].start :])
    current, objective = start.copy(), once.history[0].objective
    for block in reversed(blocks):
        g = problem.linearise(current.copy()).gradient[block]
        move = once.control[block] - current[block]
        square = controls.dot(g, g)
        step = -controls.dot(g, move) / square
        assert step > 0
        assert controls.norm(move + step * g) < 1e-11 * controls.norm(move)
        current[block] += move
        lower = problem.objective(current.copy())
        assert lower <= objective - 1e-4 * step * square * (1 - 1e-6)  # Armijo
        objective = lower
    assert np.array_equal(current, once.control)


def test_the_objective_never_rises() -> None:
    problem = random_problem(WORLD, scheme="resnet", loss="softmax", learn_outputs=True)
    solution = solve_layerwise(problem, random_control(problem), Tolerances(max_iterations=60))
    objectives = [line.objective for line in solution.history]
    assert all(b <= a for a, b in pairwise(objectives))
    # Three layers: 3/3 + 2/3 + 1/3 of a state and of an adjoint, and 3 single layers of adjoint.
    least = 2 + 2 + 1
    per_sweep = (solution.history[-1].sweeps - solution.history[0].sweeps) / solution.iterations
    assert least - 1e-9 <= per_sweep < 1.5 * least
