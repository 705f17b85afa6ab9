"""Samples over ranks: the second direction of the process grid, beside the rows of the kernel.

P = R x G ranks: each of G *groups* owns all width rows, distributed over its R ranks, and a share
of the samples. Sweeps stay within a group. What is a sum over samples - loss, gradient, Hessian
product - is summed over the groups.

Control vectors are not copied: the numbers of a width rank's rows are cut into G pieces, one for
each rank that owns these rows, so a vector is distributed over all P ranks. A sweep gathers the
pieces of its group's rows; the sum over groups of what it finds is scattered to the pieces. So
every number of a vector is on one rank, its inner products are one reduction over all ranks, whose
result MPI requires to be identical on all of them (MPI 3.1, section 5.9.6), and solvers take the
same decisions everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.exchange import gathered, summed

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SampleGroups:
    """This rank's place in the process grid.

    Attributes:
        comm: All ranks: control vectors are distributed over them.
        width: The ranks of this group: width rows are distributed over them.
        across: The ranks that own the same width rows, one of every group.
    """

    comm: MPI.Comm
    width: MPI.Comm
    across: MPI.Comm

    @classmethod
    def alone(cls, comm: MPI.Comm) -> SampleGroups:
        """One group of all ranks."""
        return cls(comm, comm, MPI.COMM_SELF)

    @classmethod
    def of(cls, comm: MPI.Comm, count: int) -> SampleGroups:
        """So many groups, which must divide the number of ranks (collective).

        Ranks of a group follow each other: they talk more often than the groups do.
        """
        if comm.size % count:
            raise ValueError(f"{count} groups do not divide {comm.size} ranks")
        return cls.alone(comm) if count == 1 else _split(comm, count)

    @property
    def count(self) -> int:
        """Number G of groups."""
        return self.across.size

    @property
    def number(self) -> int:
        """Number of this group."""
        return self.across.rank

    def share(self, size: int) -> slice:
        """This group's contiguous, balanced share of range(size): of samples, of numbers."""
        bounds = self._bounds(size)
        return slice(bounds[self.number], bounds[self.number + 1])

    def _bounds(self, size: int) -> list[int]:
        return [number * size // self.count for number in range(self.count + 1)]

    def _counts(self, size: int) -> list[int]:
        return [stop - start for start, stop in pairwise(self._bounds(size))]

    def gather(self, piece: NDArray[Any], size: int) -> NDArray[Any]:
        """The numbers of this rank's rows from the groups' pieces, shape (size,) (collective)."""
        if self.count == 1:
            return piece
        return gathered(self.across, piece, self._counts(size), np.empty(size, piece.dtype))

    def scatter_sum(self, whole: Array) -> Array:
        """Sum over the groups, each keeping its piece: the transpose of `gather` (collective)."""
        if self.count == 1:
            return whole
        counts = self._counts(len(whole))
        return summed(self.across, whole, counts, np.empty(counts[self.number]))

    def piece(self, whole: Array) -> Array:
        """This group's piece of numbers that all groups know."""
        return whole if self.count == 1 else whole[self.share(len(whole))].copy()

    def sum(self, values: Array | float) -> Array:
        """Sum over groups of what every rank of a group knows; the same bits on all (collective).

        One reduction over all ranks, to which the first of every group brings its values.
        """
        if self.count == 1:
            return np.asarray(values)
        own = np.array(values, dtype=np.float64)
        if self.width.rank:
            own[...] = 0.0
        self.comm.Allreduce(MPI.IN_PLACE, own)
        return own

    @contextmanager
    def failing_together(self, kind: type[Exception]) -> Iterator[None]:
        """Where one group fails with an error of a kind, all raise it (collective)."""
        failure: Exception | None = None
        try:
            yield
        except kind as problem:
            failure = problem
        if self.count > 1:
            failures = self.across.allgather(failure)
            failure = next((each for each in failures if each is not None), None)
        if failure is not None:
            raise failure


_SPLIT = MPI.Comm.Create_keyval()
"""A communicator keeps its grids, by their number of groups: it is split once for each."""


def _split(comm: MPI.Comm, count: int) -> SampleGroups:
    known = comm.Get_attr(_SPLIT)
    grids: dict[int, SampleGroups] = known if isinstance(known, dict) else {}
    if known is None:
        comm.Set_attr(_SPLIT, grids)
    if count not in grids:
        group, place = divmod(comm.rank, comm.size // count)
        grids[count] = SampleGroups(comm, comm.Split(group, place), comm.Split(place, group))
    return grids[count]
