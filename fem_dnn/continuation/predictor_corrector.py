"""Pseudo-arclength continuation: tangent predictor, Newton corrector on the bordered system.

From a critical point with unit tangent t the next one lies in the plane at distance h along t:

    F(c, xi) = 0,    < t, (c, xi) - predictor > = 0,    predictor = point + h t

(Keller, in: Applications of Bifurcation Theory, 1977; Allgower & Georg, Numerical Continuation
Methods, 1990). The same corrector with the plane xi = const polishes a point at a fixed parameter,
and with a plane across a null vector finds the first point of another branch (`branches`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fem_dnn.continuation.bordered import Bordered, BorderedSolver
from fem_dnn.continuation.equations import Equations, Place, StepFailure
from fem_dnn.continuation.spectrum import spectrum_near
from fem_dnn.inertia import Inertia, UnresolvedSpectrum, inertia
from fem_dnn.problem import Linearisation

Array = NDArray[np.float64]

MAX_CORRECTIONS = 10
FORCING = 1e-3
"""Relative residual of a correction's linear solve; the last ones are solved as far as needed."""

TANGENT_RTOL = 1e-6

STALLED = 1e3
"""A correction that no longer improves has arrived if it is within this factor of the target."""


@dataclass(frozen=True, eq=False)
class Station:
    """A critical point on a branch, with all that the next step needs.

    Attributes:
        place: Control and parameter.
        at: Linearisation there.
        tangent: Unit tangent of the branch, in the metric of this point, along the way.
        spectrum: Inertia of the Hessian.
        corrections: Newton steps that led here.
    """

    place: Place
    at: Linearisation
    tangent: Place
    spectrum: Inertia
    corrections: int


class Stepper:
    """Steps along branches of one family of problems.

    Args:
        equations: F(c, xi) = 0.
        solver: Of the bordered systems.
    """

    def __init__(self, equations: Equations, solver: BorderedSolver) -> None:
        self.equations, self.solver = equations, solver
        self.controls = solver.controls

    def correct(self, guess: Place, row: Place) -> tuple[Place, Linearisation, int]:
        """The critical point in the plane through a guess that a row is normal to (collective).

        Args:
            guess: First iterate.
            row: (r, rho) of the plane r'(c - guess) + rho (xi - guess) = 0.

        Returns:
            The point, its linearisation, the Newton steps taken.

        Raises:
            StepFailure: Newton's method did not arrive.
        """
        place, target = guess, self.equations.target
        at = self.equations.at(place)
        norm = at.gradient_norm
        for steps in range(MAX_CORRECTIONS):
            if norm <= target:
                return place, at, steps
            rate = self.equations.rate(at, place.xi)
            rtol = max(0.1 * target / norm, FORCING)
            change = self.solver.solve(Bordered(at, rate, row), Place(-at.gradient, 0.0), rtol)
            trial = place.ahead(change, 1.0)
            at_trial = self.equations.at(trial)
            if at_trial.gradient_norm > 0.5 * norm and norm <= STALLED * target:
                return place, at, steps
            if at_trial.gradient_norm > 100 * norm:
                raise StepFailure("Newton's corrections grow")
            place, at, norm = trial, at_trial, at_trial.gradient_norm
        if norm <= STALLED * target:
            return place, at, MAX_CORRECTIONS
        raise StepFailure(f"the gradient norm is still {norm:.1e} after {MAX_CORRECTIONS} steps")

    def tangent(self, place: Place, at: Linearisation, row: Place) -> Place:
        """The unit tangent at a critical point, on the positive side of a row (collective).

        Raises:
            StepFailure: It was not found.
        """
        rate = self.equations.rate(at, place.xi)
        right = Place(np.zeros(self.controls.n_local), 1.0)
        direction = self.solver.solve(Bordered(at, rate, row), right, TANGENT_RTOL)
        length = self.equations.metric(place.control).norm(direction)
        if not math.isfinite(length) or length == 0:
            raise StepFailure("the branch has no tangent here")
        return direction.times(1 / length)

    def handle(self, place: Place) -> Place | None:
        """The unit vector along (dc, 1), H dc = -F_xi, at a branch point (collective).

        There F_xi is in the range of H. None if it was not found.
        """
        try:
            at = self.equations.at(place)
            row = Place(np.zeros(self.controls.n_local), 1.0)
            return self.tangent(place, at, row)
        except StepFailure:
            return None

    def station(
        self, guess: Place, row: Place, near: Inertia | None, along: Place | None = None
    ) -> Station:
        """The critical point in a plane, with tangent and inertia (collective).

        Args:
            guess: First iterate, in the plane.
            row: Normal of the plane.
            near: Inertia of a point near by; None: none is known.
            along: Row on whose positive side the tangent is; None: that of the plane.

        Raises:
            StepFailure: It was not found, or its spectrum could not be resolved.
        """
        place, at, corrections = self.correct(guess, row)
        tangent = self.tangent(place, at, along or row)
        try:
            spectrum = inertia(at) if near is None else spectrum_near(at, near)
        except UnresolvedSpectrum as problem:
            raise StepFailure(str(problem)) from None
        return Station(place, at, tangent, spectrum, corrections)

    def advance(self, station: Station, length: float) -> Station:
        """The station a step further along the branch (collective).

        Raises:
            StepFailure: Take a shorter step.
        """
        guess = station.place.ahead(station.tangent, length)
        row = self.equations.metric(station.place.control).row(station.tangent)
        return self.station(guess, row, station.spectrum)

    def land(self, station: Station, guess: Place, xi: float) -> Station:
        """The station at a given parameter, oriented as the branch is (collective).

        Raises:
            StepFailure: It was not found.
        """
        fixed = Place(np.zeros(self.controls.n_local), 1.0)
        row = self.equations.metric(station.place.control).row(station.tangent)
        return self.station(Place(guess.control, xi), fixed, station.spectrum, row)
