"""The Gauss-Newton term by adjoints of the outputs, and what inverts it."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from helpers import GRADED, in_file_order, random_control, random_problem, relative, uniform
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn import gauss_newton, inverse_root
from fem_dnn.adjoint import solve_adjoint
from fem_dnn.gauss_newton import (
    MAX_RANK,
    OutputSlopes,
    few_output_slopes,
    leading_functions,
    nodewise_bytes,
    output_slopes,
)
from fem_dnn.inverse_root import InverseRoot, NodewiseRoot, left_vectors
from fem_dnn.network import LayerWeights
from fem_dnn.nonlocal_operator import NonlocalOperator, kernel_coefficients
from fem_dnn.problem import Linearisation
from fem_dnn.solvers import Tolerances, solve_newton
from fem_dnn.state import solve_tangent
from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF

LOSSES: list[dict[str, Any]] = [
    {"loss": "softmax", "outputs": 3},
    {"loss": "softmax", "outputs": 2, "learn_outputs": True, "scheme": "resnet"},
    {"loss": "mse", "outputs": 2, "degree": 1},
    {"loss": "logistic", "scheme": "dg0"},
    # As many nodes as leading functions: exact.
    {"loss": "l2"},
    {"loss": "l2", "scheme": "resnet", "samples": 5},
    # Without a kernel the adjoint does not change on its way: exact with any nodes.
    {"loss": "l2", "cells": 9, "kernel": False},
]


def slopes_at(at: Linearisation) -> OutputSlopes:
    slopes = output_slopes(at)
    assert slopes is not None
    return slopes


def by_slopes(at: Linearisation, y: Array) -> Array:
    """J' W J y from the slopes of the outputs, y by coordinates of the pre-activations."""
    slopes, space = slopes_at(at), at.problem.network.space
    along = space.sum(np.einsum("lskn,lns->sk", slopes.parts, y)) * slopes.signs
    image = np.einsum("lskn,sk->lns", slopes.parts, along)
    if slopes.nodewise is not None:
        image += slopes.nodewise * np.sum(slopes.nodewise * y, axis=0)
    return image


def by_sweeps(at: Linearisation, y: Array) -> Array:
    """The same from a tangent and an adjoint."""
    problem = at.problem
    network, scale = problem.network, problem.controls.bias_scale[:, :, None]
    still = LayerWeights(None, None)
    source = at.state.slope * (y / scale)
    tangent = solve_tangent(network, at.weights, at.state, still, source)
    terminal = at.loss_point.tangent(tangent.ends[-1], None).terminal
    nothing = np.empty((0, *terminal.shape))
    q = solve_adjoint(network, at.weights, at.state.slope, terminal, nothing).q
    return scale * problem.sample_weights * q


def random_nodal(space: WidthSpace, levels: int, samples: int = 1, seed: int = 1) -> Array:
    """The same on any number of ranks, shape (levels, n_local, samples)."""
    whole = np.random.default_rng(seed).standard_normal((levels, samples, space.n_nodes))
    return space.from_file_order(whole).swapaxes(1, 2)


def random_changes(at: Linearisation) -> Array:
    levels, _, samples = at.state.slope.shape
    return random_nodal(at.problem.network.space, levels, samples)


@pytest.mark.mpi
@pytest.mark.parametrize("options", LOSSES)
def test_slopes_are_those_of_tangent_and_adjoint(options: dict[str, Any]) -> None:
    problem = random_problem(WORLD, **options)
    at = problem.linearise(random_control(problem))
    y, space = random_changes(at), problem.network.space
    ours, swept = (in_file_order(space, f(at, y)) for f in (by_slopes, by_sweeps))
    assert relative(ours, swept) < 1e-12


@pytest.mark.mpi
def test_every_node_an_output_is_pointwise_but_for_few_functions() -> None:
    """sigma' = 1 and kernels that map to four functions alone: nothing is left out."""
    problem = random_problem(WORLD, activation="linear", cells=11, scheme="resnet")
    space, controls = problem.network.space, problem.controls
    rng = np.random.default_rng(2)
    images, count = rng.standard_normal((11, 4)), problem.network.levels.count
    values = controls.values(random_control(problem))
    values.kernel[:] = images @ rng.standard_normal((count, 4, 11))
    at = problem.linearise(controls.coordinates(values))
    y = random_changes(at)
    ours, swept = (in_file_order(space, f(at, y)) for f in (by_slopes, by_sweeps))
    assert relative(ours, swept) < 1e-12


@pytest.mark.mpi
def test_leading_functions_span_what_kernels_map_to() -> None:
    problem = random_problem(WORLD, cells=9)
    space, omega = problem.network.space, problem.network.levels.weights
    rng = np.random.default_rng(4)
    kernel = rng.standard_normal((9, 2)) @ rng.standard_normal((len(omega), 2, 9))
    operator = NonlocalOperator(space, omega, kernel_coefficients(space, omega, kernel))
    leading = leading_functions(operator, 3)
    assert np.allclose(leading.T @ leading, np.eye(3), atol=1e-13)
    image = operator.apply(slice(None), space.gather(rng.standard_normal((space.n_local, 1))))
    whole = space.gather(image.swapaxes(0, 1).reshape(space.n_local, -1))
    whole = whole * space.sqrt_weights[:, None]
    outside = whole - leading[:, :2] @ (leading[:, :2].T @ whole)
    assert np.max(np.abs(outside)) < 1e-12 * np.max(np.abs(whole))


def test_a_root_of_blocks() -> None:
    """Z Z' (I + B B') = I, node by node."""
    rng = np.random.default_rng(3)
    factor, y = rng.standard_normal((4, 3, 2, 5)), rng.standard_normal((4, 3, 2, 1))
    root = NodewiseRoot.of(factor)
    image = y + factor @ np.sum(factor.swapaxes(2, 3) @ y, axis=0)
    assert relative(root.apply(root.apply_transpose(image)), y) < 1e-12


def dense(root: InverseRoot, shape: tuple[int, ...]) -> Array:
    units = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    return np.stack([root.apply(unit).ravel() for unit in units], axis=1)


def dense_term(slopes: OutputSlopes, features: Array, inverse: Array) -> Array:
    """I + L^{-1} F J' W J F' L^{-T}."""
    reached = inverse @ features
    columns = np.einsum("lnrs,lskn->lnrsk", reached, slopes.parts)
    columns = columns.reshape(-1, columns.shape[3] * columns.shape[4])
    signs = np.tile(slopes.signs, features.shape[3])
    term = np.eye(len(columns)) + (columns * signs) @ columns.T
    if slopes.nodewise is not None:
        apart = np.einsum("lnrs,lns,nm->lnrsm", reached, slopes.nodewise, np.eye(reached.shape[1]))
        apart = apart.reshape(len(columns), -1)
        term += apart @ apart.T
    return term


@pytest.mark.parametrize("few", [128, 0])
@pytest.mark.parametrize("options", [{"loss": "l2", "cells": 6}, {"loss": "softmax", "outputs": 3}])
def test_a_root_is_exact_where_all_directions_are_seen(
    options: dict[str, Any], few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Z' (I + L^{-1} J' W J L^{-T}) Z = I, whether columns are listed or looked for."""
    monkeypatch.setattr(gauss_newton, "NEAR", np.inf)
    monkeypatch.setattr(gauss_newton, "FEW_COLUMNS", few)
    problem = random_problem(SELF, scheme="resnet", points=GRADED, **options)
    slopes = slopes_at(problem.linearise(random_control(problem)))
    assert slopes.few == (few > 0)
    (levels, samples, _, nodes), rank = slopes.parts.shape, 3
    rng = np.random.default_rng(6)
    features = 3 * rng.standard_normal((levels, 1, rank, samples))
    inverse = np.eye(rank) + 0.3 * np.tril(rng.standard_normal((levels, nodes, rank, rank)))
    root = InverseRoot.of(problem.network.space, slopes, features, inverse, 1e-13)
    z = dense(root, (levels, nodes, rank))
    error = z.T @ dense_term(slopes, features, inverse) @ z - np.eye(len(z))
    assert np.max(np.abs(error)) < 1e-6
    y = rng.standard_normal((levels, nodes, rank))
    assert relative(root.apply_transpose(y).ravel(), z.T @ y.ravel()) < 1e-13


def test_of_many_directions_the_largest_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Z leaves is little more than the largest eigenvalue that it has no room for."""
    monkeypatch.setattr(gauss_newton, "NEAR", np.inf)
    monkeypatch.setattr(inverse_root, "DIRECTIONS", 20)
    problem = random_problem(
        SELF, scheme="resnet", loss="softmax", outputs=5, samples=60, points=uniform(1.0, 16)
    )
    slopes = slopes_at(problem.linearise(random_control(problem)))
    (levels, samples, _, nodes), rank = slopes.parts.shape, 4
    assert not slopes.few
    rng = np.random.default_rng(6)
    sizes = 10 * np.array([1.0, 0.3, 0.1, 0.03])[:, None]
    features = np.repeat(sizes * rng.standard_normal((1, 1, rank, samples)), levels, axis=0)
    inverse = np.broadcast_to(np.eye(rank), (levels, nodes, rank, rank))
    root = InverseRoot.of(problem.network.space, slopes, features, inverse, 1e-3)
    term = dense_term(slopes, features, inverse)
    z = dense(root, (levels, nodes, rank))
    left = np.linalg.eigvalsh(z.T @ term @ z) - 1
    theta = np.linalg.eigvalsh(term)[::-1] - 1
    assert theta[0] > 20 * theta[20]
    assert left[-1] < 3 * theta[20]
    assert left[0] > -1e-8


def test_many_outputs_are_looked_at_near_a_critical_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauss_newton, "FEW_COLUMNS", 4)
    problem = random_problem(SELF, scheme="resnet", cells=6)
    end = solve_newton(problem, random_control(problem), Tolerances(rtol=1e-6)).control
    for control, sweeps in ((10 * random_control(problem), 0), (end, gauss_newton.LEADING)):
        at = problem.linearise(control)
        assert at.gradient_norm > 0
        before = problem.work.adjoints
        assert slopes_at(at).nodewise is not None
        assert problem.work.adjoints - before == sweeps


def test_what_costs_too_much_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauss_newton, "NEAR", np.inf)
    monkeypatch.setattr(gauss_newton, "FEW_COLUMNS", 0)
    for loss in ("mse", "l2"):
        problem = random_problem(SELF, loss=loss)
        at = problem.linearise(random_control(problem))
        levels, nodes, samples = at.state.slope.shape
        needed = 8 * levels * samples * 2 * nodes  # two outputs
        if loss == "l2":
            needed = nodewise_bytes(nodes, levels, samples)
            with monkeypatch.context() as less:
                less.setattr(gauss_newton, "MAX_SAMPLES", samples - 1)
                assert output_slopes(at) is None
        monkeypatch.setattr(gauss_newton, "MEMORY_BYTES", needed)
        assert output_slopes(at) is not None
        monkeypatch.setattr(gauss_newton, "MEMORY_BYTES", needed - 1)
        assert output_slopes(at) is None


@pytest.mark.parametrize(("levels", "samples"), [(6, 100), (20, 100), (16, 200)])
def test_the_nodewise_part_takes_the_memory_that_is_counted(levels: int, samples: int) -> None:
    nodes, rng = 16, np.random.default_rng(7)
    parts = rng.standard_normal((levels, samples, 2, nodes))
    nodewise = rng.standard_normal((levels, nodes, samples))
    slopes = OutputSlopes(parts, np.array([1.0, -1.0]), nodewise)
    features = rng.standard_normal((levels, 1, MAX_RANK, samples))
    inverse = np.broadcast_to(np.eye(MAX_RANK), (levels, nodes, MAX_RANK, MAX_RANK))
    space = random_problem(SELF, cells=nodes).network.space
    tracemalloc.start()
    try:
        InverseRoot.of(space, slopes, features, inverse, 0.1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    counted = nodewise_bytes(nodes, levels, samples)
    assert 0.5 * counted < peak < counted


def test_few_parts_are_those_with_curvature(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of softmax's two outputs, seen by three samples, one: three columns."""
    problem = random_problem(SELF, loss="softmax", outputs=2)
    at = problem.linearise(random_control(problem))
    monkeypatch.setattr(gauss_newton, "FEW_COLUMNS", 3)
    few = few_output_slopes(at)
    assert few is not None and few.few and few.parts.shape[2] == 1
    monkeypatch.setattr(gauss_newton, "FEW_COLUMNS", 2)
    before = problem.work.adjoints
    assert few_output_slopes(at) is None
    assert problem.work.adjoints == before


@pytest.mark.mpi
@pytest.mark.parametrize("loss", ["l2", "softmax"])
def test_ranks_that_round_unlike_keep_as_many_directions(loss: str) -> None:
    """Rank 0 says which: here the others would keep all of them."""
    images = []
    for comm, others in ((WORLD, 1e-9), (SELF, 0.5)):
        problem = random_problem(comm, loss=loss, scheme="resnet")
        slopes = slopes_at(problem.linearise(random_control(problem)))
        (levels, samples, _, nodes), rank = slopes.parts.shape, 2
        features = np.random.default_rng(6).standard_normal((levels, 1, rank, samples))
        inverse = np.broadcast_to(np.eye(rank), (levels, nodes, rank, rank))
        seen = 0.5 if WORLD.rank == 0 else others
        root = InverseRoot.of(problem.network.space, slopes, features, inverse, seen)
        y = np.repeat(random_nodal(problem.network.space, levels), rank, axis=2)
        image = root.apply(root.apply_transpose(y))
        images.append(in_file_order(problem.network.space, image))
    assert relative(*images) < 1e-10


@pytest.mark.mpi
def test_left_vectors_are_those_of_the_whole() -> None:
    problem = random_problem(WORLD, cells=6)
    space = problem.network.space
    rows = np.random.default_rng(2).standard_normal((6, 4)) * [3.0, 1.0, 1.0, 0.01]
    seen = 0.01 if WORLD.rank == 0 else 1e-9
    vectors, theta = left_vectors(space, rows[space.owned], seen)
    left, values, _ = np.linalg.svd(rows, full_matrices=False)
    assert np.allclose(theta[::-1], values[:3] ** 2)
    whole = space.gather(vectors)
    assert np.allclose(whole @ whole.T, left[:, :3] @ left[:, :3].T, atol=1e-10)
