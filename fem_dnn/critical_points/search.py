"""The search for distinct critical points.

Newton's method from the case's guess; then, with everything found deflated, from the same guess
until it fails, from the symmetric images of every point, along both ways of its negative
curvature, and from random starts. Where Newton's method fails from a start, the objective is first
reduced by a few steps of the trust region, and Newton's method starts where these end. What it
finds is polished without deflation, and listed if it is critical to the solver's tolerance and
distinct from all others. Failed solves are never deflated and never listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fem_dnn.critical_points.copies import Copy, copy_of
from fem_dnn.critical_points.deflated_newton import DEFAULTS, LOOSE, deflated_newton, polish
from fem_dnn.critical_points.deflation import Deflation, Root
from fem_dnn.critical_points.symmetry import Symmetry
from fem_dnn.inertia import Inertia, UnresolvedSpectrum, inertia
from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers import Tolerances, solve_newton
from fem_dnn.solvers.descent import KINK, lowest_along
from fem_dnn.solvers.petsc import PREFIX, PetscProblem, inserted_options

Array = NDArray[np.float64]

SHORT = 1e-3
"""Controls shorter than this part of the search's length are compared with that."""

ASIDE = 0.1
"""How far a start that is a known point is moved aside, as a part of the search's length."""

NEAR = 1e-4
"""Images with gradients below this part of the reference are critical but for round-off."""

AT_KINK = 1e-12
"""Pre-activations within this distance of a kink are at it but for round-off."""

OFF_KINK = (
    "pre-activations are at a kink of the activation, and the objective falls on its other side"
)

DIRECTIONS = 3
"""Directions of negative curvature that are followed from each point."""

LOWERED, LOWERING = 0.03, 50
"""Part of the start's gradient that steps of the trust region leave, and how many there may be."""

LIMIT = 100
"""Newton steps of one deflated solve: those that succeed take far fewer."""


@dataclass(frozen=True)
class Settings:
    """How to search.

    Attributes:
        points: Stop after so many.
        distance: Points closer than this in L2, relative, are the same.
        length: L2 norm of typical controls.
        tolerances: When a point is critical.
    """

    points: int
    distance: float
    length: float
    tolerances: Tolerances


@dataclass(frozen=True, eq=False)
class Start:
    """Where a solve starts.

    Attributes:
        name: What to call it.
        control: Local control vector; a function where it takes time and may not be needed.
    """

    name: str
    control: Callable[[], Array]


@dataclass(frozen=True, eq=False)
class CriticalPoint:
    """A critical point.

    Attributes:
        at: The learning problem linearised there.
        inertia: Its kind and lowest eigenvalues.
        found_from: The start it was found from, and whether others were deflated.
        iterations: Newton steps, polishing included.
        copy: Which earlier point it is a symmetric copy of, and how it was recognised.
    """

    at: Linearisation
    inertia: Inertia
    found_from: str
    iterations: int
    copy: Copy | None = None


@dataclass(eq=False)
class Findings:
    """What a search has found.

    Attributes:
        points: The distinct critical points, in the order they were found.
        solves: Newton solves begun.
        failures: Reasons of those that failed, with how often.
        iterations: Newton steps of all solves.
        complete: Whether the search ended because no start was left.
        reference: Gradient norm that the relative tolerance refers to: that of the guess, or where
            this is critical itself that of a random control.
    """

    points: list[CriticalPoint] = field(default_factory=list)
    solves: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    iterations: int = 0
    complete: bool = False
    reference: float = 0.0


Tell = Callable[[str, bool], None]
"""Called with a line, and whether it is worth it in a short search too."""


def find_critical_points(
    problem: LearningProblem,
    guess: Array,
    starts: Iterable[Start],
    settings: Settings,
    options: Mapping[str, object],
    *,
    symmetries: Iterable[Symmetry] = (),
    tell: Tell = lambda text, always: None,
) -> Findings:
    """Search for distinct critical points (collective).

    Args:
        problem: Learning problem without bounds.
        guess: The first start, a local control vector.
        starts: Further starts.
        settings: How many points, how distinct, how accurate.
        options: The user's PETSc options, without prefix.
        symmetries: Maps of controls that may carry critical points to critical points.
        tell: Called with a line for every point found and for every start.

    Raises:
        BadInput: A PETSc option that nothing reads.
        SlabFailure: The state equation cannot be solved at the guess.
    """
    search = _Search(problem, settings, options, list(symmetries), tell)
    try:
        search.run(guess, list(starts))
    finally:
        search.petsc.destroy()
    return search.findings


@dataclass(eq=False)
class _Origin:
    """A start, and what has become of it.

    Attributes:
        name: What to call it.
        control: Where it is.
        failed: Whether Newton's method has failed from it, or is not worth trying.
        lowered: Where a few steps of the trust region from it end, once known.
    """

    name: str
    control: Array
    failed: bool = False
    lowered: Array | None = None


class _Search:
    def __init__(
        self,
        problem: LearningProblem,
        settings: Settings,
        options: Mapping[str, object],
        symmetries: list[Symmetry],
        tell: Tell,
    ) -> None:
        self.problem, self.settings, self.options = problem, settings, options
        self.symmetries, self.tell = symmetries, tell
        self.petsc = PetscProblem(problem)
        self.findings = Findings()
        self.target = 0.0

    @property
    def points(self) -> list[CriticalPoint]:
        return self.findings.points

    @property
    def enough(self) -> bool:
        return len(self.points) >= self.settings.points

    def run(self, guess: Array, starts: list[Start]) -> None:
        """All starts, until there are enough points."""
        tolerances = self.settings.tolerances
        reference = self.problem.linearise(guess).gradient_norm
        if reference <= tolerances.atol:
            # The guess is critical itself and sets no scale: a control of typical length does.
            beside = guess + self.settings.length * self.problem.controls.random_direction(0)
            reference = self.problem.linearise(beside).gradient_norm
        self.findings.reference = reference
        self.target = tolerances.target(reference)
        explored = 0
        for start in [Start("the initial guess", lambda: guess), *starts]:
            self.tell(f"from {start.name}", False)
            origin = _Origin(start.name, start.control())
            while not self.enough and self.attempt(origin):
                pass
            while explored < len(self.points) and not self.enough:
                explored += 1
                self.explore(explored)
            if self.enough:
                return
        self.findings.complete = True

    def explore(self, number: int) -> None:
        """Look for points that a known one leads to: its images and its unstable directions."""
        point = self.points[number - 1]
        for symmetry in self.symmetries:
            image = symmetry.apply(point.at.control)
            norm = self.problem.linearise(image).gradient_norm
            close = norm <= max(self.target, NEAR * self.findings.reference)
            if close and not self.known(image) and not self.enough:
                self.attempt(_Origin(f"the {symmetry.name} of point {number}", image))
        for pair in point.inertia.pairs[: min(point.inertia.negative, DIRECTIONS)]:
            for sign in (1.0, -1.0):
                lower = lowest_along(point.at, sign * pair.vector)
                if lower is not point.at and not self.enough:
                    name = f"negative curvature of point {number}"
                    # A minimiser is likely down there, and it is cheaper to go down to it.
                    self.attempt(_Origin(name, lower.control, failed=True))

    def attempt(self, origin: _Origin) -> bool:
        """Look for a new point from a start with everything known deflated; whether one is found.

        By Newton's method; else by Newton's method from a lower point; else by going down on.
        """
        if not origin.failed:
            if self.solve(origin.name, origin.control):
                return True
            origin.failed = True
        first = origin.lowered is None
        if origin.lowered is None:
            origin.lowered = self.lowered(origin.control, LOWERED)
        if self.solve(f"{origin.name}, lowered", origin.lowered):
            return True
        bottom = self.lowered(origin.lowered, LOOSE) if first else origin.lowered
        return first and not self.known(bottom) and self.solve(f"{origin.name}, lowered", bottom)

    def lowered(self, control: Array, part: float) -> Array:
        """Where steps of the trust region end that reduce the gradient to a part."""
        tolerances = Tolerances(part, self.target, LOWERING)
        try:
            return solve_newton(self.problem, control, tolerances, escape=False).control
        except SlabFailure:
            return control

    def solve(self, name: str, control: Array) -> bool:
        """One deflated solve; whether it has found a new point."""
        findings, settings = self.findings, self.settings
        findings.solves += 1
        near = self.known(control)
        if near:
            control = self.aside(control, self.points[near - 1])
        if self.points:
            name += f", {len(self.points)} deflated"
        roots = [Root(each.at.control, self.scale(each.at.control)) for each in self.points]
        deflation = Deflation(self.problem.controls, roots)
        limit = min(settings.tolerances.max_iterations, LIMIT)
        loose = max(self.target, LOOSE * findings.reference)
        try:
            with inserted_options(PREFIX, DEFAULTS, self.options) as options:
                start = self.problem.linearise(control)
                solve = deflated_newton(self.petsc, start, deflation, loose, limit, options)
                findings.iterations += solve.iterations
                if not solve.converged:
                    return self.fail(solve.reason)
                polished = polish(self.petsc, solve.at, self.target)
                findings.iterations += polished.iterations
                at = polished.at
                if not polished.converged:
                    return self.fail(polished.reason)
                kink = self.kink(at)
                if kink is not None:
                    return self.fail(kink)
                if self.known(at.control):
                    return self.fail("polishing leads back to a known point")
                kind = inertia(at)
        except (SlabFailure, UnresolvedSpectrum) as failure:
            return self.fail(str(failure))
        steps = solve.iterations + polished.iterations
        copy = copy_of(at, kind, [(each.at, each.inertia) for each in self.points], self.symmetries)
        self.points.append(CriticalPoint(at, kind, name, steps, copy))
        self.tell(
            f"point {len(self.points)}: {kind.kind}, objective {at.objective:.10g}, "
            f"{kind.negative} negative eigenvalues, from {name} ({steps} steps)",
            True,
        )
        return True

    def fail(self, reason: str) -> bool:
        failures = self.findings.failures
        failures[reason] = failures.get(reason, 0) + 1
        return False

    def length(self, control: Array) -> float:
        """The length that distances from a control are measured with."""
        return max(self.problem.controls.norm(control), SHORT * self.settings.length)

    def scale(self, control: Array) -> float:
        """The length that deflation of a control fades at."""
        norm = self.problem.controls.norm(control)
        return norm if norm > SHORT * self.settings.length else self.settings.length

    def distance(self, a: Array, b: Array) -> float:
        """Relative L2 distance of two controls."""
        apart = self.problem.controls.norm(a - b)
        return apart / max(self.length(a), self.length(b))

    def known(self, control: Array) -> int:
        """Number of the known point that a control is the same as; 0: none."""
        for number, point in enumerate(self.points, 1):
            if self.distance(control, point.at.control) <= self.settings.distance:
                return number
        return 0

    def aside(self, control: Array, point: CriticalPoint) -> Array:
        """A start beside a known point, along its lowest eigenvector."""
        step = ASIDE * max(self.settings.length, self.length(control))
        moved: Array = control + step * point.inertia.pairs[0].vector
        return moved

    def kink(self, at: Linearisation) -> str | None:
        """Why a point at an activation's kink is no critical point; None where it is one.

        A gradient that is taken from one side of the kink may vanish while J falls to the other.
        """
        if at.problem.network.activation.smooth:
            return None
        if not self.problem.controls.any_rank(bool(np.any(at.state.u))):
            return KINK
        return OFF_KINK if slope_off_kinks(at) > self.target else None


def slope_off_kinks(at: Linearisation) -> float:
    """How steeply J falls where pre-activations at a kink of the activation rise (collective).

    At such a point the activation's slope is taken as 0, and is 1 above: raising u_s(x, t) changes
    J by w_s p_s(x, t), downwards where p_s < 0. The L2 norm of all these slopes.
    """
    problem, u = at.problem, at.state.u
    falling = np.where(np.abs(u) <= AT_KINK, np.minimum(at.adjoint.levels, 0.0), 0.0)
    slopes = problem.controls.bias_scale[:, :, None] * problem.sample_weights * falling
    return float(np.sqrt(problem.network.space.sum(np.sum(slopes**2))))
