"""A model of the time of a gradient or a Hessian product on a process grid, and its fit.

On R x G ranks, with m = ceil(N/R) rows and s = ceil(S/G) samples, and products counted as in the
sweep (3 per level of a gradient, 6 of a Hessian product):

    T = sum over products of 2 m N s L / rate(m, s)      matrix products
        + per_state m s L + per_entry m N L / G          passes over states, over control vectors
        + per_level L                                     the interpreter
        + communication

The rate of thin matrices is that of large ones times m/(m + half) s/(s + half). An all-gather among
Q ranks, or the sum that is scattered, costs latency ceil(log2 Q) + bytes received / bandwidth
(Thakur, Rabenseifner & Gropp, 2005), a sum that all get twice that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log2
from typing import Any

import numpy as np
from scipy.optimize import nnls

PRODUCTS = {"gradient": 3, "hessian": 6}
"""Matrix products per level."""

STATE_MESSAGES = {"gradient": 2, "hessian": 3}
"""All-gathers and scattered sums per level within a group."""

WORD = 8
"""Bytes."""


@dataclass(frozen=True)
class Network:
    """What lies between ranks.

    Attributes:
        latency: Seconds per message.
        bandwidth: Bytes per second and rank.
    """

    latency: float
    bandwidth: float

    def exchange(self, ranks: int, words: float) -> float:
        """Seconds of an all-gather, or of a sum that is scattered, of so many words received."""
        if ranks == 1:
            return 0.0
        return self.latency * ceil(log2(ranks)) + WORD * words / self.bandwidth


@dataclass(frozen=True)
class Cluster:
    """Nodes of several ranks, whose numbers follow each other.

    Attributes:
        inside: Between the ranks of a node.
        outside: Between ranks of different nodes.
        per_node: Ranks of a node.
    """

    inside: Network
    outside: Network
    per_node: int

    def among(self, ranks: int) -> Network:
        """Between ranks that are spread over so many that follow each other."""
        return self.inside if ranks <= self.per_node else self.outside


@dataclass(frozen=True)
class Machine:
    """What one rank does, all cores busy.

    Attributes:
        rate: Operations per second of large matrix products.
        half: Rows or samples at which a product reaches half of it.
        per_state: Seconds per number of a state and level, by operation.
        per_entry: Seconds per number of a control vector, by operation.
        per_level: Seconds per level, by operation.
    """

    rate: float
    half: float
    per_state: Mapping[str, float]
    per_entry: Mapping[str, float]
    per_level: Mapping[str, float]


@dataclass(frozen=True)
class Size:
    """A problem: nodes N, samples S, layers L."""

    nodes: int
    samples: int
    layers: int


def seconds(
    what: str, size: Size, rows: int, groups: int, machine: Machine, cluster: Cluster
) -> dict[str, float]:
    """Predicted seconds, by part.

    Args:
        what: gradient | hessian.
        size: The problem.
        rows, groups: The process grid R x G.
        machine, cluster: What computes, and what lies between.
    """
    N, L = size.nodes, size.layers
    m, s = ceil(N / rows), ceil(size.samples / groups)
    rate = machine.rate * m / (m + machine.half) * s / (s + machine.half)
    near, far = cluster.among(rows), cluster.among(rows * groups)
    states = near.exchange(rows, (N - m) * s)
    kernel = L * m * N
    pieces = far.exchange(groups, kernel * (1 - 1 / groups))
    dots = 2 * far.exchange(rows * groups, 1.0) + 2 * near.exchange(rows, float(s))
    return {
        "products": PRODUCTS[what] * 2 * m * N * s * L / rate,
        "passes": machine.per_state[what] * m * s * L + machine.per_entry[what] * kernel / groups,
        "interpreter": machine.per_level[what] * L,
        "communication": STATE_MESSAGES[what] * L * states + 2 * pieces + dots,
    }


def total(what: str, size: Size, rows: int, groups: int, machine: Machine, of: Cluster) -> float:
    """Predicted seconds."""
    return sum(seconds(what, size, rows, groups, machine, of).values())


def best_grid(size: Size, ranks: int, machine: Machine, of: Cluster) -> tuple[int, int, float]:
    """The grid R x G of so many ranks that the model finds fastest, and its gradient's seconds."""
    possible = [
        (ranks // g, g)
        for g in range(1, min(ranks, size.samples) + 1)
        if ranks % g == 0 and ranks // g <= size.nodes
    ]
    times = [total("gradient", size, r, g, machine, of) for r, g in possible]
    best = int(np.argmin(times))
    return (*possible[best], times[best])


def fitted_rate(products: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """rate and half from products of m x n by n x s matrices: seconds per operation are affine.

    1 / measured = (1/rate) (1 + half/m)(1 + half/s), fitted with half/m and half/s to first order.
    """
    inverse = np.array([1 / row["rate"] for row in products])
    thin = np.array([1 / row["m"] + 1 / row["s"] for row in products])
    columns = np.stack([np.ones_like(thin), thin], axis=1)
    (constant, slope), _ = nnls(columns / inverse[:, None], np.ones_like(inverse))
    return 1 / constant, slope / constant


def fitted_machine(
    rate: float, half: float, runs: Sequence[Mapping[str, Any]]
) -> tuple[Machine, float]:
    """The remaining constants, from what runs on one rank take beside their matrix products.

    Args:
        rate, half: Of matrix products.
        runs: With nodes, samples, layers, the seconds of each operation, and the rate of products
            of their shape, measured beside them.

    Returns:
        The machine, and the largest misfit relative to a run's seconds.
    """
    constants: dict[str, dict[str, float]] = {"state": {}, "entry": {}, "level": {}}
    worst = 0.0
    for what in PRODUCTS:
        columns, right = [], []
        for run in runs:
            N, S, L = run["nodes"], run["samples"], run["layers"]
            columns.append(np.array([S * N * L, N * N * L, L]) / run[what])
            right.append(1 - PRODUCTS[what] * 2 * N * N * S * L / run["rate"] / run[what])
        matrix = np.array(columns)
        scale = matrix.max(axis=0)
        found, _ = nnls(matrix / scale, np.array(right))
        worst = max(worst, float(np.max(np.abs(matrix / scale @ found - right))))
        for name, value in zip(constants, found / scale, strict=True):
            constants[name][what] = float(value)
    machine = Machine(rate, half, constants["state"], constants["entry"], constants["level"])
    return machine, worst
