"""Of the controls that reach every target exactly, those of least cost.

    min R(c)   subject to   outputs(c) = targets

by the method of multipliers (Hestenes, Powell, 1969): with the loss
(omega / 2)|outputs - targets|^2 a multiplier is a shift of the targets, so each step is a learning
problem of the ordinary kind, and

    targets <- targets + (wanted - outputs)

converges at a moderate weight omega, where a penalty alone would need omega -> infinity. Started at
exact controls the first step costs no more than they do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fem_dnn.controllability.exact import exact_controls
from fem_dnn.controllability.targets import OutOfReach
from fem_dnn.losses import L2Loss, OutputLoss, mse
from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.solvers import Tolerances, solve_newton

Array = NDArray[np.float64]

ENOUGH = 0.25
"""Factor by which a step shall shrink the misfit; else omega grows tenfold."""


@dataclass(frozen=True, eq=False)
class MinimumNorm:
    """Outcome of the method of multipliers.

    Attributes:
        at: The learning problem at the controls.
        cost: Their R, locally the least.
        misfit: Largest distance of a sample's outputs from its targets: L2(Y), or in R^K.
        misfits: After every step, the first one without a multiplier.
        weight: omega at the end.
        converged: Whether the misfit is below the tolerance and the last step was solved.
        reason: Why it ended.
    """

    at: Linearisation
    cost: float
    misfit: float
    misfits: tuple[float, ...]
    weight: float
    converged: bool
    reason: str


def minimum_norm_controls(
    problem: LearningProblem,
    start: Array | None = None,
    *,
    weight: float = 1000.0,
    tolerance: float = 1e-9,
    max_steps: int = 30,
    say: Callable[[str], None] | None = None,
) -> MinimumNorm:
    """Controls of locally least cost that reach the targets of an l2 or mse loss (collective).

    Args:
        problem: Its loss supplies the targets, its R the cost; tracking is left out.
        start: Local control vector; None: the exact controls of the straight path.
        weight: First omega, relative to the largest Tikhonov weight.
        tolerance: On the misfit.
        max_steps: Limit on the multiplier's steps.
        say: Told of every step.

    Raises:
        OutOfReach: The loss has no targets, or no start is given and the straight path has none.
    """
    loss = problem.loss
    if not (isinstance(loss, L2Loss) or (isinstance(loss, OutputLoss) and loss.pointwise is mse)):
        raise OutOfReach("targets", "logistic and softmax losses have no targets to reach")
    control = exact_controls(problem).control if start is None else start
    omega, shift = weight * max(problem.regularization.weights), np.zeros_like(loss.targets)
    misfits: list[float] = []
    while True:
        shifted = replace(loss, targets=loss.targets + shift, weight=omega)
        solution = solve_newton(
            replace(problem, loss=shifted, tracking=None),
            control,
            Tolerances(rtol=1e-10, atol=1e-11 * omega),
        )
        control = solution.control
        missing = loss.targets - _outputs(solution.at)
        misfits.append(_largest(problem, missing))
        if say is not None:
            say(f"step {len(misfits)}: misfit {misfits[-1]:.2e}, weight {omega:.3g}")
        reached = misfits[-1] <= tolerance
        if reached or not solution.converged or len(misfits) >= max_steps:
            break
        shift = shift + missing
        if len(misfits) > 1 and misfits[-1] > ENOUGH * misfits[-2]:
            omega, shift = 10 * omega, shift / 10  # the multiplier is omega * shift
    if reached and solution.converged:
        reason = "the targets are reached, and the cost is stationary among controls that do"
    elif not solution.converged:
        reason = f"a step was not solved: {solution.reason}"
    else:
        reason = f"the misfit is {misfits[-1]:.1e} after {max_steps} steps: are they in reach?"
    at = problem.linearise(control)
    converged = reached and solution.converged
    return MinimumNorm(at, at.regularization, misfits[-1], tuple(misfits), omega, converged, reason)


def _outputs(at: Linearisation) -> Array:
    outputs = at.loss_point.outputs
    return at.state.ends[-1] if outputs is None else outputs


def _largest(problem: LearningProblem, missing: Array) -> float:
    if isinstance(problem.loss, L2Loss):
        space = problem.network.space
        squares = space.sum(space.local_weights @ missing**2)
    else:
        squares = np.sum(missing**2, axis=0)
    return float(np.sqrt(np.max(squares)))
