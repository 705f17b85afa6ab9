"""The dynamic programming principle on a grid: V from T back to 0.

    V(y, t_n) = min over constant controls of [ cost on (t_n, t_n+1) + (I V)(Phi(y), t_n+1) ],

Phi the flow of a step, I the interpolation of `state_grid.Interpolant`: monotone up to a bounded
correction, so that the scheme, stable for steps of any length, converges to the viscosity solution.
The last step uses the terminal loss itself. Beyond the box V is continued from the nearest point of
the box, plus what the terminal loss grows by from there, if it does: what drifts out where the loss
grows pays for it, and going out gains nothing.

Controls that are constant on steps of length tau make V too large by O(tau^2) where V is smooth;
interpolation adds O(h^4 / tau) there, and O(h^2 / tau) near kinks. With tau proportional to h the
scheme is of order 2 where V is smooth, of order 1 elsewhere.

The minimum is sought from controls that are optimal at neighbouring states one step later: the rest
of an optimal trajectory is optimal, and its control is continuous. In the last step it is sought
among controls of all sizes up to a bound that holds a priori, cost <= that of doing nothing.

M. Falcone, R. Ferretti, Semi-Lagrangian Approximation Schemes for Linear and Hamilton-Jacobi
Equations, SIAM 2014.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.dynamic_programming.finite_problem import FiniteProblem
from fem_dnn.dynamic_programming.pattern_search import best_of, polish, scan
from fem_dnn.dynamic_programming.state_grid import Interpolant, StateGrid
from fem_dnn.threads import workers

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]
Offsets = list[tuple[int, ...]]
Watch = Callable[[int, int], None]

CHUNK = 1 << 13
"""States treated at once: their arrays stay in the processor's cache."""

CELLS_PER_STEP = {1: 4, 2: 6, 3: 20}
"""Cells per step in depth, by number of state dimensions: what so many points can pay."""

LEAST_STEPS = 8
"""Steps in depth at the least, on the finer grid."""

SWEEPS = {1: 8, 2: 3, 3: 2}
"""Rounds of polishing by number of state dimensions."""

CURVED = 4.0
"""How much more than its data V may be curved without a kink being supposed."""

SIZES = np.array([0.003, 0.01, 0.03, 0.1, 0.3, 1.0])
"""Sizes of controls that are tried, in parts of the bound that holds a priori."""


def steps_for(dimension: int, cells: int, strength: float = 0.0) -> int:
    """Steps in depth that suit a grid, an even number: proportional to its cells.

    Args:
        dimension: State dimensions.
        cells: Cells in each.
        strength: int |a| dt of the kernels expected; where that is large, states turn quickly.
    """
    wanted = cells / CELLS_PER_STEP[dimension] * max(1.0, 0.5 * strength)
    return max(LEAST_STEPS, 2 * round(wanted / 2))


@dataclass(frozen=True, eq=False)
class Step:
    """One step of the scheme, as a minimisation problem for every state.

    Attributes:
        problem: Dynamics and costs.
        grid: The grid.
        t, tau: Beginning and length of the step.
        after: V at its end between the points of the grid; None: the terminal loss.
    """

    problem: FiniteProblem
    grid: StateGrid
    t: float
    tau: float
    after: Interpolant | None

    def remaining(self, f: Array) -> Array:
        """V at the end of the step at states (S, N, M), shape (M,)."""
        terminal = self.problem.terminal
        if self.after is None:
            return terminal(f)
        y = f.reshape(self.grid.dimension, -1)
        values = self.after(y)
        beyond = ~self.grid.contains(y)
        if np.any(beyond):
            there = y[:, beyond]
            face = self.problem.states(self.grid.nearest_inside(there))
            values[beyond] += np.maximum(terminal(self.problem.states(there)) - terminal(face), 0)
        return values

    def foot(self, f: Array, z: Array) -> tuple[Array, Array]:
        """Where controls z lead the states f, (S, N, M), and the cost until there, (M,)."""
        a, b = self.problem.rows(z, f, self.t + 0.5 * self.tau)
        return self.problem.flow(f, a, b, self.t, self.tau)

    def objective(self, f: Array, z: Array) -> Array:
        """What is minimised over z, shape (M,)."""
        end, cost = self.foot(f, z)
        cost += self.remaining(end)
        return cost

    def globally(self, f: Array, sweeps: int) -> tuple[Array, Array]:
        """Minimisers z (count, M) and minima (M,), sought among controls of all sizes."""
        controls = self.problem.controls
        z = np.zeros((controls.count, f.shape[2]))
        values = self.objective(f, z)
        # All costs are positive: (tau / 2) h z^2 <= what z = 0 costs. Interpolated
        # values may lie a little below 0.
        price = 0.5 * self.tau * controls.weights[:, None]
        reach = np.sqrt(np.maximum(values, 0.0) / price)
        levels = np.concatenate([-SIZES[::-1], SIZES])
        scan(lambda z: self.objective(f, z), z, values, reach, levels)
        polish(lambda z: self.objective(f, z), z, values, self.first_steps(f, z), sweeps)
        return z, values

    def from_policy(self, policy: Array, offsets: Offsets, numbers: Numbers) -> tuple[Array, Array]:
        """Minimisers and minima at points of the grid, sought from controls at others.

        Args:
            policy: Controls at all points of the grid, shape (count, size).
            offsets: Where neighbours are, whose controls are tried besides the point's own and
                those at the place where these lead.
            numbers: The points.
        """
        f = self.problem.states(self.grid.points(numbers))
        own = policy[:, numbers]
        there = self.grid.nearest(self.foot(f, own)[0].reshape(self.grid.dimension, -1))
        neighbours = [policy[:, self.grid.moved(numbers, offset)] for offset in offsets]
        z, values = best_of(lambda z: self.objective(f, z), [own, policy[:, there], *neighbours])
        sweeps = SWEEPS[self.grid.dimension]
        polish(lambda z: self.objective(f, z), z, values, self.first_steps(f, z), sweeps)
        return z, values

    def first_steps(self, f: Array, z: Array) -> Array:
        """Steps in z that move the foot by about a cell, and a tenth of z itself at least."""
        speed = self.problem.controls.reach(f) * self.tau
        cell = float(np.min(self.grid.spacing))
        step = np.divide(cell, speed, out=np.ones_like(z), where=speed > 0)
        return np.maximum(step, 0.1 * np.abs(z))


@dataclass(frozen=True, eq=False)
class ValueFunction:
    """V on the grid.

    Attributes:
        problem: Dynamics and costs.
        grid: The grid.
        times: t_n, shape (steps + 1,).
        values: V(., t_n) for every n, each of the grid's shape, on rank 0; empty on the others.
        bounds: What second differences of V may be where it has no kink, shape (D,).
    """

    problem: FiniteProblem
    grid: StateGrid
    times: Array
    values: list[NDArray[Any]]
    bounds: Array

    def interpolant(self, n: int) -> Interpolant:
        """V(., t_n) between the points of the grid (rank 0)."""
        return Interpolant(self.grid, np.asarray(self.values[n], np.float64), self.bounds)

    def step(self, n: int) -> Step:
        """The step from t_n to t_{n+1} (rank 0)."""
        last = n == len(self.times) - 2
        tau = float(self.times[n + 1] - self.times[n])
        after = None if last else self.interpolant(n + 1)
        return Step(self.problem, self.grid, float(self.times[n]), tau, after)

    def at(self, f: Array) -> float:
        """V(f, 0) of a state (S, N): the first step of the scheme from there (rank 0)."""
        _, values = self.step(0).globally(f[:, :, None], SWEEPS[1])
        return float(values[0])


def sweep_back(
    problem: FiniteProblem,
    grid: StateGrid,
    steps: int,
    comm: MPI.Comm = MPI.COMM_SELF,
    watch: Watch = lambda done, of: None,
) -> ValueFunction:
    """V on a grid for equidistant t_n (collective; the states are shared out among the ranks).

    Args:
        problem: Dynamics and costs, the same on all ranks.
        grid: The grid.
        steps: Steps in depth.
        comm: Communicator.
        watch: Told how many steps of how many are done.
    """
    times: Array = problem.depth * np.arange(steps + 1) / steps
    # A history of 8 million points in double precision does not fit everywhere.
    kept: type[np.floating[Any]] = np.float32 if grid.dimension == 3 else np.float64
    losses = _on_grid(problem, grid)
    bounds = _bounds(problem, grid, losses)
    history: list[NDArray[Any]] = [losses.astype(kept)] if comm.rank == 0 else []
    policy, farthest = _first_policy(problem, grid, times[-2:], comm), 2.0
    after: Interpolant | None = None
    for n in reversed(range(steps)):
        step = Step(problem, grid, float(times[n]), float(times[n + 1] - times[n]), after)
        minimise = partial(step.from_policy, policy, _offsets(farthest, grid))
        policy, V, farthest = _share_out(step, minimise, comm)
        V = V.reshape(grid.shape)
        after = Interpolant(grid, V, bounds)
        if comm.rank == 0:
            history.append(V.astype(kept))
        watch(steps - n, steps)
    return ValueFunction(problem, grid, times, history[::-1], bounds)


def _share_out(
    step: Step, minimise: Callable[[Numbers], tuple[Array, Array]], comm: MPI.Comm
) -> tuple[Array, Array, float]:
    """Minimise at all points of a grid, each rank at its share (collective).

    Returns:
        The minimisers (count, size), the minima (size,), and how many cells a foot is away at most.
    """
    grid, count = step.grid, step.problem.controls.count
    ends = np.linspace(0, grid.size, comm.size + 1).astype(np.int64)
    mine = np.arange(ends[comm.rank], ends[comm.rank + 1])
    minima, minimisers = np.empty(len(mine)), np.empty((count, len(mine)))

    def treat(start: int) -> float:
        part = slice(start, start + CHUNK)
        numbers = mine[part]
        minimisers[:, part], minima[part] = minimise(numbers)
        y = grid.points(numbers)
        end, _ = step.foot(step.problem.states(y), minimisers[:, part])
        return float(np.max(np.abs(end.reshape(y.shape) - y) / grid.spacing[:, None]))

    # NumPy works on several chunks at once: it lets other threads run meanwhile.
    with ThreadPoolExecutor(workers()) as pool:
        farthest = max(pool.map(treat, range(0, len(mine), CHUNK)), default=0.0)

    def gathered(values: Array) -> Array:
        if comm.size == 1:
            return values
        everything = np.empty(grid.size)
        comm.Allgatherv(values, [everything, np.diff(ends)])
        return everything

    everywhere = np.stack([gathered(row) for row in minimisers])
    return everywhere, gathered(minima), float(comm.allreduce(farthest, op=MPI.MAX))


def _first_policy(problem: FiniteProblem, grid: StateGrid, last: Array, comm: MPI.Comm) -> Array:
    """Candidates for the last step: minimisers on a grid of half the cells, sought globally."""
    coarse = StateGrid(grid.box, -(-grid.cells // 2))
    step = Step(problem, coarse, float(last[0]), float(last[1] - last[0]), None)

    def minimise(numbers: Numbers) -> tuple[Array, Array]:
        return step.globally(problem.states(coarse.points(numbers)), SWEEPS[1])

    policy, _, _ = _share_out(step, minimise, comm)
    nearest = [coarse.nearest(y) for y in _chunks(grid)]
    return policy[:, np.concatenate(nearest)]


def _chunks(grid: StateGrid) -> Iterator[Array]:
    """All points, chunk by chunk, each (D, M)."""
    for start in range(0, grid.size, CHUNK):
        yield grid.points(np.arange(start, min(start + CHUNK, grid.size)))


def _on_grid(problem: FiniteProblem, grid: StateGrid) -> Array:
    """The terminal loss on the grid."""
    parts = [problem.terminal(problem.states(y)) for y in _chunks(grid)]
    return np.concatenate(parts).reshape(grid.shape)


def _bounds(problem: FiniteProblem, grid: StateGrid, losses: Array) -> Array:
    """CURVED times the second differences of the loss, and of what is tracked: M h^2."""
    of_loss = [float(np.max(np.abs(d))) for d in grid.second_differences(losses)]
    of_tracking: Array = np.zeros(grid.dimension)
    if problem.tracking is not None:
        shares = np.outer(problem.sample_weights, problem.node_weights).ravel()
        of_tracking = problem.depth * problem.tracking[0] * shares * grid.spacing**2
    return CURVED * (np.array(of_loss) + of_tracking)


def _offsets(farthest: float, grid: StateGrid) -> Offsets:
    """Where neighbours are asked: as far as a step goes along each axis, and half as far."""
    whole = min(max(math.ceil(farthest), 1), grid.cells)
    distances = {whole, max(whole // 2, 1)} if grid.dimension == 1 else {max(whole // 2, 1)}
    return [
        tuple(sign * distance * int(axis == i) for i in range(grid.dimension))
        for axis in range(grid.dimension)
        for distance in sorted(distances)
        for sign in (-1, 1)
    ]
