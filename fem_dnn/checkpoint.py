"""Checkpoints: what a long solve leaves on the way, so that it can be killed and go on.

They are written between iterations, when rank 0's clock says that it is time; `checkpoint_file`
says what is in them. A solve that converges removes its checkpoint once its results are written;
one that ends otherwise leaves its last iterate.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

from fem_dnn import checkpoint_file
from fem_dnn.assembly import Model
from fem_dnn.collective import on_root
from fem_dnn.gram.choice import representation
from fem_dnn.request import Request
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers import Solution
from fem_dnn.solvers.history import Waypoint

EVERY = 60.0
"""Seconds from one checkpoint to the next."""

Say = Callable[[str], None]


class Checkpoints:
    """Writes checkpoints of one solve (all methods are collective).

    Args:
        path: The file.
        every: Seconds from one to the next, at least; rank 0's clock decides.
        model: What is solved.
        say: Tells the person in front of it.
    """

    def __init__(self, path: Path, every: float, model: Model, say: Say) -> None:
        self.path, self.every, self.model, self.say = path, every, model, say
        self._due = time.perf_counter() + every
        self._latest: Callable[[], Waypoint] | None = None
        self._warned = False

    @classmethod
    def asked_for(cls, request: Request, model: Model) -> Checkpoints | None:
        """Those that a request asks for; None if none.

        Raises:
            BadInput: There is another file in their place, or none can be written.
        """
        path = request.checkpoint_file
        if path is None:
            return None
        on_root(request.comm, lambda: checkpoint_file.prepare(path))
        every = EVERY if request.checkpoint_every is None else request.checkpoint_every
        return cls(path, every, model, request.say)

    def keep(self, waypoint: Callable[[], Waypoint]) -> None:
        """Write a checkpoint if it is time; a `Keep`."""
        self._latest = waypoint
        if self.model.comm.bcast(time.perf_counter() >= self._due):
            self._write(waypoint())

    def resume(self) -> Waypoint | None:
        """The waypoint in the file; None, and a word about it, if there is none to go on from.

        Raises:
            BadInput: The file cannot be used, or another case has made it.
            SlabFailure: The state equation cannot be solved at the case's initial guess.
        """
        waypoint = on_root(self.model.comm, lambda: checkpoint_file.read(self.path, self.model))
        if waypoint is None:
            self.say(f"there is no {self.path}: starting from the beginning")
            return None
        checkpoint_file.require_same_start(self.path, self.model, waypoint)
        if not _has_state(self.model, waypoint):
            self.say(f"there is no state at the controls in {self.path}: starting anew")
            return None
        objective = waypoint.iterations[-1].objective
        self.say(
            f"going on from {self.path}: iteration {waypoint.iteration}, objective {objective:.10g}"
        )
        return waypoint

    def pass_over(self) -> None:
        """Where an earlier run has left a checkpoint, say that it is not used."""
        if on_root(self.model.comm, self.path.exists):
            self.say(f"{self.path} is not used and will be replaced; --resume goes on from it")

    def end(self, solution: Solution) -> None:
        """The solve has ended: nothing is left to go on with, or there is."""
        if solution.converged:
            on_root(self.model.comm, lambda: self.path.unlink(missing_ok=True))
        elif self._latest is not None:
            self._write(self._latest())
            form = representation(self.model)
            self.say(
                f"{self.path} is left: --resume goes on from it; "
                f"{checkpoint_file.may_change(form)} may differ"
            )

    def _write(self, waypoint: Waypoint) -> None:
        problem = on_root(
            self.model.comm, lambda: checkpoint_file.write(self.path, self.model, waypoint)
        )
        if problem is not None and not self._warned:
            # The solve is worth more than its checkpoint.
            self.say(f"{self.path} could not be written ({problem}); the solve goes on")
            self._warned = True
        self._due = time.perf_counter() + self.every


def _has_state(model: Model, waypoint: Waypoint) -> bool:
    """Whether one can go on there: iterates of `all-at-once` need not have a state (collective).

    Coarser meshes are left to `nested`, which passes over them.
    """
    assert model.problem is not None
    if waypoint.coarser is not None and waypoint.coarser.mesh < model.case.solver.nested:
        return True
    controls = model.problem.controls
    try:
        objective = model.problem.objective(controls.coordinates(waypoint.control))
    except SlabFailure:
        return False
    return math.isfinite(objective)
