"""Steps of the methods that PETSc does not provide: is a trial point lower than the iterate?

Near a minimiser the objective changes by less than its round-off, and its values say nothing.
There the change is taken from the gradients at both ends of the step (the trapezoidal rule; used
in Armijo's condition this is the approximate Wolfe condition of Hager & Zhang, SIAM J. Optim. 16,
2005).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fem_dnn.slab import SlabFailure
from fem_dnn.solvers.petsc import NOISE

ARMIJO = 1e-4
"""Part of the decrease promised by the gradient that a step has to attain."""

SHORTEST = 1e-14
"""Steps shorter than this, relative to the controls, change nothing."""

STAGNATION = (
    "no step along the gradient decreases the objective beyond round-off at a gradient norm of "
    "{gradient_norm:.2e}; if that is small enough raise solver.rtol, else smooth the activation "
    '(softplus for relu) or use solver.method = "newton"'
)

TOO_MANY = (
    "the limit of {iterations} iterations was reached at a gradient norm of {gradient_norm:.2e}; "
    'raise solver.max_iterations, or use solver.method = "newton"'
)


@dataclass
class Failures:
    """Trial points whose state could not be computed.

    Attributes:
        last: The last one's error; None if there was none.
    """

    last: SlabFailure | None = None

    def value(self, objective: Callable[[], float]) -> float:
        """The objective; infinite where the state cannot be computed or overflows."""
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                value = objective()
        except SlabFailure as failure:
            self.last = failure
            return math.inf
        return value if math.isfinite(value) else math.inf

    def stagnation(self) -> str:
        """Why no step was found."""
        return STAGNATION if self.last is None else str(self.last)


def is_noise(change: float, objective: float) -> bool:
    """Whether a change of the objective is within its round-off."""
    return abs(change) <= NOISE * abs(objective)


def shortened(step: float, slope: float, change: float) -> float:
    """The next step to try: the minimiser of the parabola through what is known, or nearly.

    Args:
        step: The step that failed.
        slope: Derivative of J along the step's direction, negative.
        change: How J changed.
    """
    if not math.isfinite(change):
        return 0.1 * step
    parabola = -0.5 * slope * step * step / (change - slope * step)
    return min(max(parabola, 0.1 * step), 0.5 * step)
