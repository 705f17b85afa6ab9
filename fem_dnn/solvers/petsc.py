"""The learning problem as PETSc sees it: vectors, objective, gradient, Hessian.

Vectors hold controls in L2-orthonormal coordinates, so every norm PETSc prints is an L2 norm. Where
derivatives of the controls are penalised they hold z of c = c_0 + T z instead, the coordinates of
the regulariser's own inner product (`riesz`); convergence is judged in L2 all the same. Bounds on
nodal values are a box in L2-orthonormal coordinates alone, so there these are kept. Where steps are
measured by a metric of the iterate's own (`LearningProblem.metric`), z is that of the last iterate:
as it moves, the vector stays and its meaning changes, c = c_k + T_k (z - z_k), or what
`LearningProblem.moved` makes of that step.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from petsc4py import PETSc

from fem_dnn.coordinates import Coordinates, Metric
from fem_dnn.errors import BadInput
from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.riesz import RieszMap
from fem_dnn.slab import SlabFailure

Array = NDArray[np.float64]

INFEASIBLE = sys.float_info.max**0.5
"""Objective reported where the state equation could not be solved: any step there is rejected."""


Measure = Callable[[Linearisation], Metric | None]
"""Tells the metric of steps from a point."""

NOISE = 1e-11
"""Relative change of the objective below which its values are no evidence."""


def change_of_objective(before: Linearisation, after: Linearisation) -> float:
    """J there less J here (collective).

    Near a minimiser J changes by less than its round-off, and who compares its values would reject
    good steps. There the change is taken from the gradients at both ends of the step (trapezoidal
    rule, Conn, Gould & Toint, Trust-Region Methods, 17.4.2).
    """
    change = after.objective - before.objective
    if abs(change) > NOISE * abs(before.objective):
        return change
    slopes = 0.5 * (before.gradient + after.gradient)
    return before.problem.controls.dot(slopes, after.control - before.control)


class HessianShell:
    """Context of the shell matrix: the reduced Hessian at one linearisation.

    Args:
        riesz: T, where the matrix acts on coordinates z: T' H T; None: H itself.
    """

    def __init__(self, riesz: Coordinates | None = None) -> None:
        self.riesz = riesz
        self.at: Linearisation | None = None

    def mult(self, _mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """y = H x."""
        assert self.at is not None, "the Hessian has no linearisation point yet"
        if self.riesz is None:
            y.array_w[:] = self.at.hessian_action(x.array_r)
        else:
            self.at.hessian_in(self.riesz, x.array_r, y.array_w)

    multTranspose = mult  # noqa: N815 (the name PETSc calls)


@dataclass
class _Visited:
    """A control that was visited, its PETSc vector, and what was told of its objective."""

    at: Linearisation
    z: Array
    told: float | None = None


class PetscProblem:
    """Callbacks for SNES and TAO on one learning problem.

    It remembers the two controls visited last (the current iterate and the trial point), so that
    objective, gradient and Hessian asked for at the same control share one `Linearisation`.

    Args:
        problem: The learning problem.
        measure: The metric by which steps from an iterate are measured, asked for at each; None:
            the problem's own.
    """

    def __init__(self, problem: LearningProblem, measure: Measure | None = None) -> None:
        self.problem = problem
        self._measure = measure or problem.metric
        self.comm = problem.controls.comm
        self.sizes = (problem.controls.n_local, problem.controls.n_global)
        riesz = RieszMap(problem.regularization)
        bounded = problem.controls.box is not None
        self.riesz: Coordinates | None = None if riesz.trivial or bounded else riesz
        """T of the coordinates z; None where vectors hold the controls themselves."""
        self._origin: tuple[Array, Array] | None = None
        self._measured: Linearisation | None = None
        self._recent: list[_Visited] = []
        self._iterate: _Visited | None = None
        self.failure: SlabFailure | None = None
        """Why the last trial point was rejected, if its state could not be computed."""
        self._shell = HessianShell(self.riesz)
        self.hessian = PETSc.Mat().createPython(
            (self.sizes, self.sizes), self._shell, comm=self.comm
        )
        self.hessian.setOption(PETSc.Mat.Option.SYMMETRIC, True)
        self.hessian.setUp()

    def vector(self, values: Array | None = None) -> PETSc.Vec:
        """A new vector, a copy of local values if given; the caller destroys it."""
        vec = PETSc.Vec().createMPI(self.sizes, comm=self.comm)
        if values is not None:
            vec.array_w[:] = values
        return vec

    def start(self, at: Linearisation) -> PETSc.Vec:
        """A new vector that stands for a linearisation, which is remembered; destroy it.

        In coordinates z this is their origin.
        """
        metric = self._measure(at)
        if metric is not None:
            self.riesz, self._measured = metric, at
        vec = self.vector(at.control if self.riesz is None else None)
        z = at.control if self.riesz is None else np.array(vec.array_r)
        self._origin = None if self.riesz is None else (at.control, z)
        self._recent = [_Visited(at, z)]
        self._iterate = None
        return vec

    def _measure_from(self, visited: _Visited) -> bool:
        """Take an iterate's own metric, where it has one; whether coordinates have changed."""
        if self._measured is None or self._measured is visited.at:
            return False
        self._measured.forget()
        self.riesz, self._measured = self._measure(visited.at), visited.at
        self._shell.riesz = self.riesz
        self._origin = visited.at.control, visited.z
        self._recent = [visited]  # other vectors stand for other controls now
        return True

    def _control(self, z: Array) -> Array:
        """The control of a vector's local values, a new array."""
        if self.riesz is None or self._origin is None:
            return np.array(z)
        control, origin = self._origin
        step = self.riesz.apply(z - origin)
        return (
            control + step if self._measured is None else self.problem.moved(self._measured, step)
        )

    def at(self, x: PETSc.Vec) -> Linearisation:
        """The linearisation at a vector (collective)."""
        return self._visit(x).at

    def _visit(self, x: PETSc.Vec) -> _Visited:
        values = x.array_r
        differs = self.problem.controls.any_rank
        for known in self._recent:
            if not differs(not np.array_equal(known.z, values)):
                return known
        control = self._control(values)
        # Where vectors hold the controls themselves, one copy is both.
        z = control if self.riesz is None else np.array(values)
        fresh = _Visited(self.problem.linearise(control), z)
        self._recent = [fresh, *self._recent[:1]]
        return fresh

    def objective(self, _solver: PETSc.Object, x: PETSc.Vec) -> float:
        """J; a huge number where an implicit slab fails or the state overflows.

        Where a change is below the values' round-off (`change_of_objective`), PETSc is told a
        decrease or increase that is large enough to be seen.
        """
        visited = self._visit(x)
        try:
            if visited.told is None:
                told = self._tell(visited.at)
                visited.told = told if math.isfinite(told) else INFEASIBLE
            return visited.told
        except SlabFailure as failure:
            self.failure = failure
            return INFEASIBLE

    def _tell(self, at: Linearisation) -> float:
        base = self._iterate
        if base is None or base.told is None:
            return at.objective
        change, visible = change_of_objective(base.at, at), NOISE * abs(base.at.objective)
        return base.told + math.copysign(max(abs(change), visible), change)

    def gradient(self, _solver: PETSc.Object, x: PETSc.Vec, g: PETSc.Vec) -> None:
        """The reduced gradient; infinite where an implicit slab fails."""
        try:
            gradient = self.at(x).gradient
            g.array_w[:] = gradient if self.riesz is None else self.riesz.apply_transpose(gradient)
        except SlabFailure as failure:
            self.failure = failure
            g.array_w[:] = np.inf

    def objective_gradient(self, solver: PETSc.Object, x: PETSc.Vec, g: PETSc.Vec) -> float:
        """J and the reduced gradient together, as TAO asks for them."""
        self.gradient(solver, x, g)
        return self.objective(solver, x)

    def set_hessian(self, solver: PETSc.Object, x: PETSc.Vec, _H: PETSc.Mat, _P: PETSc.Mat) -> None:
        """Move the shell Hessian, and the metric, to the iterate."""
        self._iterate, self.failure = self._visit(x), None
        self._shell.at, self._shell.riesz = self._iterate.at, self.riesz
        if self._measure_from(self._iterate):
            # SNES goes on with the gradient that it has asked for before: by the old coordinates.
            self.gradient(solver, x, solver.getFunction()[0])

    def destroy(self) -> None:
        """Free the PETSc objects, at the same moment on all ranks."""
        self.hessian.destroy()
        self._recent, self._iterate, self._shell.at = [], None, None


PREFIX = "fem_dnn_"
"""Prefix of all our PETSc options; the command line's `-- -name` gets it unasked."""

LATE = ("view", "monitor", "reason", "draw")
"""Parts of the names of options that PETSc may read as late as when it is done."""

EIGENSOLVER = {"eps", "st", "bv", "ds"}
"""First words of SLEPc's options, which are read when a critical point is examined."""


@dataclass(frozen=True)
class OptionsInUse:
    """PETSc options that a user has given.

    Attributes:
        prefix: Their prefix.
        objects: First words of the options of the PETSc objects in use (snes, ksp, ...).
        user: Names and values without prefix.
        suggested: Names of options that a method has set by itself.
    """

    prefix: str
    objects: set[str]
    user: Mapping[str, object]
    suggested: set[str] = field(default_factory=set)

    def given(self, name: str) -> bool:
        """Whether the user has given an option."""
        return name in self.user

    @property
    def only_watch(self) -> bool:
        """Whether those that the user has given leave the method's way as it is."""
        return all(
            name.split("_")[0] in EIGENSOLVER or any(part in name for part in LATE)
            for name in self.user
        )

    def suggest(self, name: str, value: object) -> None:
        """Set an option that the user has not given, until the solve ends."""
        if not self.given(name):
            PETSc.Options(self.prefix).setValue(name, value)
            self.suggested.add(name)

    def unread(self) -> list[str]:
        """Names that nothing has asked for so far."""
        return [name for name in self.user if not _was_read(self.prefix + name)]

    def require_read(self) -> None:
        """Call it when the solver is set up, before a long solve is done for nothing.

        Raises:
            BadInput: Nothing has read an option, nor will.
        """
        for name in self.unread():
            first = name.split("_")[0]
            late = first in self.objects and any(part in name for part in LATE)
            if not late and first not in EIGENSOLVER:
                raise BadInput(
                    None,
                    f"PETSc option -{name}",
                    "nothing in this solve reads it",
                    "options of the PETSc objects in use, such as -snes_monitor or -ksp_max_it",
                )


@contextmanager
def inserted_options(
    prefix: str, defaults: Mapping[str, object], user: Mapping[str, object]
) -> Iterator[OptionsInUse]:
    """PETSc options under a prefix for as long as the solve lasts; the user's win.

    Sub-solvers read theirs late, so they stay in until the end.
    """
    options = PETSc.Options(prefix)
    merged = {**defaults, **user}
    for name, value in merged.items():
        options.setValue(name, value)
    in_use = OptionsInUse(prefix, {name.split("_")[0] for name in defaults}, user)
    try:
        yield in_use
    finally:
        for name in {*merged, *in_use.suggested}:
            options.delValue(name)


class HasOptions(Protocol):
    """An object of PETSc's or SLEPc's that reads options."""

    def setFromOptions(self) -> None:
        """Read them."""


def read_options(thing: HasOptions) -> None:
    """Let a PETSc object read its options: a value that it refuses is the user's mistake.

    Raises:
        BadInput: PETSc does not take a value.
    """
    try:
        thing.setFromOptions()
    except PETSc.Error as problem:
        raise BadInput(
            None,
            "PETSc options",
            f"have a value that PETSc refuses (its error {problem.ierr})",
            "values as in PETSc's manual, such as -ksp_max_it 50 or -snes_type newtonls",
        ) from None


@contextmanager
def original_errors() -> Iterator[None]:
    """Let errors raised in callbacks (an interruption, say) out as they are.

    petsc4py wraps them into its own error, whose cause they become.
    """
    try:
        yield
    except PETSc.Error as wrapper:
        cause = wrapper.__cause__
        while isinstance(cause, PETSc.Error):
            cause = cause.__cause__
        if cause is None:
            raise
        raise cause from None


def _was_read(name: str) -> bool:
    """Whether any PETSc object has asked for an option; petsc4py does not wrap this function."""
    library = ctypes.CDLL(PETSc.__file__)
    used = ctypes.c_int(0)
    library.PetscOptionsUsed(None, name.encode(), ctypes.byref(used))
    return bool(used.value)
