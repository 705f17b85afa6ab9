"""A memory limit of a solve, and what it leaves room for.

A rank holds vectors of controls, as many as its method needs; the samples; and per level, node and
sample what its sweeps keep. The last is what can do with less: samples can be taken a portion at a
time (`portions`), in Gram form the depth a stretch at a time (`gram.stretch`). What is over then
goes to what solvers like to remember.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from mpi4py import MPI

from fem_dnn.assembly import Model
from fem_dnn.curvature_metric import why_not
from fem_dnn.gauss_newton import MAX_RANK
from fem_dnn.gram import GramProblem
from fem_dnn.gram.stretch import ARRAYS, STARTS
from fem_dnn.portions import PortionedProblem
from fem_dnn.problem import LearningProblem

LIBRARIES = 0.2e9
"""Bytes of the program itself, before there is a problem."""

VECTORS = {"newton": 32, "lbfgs": 84, "gradient": 20}
"""Vectors of controls that a solve holds at the same time, what it may remember aside (measured as
peaks of the process, docs/memory.md): SNES has eleven and conjugate gradients four, L-BFGS has 30
pairs, and some of each are temporaries."""

GRAM_VECTORS = 23
"""The same for newton in Gram form, which has five and a short basis for the lowest eigenvalue."""

SAMPLES = 6
"""Numbers per node and sample of inputs, targets and terminal states, and of their copies."""

BASIS = 4 * MAX_RANK**2
"""Numbers per level and sample in the making of a metric (`curvature_metric`)."""

FEWEST = 64
"""Samples in a portion at the least: with fewer, a product's time is that of reading the kernel."""


@dataclass(frozen=True)
class Needs:
    """Bytes per rank of one problem, on the rank that has most.

    Attributes:
        fixed: All that cannot be done without.
        at_point: What is known along a sample's trajectory at one control: f, sigma'(u), p and
            sigma''(u) p.
        at_work: What comes to it in a Hessian product or the making of a metric.
        samples: S, on the rank that has most.
    """

    fixed: float
    at_point: float
    at_work: float
    samples: int

    @classmethod
    def of(cls, problem: LearningProblem, method: str) -> Needs:
        """Those of a dense problem's solve by a method (collective)."""
        comm, network, S = problem.controls.comm, problem.network, len(problem.sample_weights)
        nodes, samples, controls = (
            comm.allreduce(n, op=MPI.MAX)
            for n in (network.space.n_local, S, problem.controls.n_local)
        )
        levels = network.levels
        inside, ends = 8.0 * levels.count * nodes, 8.0 * (levels.layers + 1) * nodes
        gathered = 0.0 if network.stages_are_ends else 8.0 * levels.count * network.space.n_nodes
        stages = 0.0 if levels.scheme.explicit else inside
        vector, measured = 8.0 * controls, why_not(problem) is None
        metric = 6 * inside + 8.0 * BASIS * levels.count if measured else 0.0
        # A group of samples has the kernels' rows whole, and their sums.
        rows = 3 * inside * network.space.n_nodes if problem.groups.count > 1 else 0.0
        return cls(
            LIBRARIES + VECTORS[method] * vector + rows + 8.0 * SAMPLES * nodes * samples,
            2 * ends + 2 * inside + stages + gathered,
            max(ends + inside + gathered, metric),
            samples,
        )

    @property
    def whole(self) -> float:
        """Bytes of all trajectories, at two points and at work."""
        return self.samples * (2 * self.at_point + self.at_work)

    @property
    def portion(self) -> float:
        """Bytes of one sample's at a time."""
        return self.at_point + self.at_work

    @property
    def least(self) -> float:
        """Bytes of the smallest portion's."""
        return min(FEWEST, self.samples) * self.portion

    def portions(self, room: float) -> tuple[int, int]:
        """How many portions, and how many of these keep theirs at two points."""
        size = max(FEWEST, int(room / self.portion) // 4)
        count = math.ceil(self.samples / size)
        left = (room - size * self.portion) / (2 * size * self.at_point)
        return count, max(0, min(count - 1, int(left)))


class TooLittle(ValueError):
    """No form of a problem stays within a limit.

    Attributes:
        least: The least limit, in bytes, that one does.
    """

    def __init__(self, least: float) -> None:
        super().__init__(f"every rank needs {least / 1e9:.3g} GB")
        self.least = least


def within_memory(model: Model, of: LearningProblem | None = None) -> LearningProblem:
    """A learning problem in a form whose solve stays within the case's limit (collective).

    Args:
        model: The model.
        of: Its problem on a process grid; None: its own.

    Raises:
        BadInput: There is none; the same on all ranks.
    """
    case, problem = model.case, of or model.problem
    assert problem is not None
    limit, method = case.solver.memory_gb, case.solver.method
    if limit is None:
        return problem
    if method not in VECTORS:
        raise case.error(
            "solver.memory_gb",
            f"is {limit}, but {method} has to hold the states of all samples",
            f"no limit, or solver.method {', '.join(VECTORS)}",
        )
    try:
        return limited(problem, method, 1e9 * limit)
    except TooLittle as reason:
        raise case.error(
            "solver.memory_gb",
            f"is {limit}, but {reason}",
            "as much or more, more ranks, or no limit",
        ) from None


def limited(problem: LearningProblem, method: str, limit: float) -> LearningProblem:
    """A learning problem in a form that a method solves within so many bytes (collective).

    Raises:
        TooLittle: There is none; the same on all ranks.
    """
    if isinstance(problem, GramProblem):
        return _in_stretches(problem, limit)
    needs = Needs.of(problem, method)
    room = limit - needs.fixed
    if room < needs.least:
        raise TooLittle(needs.fixed + needs.least)
    if needs.whole <= room:
        return replace(problem, remembered=room - needs.whole)
    # What is remembered saves steps, what stays saves sweeps: half of the room for each.
    count, resident = needs.portions(max(0.5 * room, needs.least))
    fewest = problem.controls.comm.allreduce(len(problem.sample_weights), op=MPI.MIN)
    portioned = PortionedProblem.of(problem, min(count, fewest), resident)
    return replace(portioned, remembered=0.5 * room)


def _in_stretches(problem: GramProblem, limit: float) -> GramProblem:
    comm, levels = problem.controls.comm, problem.network.levels
    nodes, controls = (
        comm.allreduce(n, op=MPI.MAX)
        for n in (problem.network.space.n_local, problem.controls.n_local)
    )
    sheet = 8.0 * nodes * len(problem.sample_weights)
    fixed = LIBRARIES + GRAM_VECTORS * 8.0 * controls + SAMPLES * sheet
    lengths = np.arange(1, levels.layers + 1)
    stretches = np.ceil(levels.layers / lengths)
    kept = ARRAYS * levels.scheme.levels * lengths + np.where(stretches > 1, STARTS * stretches, 0)
    needed = fixed + kept * sheet
    if limit < needed.min():
        raise TooLittle(float(needed.min()))
    length = int(lengths[needed <= limit].max())
    return replace(problem, layers_at_once=length, remembered=limit - float(needed[length - 1]))
