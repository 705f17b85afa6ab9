"""What ranks send each other: counted at the calls, by formula, and the least that is possible.

A number received counts one word. Of an all-gather and of a sum that is scattered a rank receives
what is not its own, and its own once from every other; of a sum that all get, both (Thakur,
Rabenseifner & Gropp, Int. J. High Perform. Comput. Appl. 19, 2005: their algorithms for large
arrays receive no more).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.activations import ACTIVATIONS
from fem_dnn.controls import ControlSpace
from fem_dnn.depth import SCHEMES, DepthLevels
from fem_dnn.losses import L2Loss
from fem_dnn.mesh import interval
from fem_dnn.network import Network
from fem_dnn.problem import LearningProblem
from fem_dnn.regularization import Regularization
from fem_dnn.sample_groups import SampleGroups
from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]


@dataclass
class Traffic:
    """What a rank has received.

    Attributes:
        words: Numbers of arrays that are gathered, or summed and scattered.
        calls: In so many calls.
        small: Numbers of sums that all ranks get.
        small_calls: In so many calls.
        patient: Whether ranks meet asleep before every call: what they then take of a processor's
            time is work, not waiting for one that had to share its core.
        meeting: Seconds of a processor's time that the meetings have taken.
    """

    words: int = 0
    calls: int = 0
    small: float = 0.0
    small_calls: int = 0
    patient: bool = False
    meeting: float = 0.0


def meet(comm: MPI.Comm, nap: float = 1e-4) -> None:
    """A barrier at which ranks sleep, and leave the cores to those that work."""
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(nap)


class Counted:
    """A communicator that counts what its ranks receive, and is otherwise the one it is made of."""

    def __init__(self, comm: MPI.Comm, traffic: Traffic) -> None:
        self._comm, self._traffic = comm, traffic

    def __getattr__(self, name: str) -> Any:
        return getattr(self._comm, name)

    def _meet(self) -> None:
        if self._traffic.patient and self._comm.size > 1:
            before = time.process_time()
            meet(self._comm)
            self._traffic.meeting += time.process_time() - before

    def Allgatherv(self, piece: Array, whole: list[Any]) -> None:
        """Count the others' pieces."""
        self._meet()
        self._traffic.words += whole[0].size - piece.size
        self._traffic.calls += 1
        self._comm.Allgatherv(piece, whole)

    def Reduce_scatter(self, whole: Array, piece: Array, sizes: list[int]) -> None:
        """Count this rank's block from each of the others."""
        self._meet()
        self._traffic.words += (self._comm.size - 1) * piece.size
        self._traffic.calls += 1
        self._comm.Reduce_scatter(whole, piece, sizes)

    def Sendrecv(self, send: Array, other: int, recvbuf: Array, source: int) -> None:
        """Count what comes back."""
        self._meet()
        self._traffic.words += recvbuf.size
        self._traffic.calls += 1
        self._comm.Sendrecv(send, other, recvbuf=recvbuf, source=source)

    def Allreduce(self, send: Any, total: Array, op: MPI.Op = MPI.SUM) -> None:
        """Count a sum that is scattered and gathered."""
        self._meet()
        self._traffic.small += 2 * (1 - 1 / self._comm.size) * total.size
        self._traffic.small_calls += 1
        self._comm.Allreduce(send, total, op=op)


def grid_problem(
    groups: SampleGroups,
    nodes: int,
    samples: int,
    layers: int,
    traffic: Traffic | None = None,
) -> LearningProblem:
    """Sines to be carried to cosines by a residual network, on a process grid.

    Args:
        groups: The process grid.
        nodes, samples, layers: N, S, L.
        traffic: Counts what this rank receives from now on.
    """
    space = WidthSpace(interval(groups.width, nodes), 0)
    levels = DepthLevels(SCHEMES["resnet"], np.linspace(0, 1, layers + 1))
    x, s = space.local_nodes, np.arange(samples)[groups.share(samples)]
    inputs = np.sin(np.pi * (1 + s / 50) * x + 0.3 * s)
    targets = np.cos(np.pi * (1 + s % 3) * x)
    _ = space.sqrt_weights, space.counts  # gathered once, before anything is counted
    if traffic is not None:
        space.comm = Counted(space.comm, traffic)  # type: ignore[assignment]
        counted = (Counted(c, traffic) for c in (groups.comm, groups.width, groups.across))
        groups = SampleGroups(*counted)  # type: ignore[arg-type]
    controls = ControlSpace(space, levels, groups=groups)
    return LearningProblem(
        Network(space, levels, ACTIVATIONS["tanh"]),
        controls,
        inputs,
        np.full(len(s), 1 / samples),
        L2Loss(space, targets),
        Regularization(controls, 0.1, 0.1),
    )


def state_words(of: LearningProblem) -> int:
    """Words of `Traffic.words` of a state, by formula: per level one product, u = a f.

    The others' states on every level, and the other groups' pieces of this rank's kernel and bias.
    """
    space, samples, levels = of.network.space, of.inputs.shape[1], of.network.levels.count
    states = levels * (space.n_nodes - space.n_local) * samples
    return states + of.controls.n_rows - of.controls.n_local


def adjoint_words(of: LearningProblem) -> int:
    """The same of one adjoint, the transpose of a state: the others' summands for what is ours."""
    space, samples, levels = of.network.space, of.inputs.shape[1], of.network.levels.count
    return levels * (space.comm.size - 1) * space.n_local * samples + _piece_words(of)


def _piece_words(of: LearningProblem) -> int:
    return (of.groups.count - 1) * of.controls.n_local


def gradient_words(of: LearningProblem) -> int:
    """The same of a state and the gradient."""
    return state_words(of) + adjoint_words(of)


def hessian_words(of: LearningProblem) -> int:
    """The same of a Hessian product: a tangent, and two adjoints that are one sum in the end."""
    return state_words(of) + 2 * adjoint_words(of) - _piece_words(of)


def product_bound(rows: int, inner: int, columns: int, ranks: int) -> float:
    """Words that some rank receives in any parallel product of two matrices, whatever its memory.

    Each matrix is held once, evenly. With m >= n >= k the three dimensions: Al Daas, Ballard,
    Grigori, Kumar & Rouse, Tight memory-independent parallel matrix multiplication communication
    lower bounds, SPAA 2022, theorem 1.
    """
    k, n, m = sorted((rows, inner, columns))
    if ranks <= m / n:
        return (1 - 1 / ranks) * n * k
    if ranks <= m * n / k**2:
        return 2 * sqrt(m * n * k**2 / ranks) - (m * k + n * k) / ranks
    return 3 * (m * n * k / ranks) ** (2 / 3) - (m * n + m * k + n * k) / ranks
