"""Gradient descent over all layers at once, in L2.

Steps have the lengths of Barzilai & Borwein (IMA J. Numer. Anal. 8, 1988), long and short ones
chosen as in Zhou, Gao & Dai (Comput. Optim. Appl. 35, 2006), and are accepted by the nonmonotone
rule of Grippo, Lampariello & Lucidi (SIAM J. Numer. Anal. 23, 1986): sufficient decrease below the
largest of the last few objectives. So the method converges from anywhere (Raydan, SIAM J. Optim.
7, 1997) and is much faster than steepest descent; the objective may rise between iterations.
Within bounds the steps are projected (Birgin, Martinez & Raydan, SIAM J. Optim. 10, 2000).
"""

from __future__ import annotations

from collections import deque

import numpy as np

from fem_dnn.problem import Linearisation
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers.descent import Descent
from fem_dnn.solvers.method import Method, Way
from fem_dnn.solvers.petsc import NOISE
from fem_dnn.solvers.step import ARMIJO, SHORTEST, TOO_MANY, Failures, shortened

MEMORY = 10
"""Objectives remembered; 1 makes the objective decrease monotonically."""

SHORT = 0.5
"""The short step is taken where it is less than this part of the long one."""

LONGEST = 1e6
"""Longest step; along directions without curvature it grows up to this."""


def _descend(descent: Descent) -> tuple[Linearisation, str]:
    """Step until the gradient is small."""
    descent.options.require_read()
    controls, failures = descent.petsc.problem.controls, Failures()
    at = descent.start
    recent = deque([at.objective], maxlen=MEMORY)
    step = 1.0 / max(at.gradient_norm, 1.0)
    try:
        while at.gradient_norm > descent.target:
            if not descent.iterations_left:
                return descent.outcome(at, TOO_MANY)
            lower, step = _line_search(at, step, max(recent), failures)
            if lower is at:
                return descent.outcome(at, failures.stagnation())
            s = lower.control - at.control
            # Where a bound has held the controls there is nothing to learn of curvature.
            y = np.where(s != 0, lower.gradient - at.gradient, 0.0)
            ss, sy, yy = controls.dot(s, s), controls.dot(s, y), controls.dot(y, y)
            if sy > 0:
                step = sy / yy if sy * sy < SHORT * ss * yy else ss / sy
            else:
                step *= 10
            step = min(step, LONGEST)
            at = lower
            recent.append(at.objective)
            descent.history.add(at)
        return descent.outcome(at, "")
    except SlabFailure as failure:
        # In an adjoint: keep what has been reached.
        return descent.outcome(descent.history.at or descent.start, str(failure))


solve_gradient = Method("gradient", Way(_descend), within_bounds=Way(_descend))
"""Gradient descent; of PETSc's options only those of the eigensolver have a reader."""


def _line_search(
    at: Linearisation, step: float, ceiling: float, failures: Failures
) -> tuple[Linearisation, float]:
    """The first point along P(c - step gradient) that is low enough, and the step.

    The start if none is.
    """
    problem, controls = at.problem, at.problem.controls
    shortest = SHORTEST * max(controls.norm(at.control), 1.0) / at.gradient_norm
    # Where J is flat to round-off its values cannot reject a step: Barzilai & Borwein's steps
    # converge there by themselves (Dai & Liao, IMA J. Numer. Anal. 22, 2002).
    allowed = ceiling + NOISE * abs(ceiling)
    while step > shortest:
        trial = problem.linearise(controls.project(at.control - step * at.gradient))
        decrease = controls.dot(at.gradient, trial.control - at.control)
        objective = failures.value(lambda trial=trial: trial.objective)  # type: ignore[misc]
        if objective <= allowed + ARMIJO * decrease:
            return trial, step
        step = shortened(step, decrease / step, objective - at.objective)
    return at, step
