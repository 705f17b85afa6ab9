"""What one process does for all: its outcome, result or error, reaches every rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Communicator(Protocol):
    """What is needed of an mpi4py communicator."""

    @property
    def rank(self) -> int:
        """Number of this process."""

    def bcast(self, obj: Any, root: int = 0) -> Any:
        """Hand an object of one process to all."""


def on_root(comm: Communicator, function: Callable[[], T]) -> T:
    """Call a function on rank 0 and hand its outcome, result or error, to all ranks.

    Collective. Both must be picklable, as is everything in `fem_dnn.case` and `fem_dnn.errors`.
    """
    outcome: tuple[T | None, Exception | None] = (None, None)
    if comm.rank == 0:
        try:
            outcome = (function(), None)
        except Exception as problem:
            # Whatever it is, the other ranks wait for it.
            outcome = (None, problem)
    result, error = comm.bcast(outcome, root=0)
    if error is not None:
        raise error
    return result
