"""Where the error estimate comes from: its shares by slab and width cell (see `error_estimate`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fem_dnn.adjoint import solve_adjoint
from fem_dnn.enrichment import Enrichment
from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.slab import combine
from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]


class _Shares:
    """Sums contributions of levels or tracking points and nodes by slab and cell."""

    def __init__(self, layers: int, cells: int) -> None:
        self.total = np.zeros((layers, cells))

    def add(self, space: WidthSpace, slabs: NDArray[np.int64], nodal: Array) -> None:
        """Add contributions (levels, n_local) of levels in the given slabs."""
        columns = _cell_of_node(space)[space.file_position[space.owned]]
        by_cell = np.zeros((len(nodal), self.total.shape[1]))
        np.add.at(by_cell.T, columns, nodal.T)
        np.add.at(self.total, slabs, by_cell)


def _cell_of_node(space: WidthSpace) -> NDArray[np.int64]:
    """Cell of each node in file order; cells as in `mesh_arrays`."""
    cells = np.empty(space.n_nodes, dtype=np.int64)
    cells[space.cell_nodes] = np.arange(len(space.cell_nodes))[:, None]
    return cells


def shares(
    richer: Enrichment, at: Linearisation, prolonged: Linearisation, better: Linearisation
) -> Array:
    """The estimate's shares, shape (layers, cells), signed (collective).

    Args:
        richer: The richer discretisation.
        at: The minimiser.
        prolonged: The richer problem linearised at the same control.
        better: The same problem at a better control.
    """
    coarse, fine = at.problem, prolonged.problem
    space, levels = fine.network.space, fine.network.levels
    w, h = fine.sample_weights, space.local_weights
    out = _Shares(levels.layers, len(space.cell_nodes))
    first, last = np.zeros(1, dtype=np.int64), np.full(1, levels.layers - 1)

    slopes, stages = _reconstruction(richer, at)
    u = np.zeros_like(stages)
    for level in range(levels.count):
        if prolonged.weights.operator is not None:
            operator = prolonged.weights.operator
            u[level] = operator.apply(level, operator.gather(stages[level]))
        if prolonged.weights.bias is not None:
            u[level] += prolonged.weights.bias[level]
    sigma, slope = fine.network.activation.evaluate(u, 1)
    terminal = fine.loss.at(richer.local(at.state.ends[-1]), prolonged.output_layer)
    tracked = at.state.tracked
    if fine.tracking is not None:
        depth_is_richer = levels.scheme is not coarse.network.levels.scheme
        tracked = stages if depth_is_richer else richer.local(tracked)
        _add_tracking(out, coarse, at.state.tracked, 1.0)
        _add_tracking(out, fine, tracked, -1.0)

    # The mean of the adjoints at F and at the richer state: the error is then of third order.
    at_F = solve_adjoint(
        fine.network,
        prolonged.weights,
        slope,
        terminal.terminal,
        tracked
        if fine.tracking is None
        else fine.tracking.weight * (tracked - fine.tracking.targets),
    )
    p = 0.5 * (at_F.levels + prolonged.adjoint.levels)
    slab = np.repeat(np.arange(levels.layers), levels.scheme.levels)
    out.add(space, slab, levels.weights[:, None] * h * ((p * (slopes - sigma)) @ w))
    p_0 = 0.5 * (at_F.ends[0] + prolonged.adjoint.ends[0])
    start = richer.local(at.state.ends[0]) - fine.inputs
    out.add(space, first, (h * ((p_0 * start) @ w))[None])

    for problem, point, sign in ((coarse, at.loss_point, 1.0), (fine, terminal, -1.0)):
        weights = problem.network.space.local_weights
        density = sign * weights * (point.density @ w)
        out.add(problem.network.space, last, density[None])
    # R is quadratic, and where it penalises derivatives not the same on both discretisations.
    for at_c, sign in ((at, 1.0), (prolonged, -1.0)):
        action = at_c.problem.regularization.action(at_c.control)
        _add_controls(out, at_c.problem, sign * 0.5 * at_c.control * action)
    # The mean gradient times the change of the control: the integral of J', to third order.
    mean = 0.5 * (prolonged.gradient + better.gradient)
    _add_controls(out, fine, mean * (prolonged.control - better.control))
    return space.sum(out.total)


def _reconstruction(richer: Enrichment, at: Linearisation) -> tuple[Array, Array]:
    """F' and F at the richer levels and nodes, (levels, n_local, samples)."""
    network = at.problem.network
    levels = network.levels
    sigma = richer.local(network.activation(at.state.u))
    ends = richer.local(at.state.ends)
    slopes, stages = [], []
    for n, tau in enumerate(levels.steps):
        slab = levels.of_slab(n)
        inside = sigma[slab.start : slab.stop]
        slopes.append(combine(richer.slopes, inside))
        stages.append(ends[n] + tau * combine(richer.stages, inside))
    return np.concatenate(slopes), np.concatenate(stages)


def _add_tracking(out: _Shares, problem: LearningProblem, tracked: Array, sign: float) -> None:
    """(mu / 2) sum_s w_s |f_s - g_s|^2 at the tracking points and nodes."""
    assert problem.tracking is not None
    space, levels = problem.network.space, problem.network.levels
    scheme = levels.scheme
    misfit = tracked - problem.tracking.targets
    omega = np.outer(levels.steps, scheme.tracking_weights).reshape(-1, 1)
    density = 0.5 * problem.tracking.weight * ((misfit * misfit) @ problem.sample_weights)
    slab = np.repeat(np.arange(levels.layers), len(scheme.tracking_points))
    out.add(space, slab, sign * omega * space.local_weights * density)


def _add_controls(out: _Shares, problem: LearningProblem, products: Array) -> None:
    """Products of control coordinates: a kernel's half and half to the cells of x and of y.

    Those of learned outputs go to the last slab.
    """
    space, levels = problem.network.space, problem.network.levels
    parts = problem.controls.split(products)
    slab = np.repeat(np.arange(levels.layers), levels.scheme.levels)
    if parts.kernel is not None:
        out.add(space, slab, 0.5 * parts.kernel.sum(axis=1))
        # Every rank has some x of all y: its sums are spread over the cells and added up later.
        by_y = np.zeros((levels.count, out.total.shape[1]))
        np.add.at(by_y.T, _cell_of_node(space)[space.file_position], parts.kernel.sum(axis=2).T)
        np.add.at(out.total, slab, 0.5 * by_y)
    if parts.bias is not None:
        out.add(space, slab, parts.bias)
    if parts.outputs is not None:
        out.add(space, np.full(1, levels.layers - 1), parts.outputs.sum(axis=0)[None])
