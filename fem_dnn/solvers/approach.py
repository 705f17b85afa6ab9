"""The way to where Newton's method converges at once: quasi-Newton steps in curvature's metric.

Far from a minimiser a Newton step's linear solve is good for a step that the trust region cuts
short: the valley bends after a length in which the quadratic model costs many Hessian products. In
the coordinates of `curvature_metric` the Hessian is s I but for few directions already, and these
are learned from the gradients at hand (`limited_memory`), for less than one product a step:

    c_{k+1} = c_k - t_k H_k g_k,        H_k the BFGS matrix from H_0 = T T' / s,

t_k by backtracking (Armijo), not much longer than the step before. T is made anew, and what has
been learned is forgotten, from one stretch of steps to the next: a stretch depends on nothing but
its first point and the length of the last step, so that a waypoint there is enough to go on from.
A stretch is one iteration in the solver's history; whether another one is worth while is told by
this history alone. That leaves Newton's method to end the descent by one step, or to take over
where quasi-Newton steps achieve little.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fem_dnn.coordinates import CurvatureCoordinates
from fem_dnn.curvature_metric import curvature_coordinates
from fem_dnn.problem import Linearisation
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers.descent import Descent
from fem_dnn.solvers.limited_memory import LimitedMemory
from fem_dnn.solvers.petsc import change_of_objective

Array = NDArray[np.float64]
Single = NDArray[np.float32]

STEPS = 30
"""Of a stretch, after which its metric is made anew."""

SETTLED, MOST_STEPS = 1e-4, 120
"""Where all of these together lower the objective by less than that part, the point hardly moves,
and the metric serves for as many more; for so many at most."""

PAIRS = 8
"""Remembered; with the vectors at work they take about as much memory as Newton's method does."""

FEW_PAIRS, MEMORY_BYTES = 3, 2e9
"""Where memory is short they are fewer: so many at least, in so many bytes per rank."""

STRETCHES = 40
"""At most. Those that it takes are 3 to 15 on the named problems of `benchmarks`."""

PATIENCE, LITTLE_DESCENT, LITTLE_REDUCTION = 3, 1e-6, 0.8
"""So many stretches achieve little if neither the objective falls by this part nor the gradient to
this part of what it was."""

GROWTH = 2.0
"""How much longer than the step before a step may be, in L2."""

DECREASE = 1e-4
"""Part of the decrease to first order that a step has to achieve."""

SHORTEST = 1e-6
"""Part of the first trial below which a direction is given up."""


def approach(descent: Descent) -> Linearisation:
    """Go on from a descent's start as far as quasi-Newton steps are worth while (collective).

    Stretches are recorded in the descent's history.

    Args:
        descent: Of a problem that has coordinates of curvature (`curvature_metric.why_not`), no
            Hessian product taken yet.

    Returns:
        The point reached.
    """
    at, longest = descent.start, descent.radius or math.inf
    pairs = min(PAIRS, descent.petsc.problem.room_for(MEMORY_BYTES))
    while pairs >= FEW_PAIRS and _worth_while(descent):
        stretch = _Stretch(descent, curvature_coordinates(at), pairs, longest)
        at = stretch.run(at)
        if stretch.taken == 0:
            return at
        descent.history.add(at, stretch.last)
        longest = GROWTH * stretch.last
    return at


def _worth_while(descent: Descent) -> bool:
    """Whether a stretch is to be expected to do well, after those in the history."""
    history = descent.history
    *before, last = history.iterations
    if not descent.iterations_left or len(before) >= STRETCHES:
        return False
    if descent.is_near(last.gradient_norm):
        return False
    if len(before) < PATIENCE:
        return True
    fell = before[-PATIENCE].objective - last.objective
    reduced = last.gradient_norm < LITTLE_REDUCTION * before[-PATIENCE].gradient_norm
    return reduced or fell > LITTLE_DESCENT * abs(last.objective)


class _Stretch:
    """Steps by one metric.

    Args:
        descent: Whose target is approached.
        metric: T, and s: the Hessian in z is about s I.
        pairs: How many are remembered.
        longest: Length that the first step may have, in L2.

    Attributes:
        taken: Steps so far.
        last: Length of the last one, in L2.
    """

    def __init__(
        self, descent: Descent, metric: CurvatureCoordinates, pairs: int, longest: float
    ) -> None:
        self.problem, self.metric, self.longest = descent.petsc.problem, metric, longest
        self.descent = descent
        self.memory = LimitedMemory(self.problem.controls, pairs)
        self.taken, self.last = 0, 0.0

    def run(self, at: Linearisation) -> Linearisation:
        """Take steps; the point reached."""
        controls = self.problem.controls
        size = at.gradient_norm  # the unit of gradients: single precision is small
        before = at.objective
        while not self.descent.is_near(at.gradient_norm):
            if self.taken and self.taken % STEPS == 0:
                if self.taken >= MOST_STEPS or not _settled(before, at.objective):
                    break
                before = at.objective
            step = -size * self._direction(at, size).astype(np.float64)
            slope, length = controls.dot(at.gradient, step), controls.norm(step)
            if not slope < 0:
                break
            found = self._lower(at, step, slope, min(1.0, self.longest / length))
            if found is None:
                break
            part, at = found
            self.memory.moved(part)
            self.taken, self.last = self.taken + 1, part * length
            self.longest = GROWTH * self.last
        return at

    def _direction(self, at: Linearisation, size: float) -> Single:
        """H gradient, in that unit."""
        unit: Single = np.multiply(at.gradient, 1 / size, dtype=np.float32, casting="same_kind")
        return self.memory.direction(unit, self.metric.inverse(unit))

    def _lower(
        self, at: Linearisation, step: Array, slope: float, part: float
    ) -> tuple[float, Linearisation] | None:
        """A part of a step that is low enough, and where it leads; None: there is none."""
        least = SHORTEST * part
        while part >= least:
            trial = self.problem.linearise(self.problem.moved(at, part * step))
            excess = _change(at, trial) - part * slope
            if excess <= (DECREASE - 1) * part * slope and _has_gradient(trial):
                return part, trial
            # The parabola through both values and the slope has its minimum there.
            lowest = -0.5 * slope * part**2 / excess if math.isfinite(excess) else 0.0
            part = min(max(lowest, 0.1 * part), 0.5 * part)
        return None


def _settled(before: float, now: float) -> bool:
    """Whether an objective has hardly fallen."""
    return before - now <= SETTLED * abs(now)


def _change(at: Linearisation, trial: Linearisation) -> float:
    """Of J from one point to the other; infinite where it cannot be computed."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            change = change_of_objective(at, trial)
    except SlabFailure:
        return math.inf
    return change if math.isfinite(change) else math.inf


def _has_gradient(trial: Linearisation) -> bool:
    """Whether the gradient can be computed."""
    try:
        return math.isfinite(trial.gradient_norm)
    except SlabFailure:
        return False
