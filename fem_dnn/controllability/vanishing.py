"""What the loss tends to as the regularisation vanishes, and how fast.

    c_eps = argmin loss(c) + eps R(c),      loss(c_eps) = limit + C eps^p + ...

Where the targets are in reach and the linearised end-point map is onto at the limit, p = 2: the
misfit of an l2 loss is eps times a Lagrange multiplier. Where the infimum is not attained (targets
beyond or at the end of the activation's range) the controls grow without bound, and p = 1 up to a
logarithm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.regularization import Regularization
from fem_dnn.solvers import Tolerances, solve_newton

Array = NDArray[np.float64]

NO_LOSS = 1e-14
"""Differences of losses, relative to the first, below which no rate is fitted: round-off."""


@dataclass(frozen=True, eq=False)
class VanishingRegularization:
    """The losses along a path of vanishing regularisation.

    Attributes:
        factors: eps, falling geometrically, shape (points,).
        losses: Loss, with the tracking term, at the solutions.
        costs: R of the solutions, at the regularisation of eps = 1.
        limit: The loss's extrapolated limit; the last loss where none can be fitted.
        rate: p of loss = limit + C eps^p, from the last three points; nan where none can be fitted.
        rates: The same from every three successive points.
        last: The learning problem linearised at the last solution.
        converged: Whether every solve converged.
    """

    factors: Array
    losses: Array
    costs: Array
    limit: float
    rate: float
    rates: Array
    last: Linearisation
    converged: bool


def vanishing_regularization(
    problem: LearningProblem,
    start: Array,
    *,
    ratio: float = 0.1,
    points: int = 5,
    rtol: float = 1e-9,
    say: Callable[[str], None] | None = None,
) -> VanishingRegularization:
    """Solve with R, ratio R, ratio^2 R, ..., each from the solution before (collective).

    Args:
        problem: Learning problem; what is given, not trained, keeps its share of the objective.
        start: Local control vector for the first solve.
        ratio: Below 1.
        points: Solves, three at least.
        rtol: Relative tolerance of each, on the gradient at its own start.
        say: Told of every solve.
    """
    factors = np.asarray(ratio ** np.arange(points), np.float64)
    losses, costs, converged = [], [], True
    control = start
    for eps in factors:
        there = replace(problem, regularization=scaled(problem.regularization, float(eps)))
        solution = solve_newton(there, control, Tolerances(rtol=rtol, atol=1e-15))
        control, converged = solution.control, converged and solution.converged
        losses.append(solution.at.loss)
        costs.append(solution.at.regularization / eps)
        if say is not None:
            say(f"eps {eps:.0e}: loss {losses[-1]:.6e}, R {costs[-1]:.6e}; {solution.reason}")
    values = np.array(losses)
    rates, limit = fitted_rates(values, ratio)
    last = problem.linearise(control)
    return VanishingRegularization(
        factors, values, np.array(costs), limit, float(rates[-1]), rates, last, converged
    )


def fitted_rates(losses: Array, ratio: float) -> tuple[Array, float]:
    """p from every three successive losses at eps = 1, ratio, ratio^2, ..., and the limit.

    Differences of limit + C eps^p fall by ratio^p; the limit is Aitken's extrapolation.
    """
    steps = losses[:-1] - losses[1:]
    usable = np.abs(steps) > NO_LOSS * np.max(np.abs(losses))
    falling = usable[:-1] & usable[1:] & (steps[:-1] * steps[1:] > 0)
    rates = np.full(len(falling), np.nan)
    rates[falling] = np.log(steps[1:][falling] / steps[:-1][falling]) / np.log(ratio)
    limit = float(losses[-1])
    if falling[-1] and rates[-1] > 0:
        limit -= float(steps[-1]) / (ratio ** -rates[-1] - 1)
    return rates, limit


def scaled(regularization: Regularization, factor: float) -> Regularization:
    """The regulariser of the controls times a factor."""
    names = (
        "kernel",
        "bias",
        "outputs",
        "kernel_depth",
        "bias_depth",
        "kernel_width",
        "bias_width",
    )
    return replace(regularization, **{n: factor * getattr(regularization, n) for n in names})
