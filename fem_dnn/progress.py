"""What people see on the way: one line per iteration or point, rank 0 only, not too many."""

from __future__ import annotations

import time

from rich.console import Console

from fem_dnn.continuation.branch import Branch, Point
from fem_dnn.solvers.history import Iteration

QUIET_SECONDS = 1.0
"""Solves shorter than this say nothing on the way."""

PAUSE_SECONDS = 0.5
"""Shortest time between two lines."""


class Progress:
    """Prints iterations of a solve to a console; a `Report` for the solvers.

    Args:
        console: Where to print; None (other ranks, --quiet) prints nothing.
    """

    def __init__(self, console: Console | None) -> None:
        self.console = console
        self._last_printed = 0.0
        self._header = False
        self._pending: Iteration | None = None

    def __call__(self, line: Iteration) -> None:
        """Print the line, or keep it back if the last one was printed just now."""
        if self.console is None:
            return
        now = time.perf_counter()
        if line.seconds < QUIET_SECONDS or now - self._last_printed < PAUSE_SECONDS:
            self._pending = line
            return
        self._print(line)
        self._last_printed = now

    def close(self) -> None:
        """Print the last line if it was kept back and others were printed."""
        if self._pending is not None and self._header:
            self._print(self._pending)

    def _print(self, line: Iteration) -> None:
        assert self.console is not None
        if not self._header:
            accuracy = "  accuracy" if line.accuracy is not None else ""
            self.console.print(
                f"{'iteration':>9}  {'objective':>16}  {'|gradient|':>10}{accuracy}  "
                f"{'Hessian products':>16}  {'elapsed':>8}",
                highlight=False,
            )
            self._header = True
        accuracy = f"  {line.accuracy:8.2%}" if line.accuracy is not None else ""
        self.console.print(
            f"{line.iteration:>9}  {line.objective:>16.10g}  {line.gradient_norm:>10.2e}{accuracy}"
            f"  {line.hessian_solves:>16}  {line.seconds:>6.1f} s",
            highlight=False,
        )
        self._pending = None


class BranchProgress:
    """Prints points of branches; called with the branch's number after every new point.

    Args:
        console: Where to print; None (other ranks, --quiet) prints nothing.
        parameter: Full key of the number that varies.
    """

    def __init__(self, console: Console | None, parameter: str) -> None:
        self.console, self.parameter = console, parameter
        self._started = self._last_printed = time.perf_counter()
        self._pending: tuple[int, int, Point] | None = None
        self._header = False

    def __call__(self, number: int, branch: Branch) -> None:
        """Print the branch's last point, or keep it back if one was printed just now."""
        if self.console is None:
            return
        now = time.perf_counter()
        self._pending = number, len(branch.points), branch.points[-1]
        if now - self._started >= QUIET_SECONDS and now - self._last_printed >= PAUSE_SECONDS:
            self._print()
            self._last_printed = now

    def close(self) -> None:
        """Print the last point if it was kept back and others were printed."""
        if self._pending is not None and self._header:
            self._print()

    def _print(self) -> None:
        assert self.console is not None and self._pending is not None
        width = max(len(self.parameter), 14)
        if not self._header:
            self.console.print(
                f"{'branch':>6}  {'point':>5}  {self.parameter:>{width}}  {'objective':>16}  "
                f"{'lowest eigenvalue':>17}  {'kind':10}  {'elapsed':>8}",
                highlight=False,
            )
            self._header = True
        number, count, point = self._pending
        self.console.print(
            f"{number:>6}  {count:>5}  {point.parameter:>{width}.8g}  {point.objective:>16.10g}  "
            f"{point.lowest:>17.3e}  {point.kind:10}  "
            f"{time.perf_counter() - self._started:>6.1f} s",
            highlight=False,
        )
        self._pending = None
