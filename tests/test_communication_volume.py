"""What ranks receive, counted at the MPI calls, is what the formulas say, to the word."""

import pytest
from mpi4py import MPI

from benchmarks.communication import (
    Traffic,
    gradient_words,
    grid_problem,
    hessian_words,
    product_bound,
    state_words,
)
from fem_dnn.process_grid import words_received
from fem_dnn.sample_groups import SampleGroups

WORLD = MPI.COMM_WORLD


@pytest.mark.mpi
@pytest.mark.parametrize("groups", [1, WORLD.size])
@pytest.mark.parametrize(("nodes", "samples"), [(8, 6), (9, 5)])
def test_counted_as_predicted(nodes: int, samples: int, groups: int) -> None:
    layers, traffic = 3, Traffic()
    problem = grid_problem(SampleGroups.of(WORLD, groups), nodes, samples, layers, traffic)
    at = problem.linearise(0.1 * problem.controls.random_direction(1))
    before = traffic.words  # random numbers travel too
    at = problem.linearise(at.control)
    assert at.objective > 0
    assert traffic.words - before == state_words(problem)
    assert at.gradient_norm > 0
    rows = problem.controls.n_rows - problem.controls.n_local
    assert traffic.words - before == gradient_words(problem)
    before, calls = traffic.words, traffic.calls
    at.hessian_action(at.control)
    assert traffic.words - before == hessian_words(problem)
    ranks, width = WORLD.size, WORLD.size // groups
    expected = 3 * layers * (width > 1) + 2 * (groups > 1)
    assert traffic.calls - calls == expected
    assert (rows > 0) == (groups > 1)
    if nodes % width == 0 and samples % groups == 0:
        bias = 2 * rows / (nodes + 1)
        kernel_and_states = words_received(nodes, samples, ranks, groups) * layers
        assert gradient_words(problem) == pytest.approx(kernel_and_states + bias)


def test_no_grid_moves_less_than_is_possible() -> None:
    """A state moves half of what a gradient does: one product per level, for which bounds hold."""
    for nodes, samples, ranks in ((64, 1400, 64), (1024, 512, 2), (512, 512, 16), (256, 4096, 64)):
        grids = [g for g in range(1, ranks + 1) if ranks % g == 0]
        fewest = min(words_received(nodes, samples, ranks, g) for g in grids) / 2
        assert fewest >= product_bound(nodes, nodes, samples, ranks)
    assert words_received(64, 1400, 8, 8) == 2 * product_bound(64, 64, 1400, 8), "attained"
    n, k, ranks = 1024, 512, 2
    assert product_bound(n, k, n, ranks) == pytest.approx(n * k * (2**0.5 - 1))
    assert product_bound(n, n, n, 8) == pytest.approx(n * n * (3 / 4 - 3 / 8))
