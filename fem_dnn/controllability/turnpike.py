"""The turnpike's exponents (C. Esteve et al., arXiv:2008.02491).

With sigma(0) = 0 a target g that does not depend on depth is a steady state without controls. Near
it the learning problem with tracking is linear-quadratic, pointwise in x:

    min (mu / 2) sum_s w_s |e_s|^2 + (1/2) v' K^{-1} v,     e' = sigma'(0) v,    e = f - g,

with K_ss' = <g_s, g_s'> / lambda_a + 1 / lambda_b. So e'' = mu sigma'(0)^2 K W e, W = diag(w): far
from both ends of a long depth states, adjoints and controls decay like exp(-r t) with

    r^2  in  mu sigma'(0)^2  spectrum of W^{1/2} K W^{1/2}.

Without tracking nothing decays. Where the dynamics are homogeneous in the controls (ReLU, linear),
stretching the depth by T stretches the optimal path and divides the cost by T: the training error
is that of the regularisation R / T, see `vanishing`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fem_dnn.gram_factor import GramFactor
from fem_dnn.problem import LearningProblem

Array = NDArray[np.float64]


def turnpike_rates(problem: LearningProblem) -> Array:
    """The exponents r of a problem that tracks targets constant in depth (collective).

    Args:
        problem: Learning problem with tracking, sigma(0) = 0, and kernel or bias regularised.

    Returns:
        Ascending; shape (samples,), with a mask (n_local, samples): the rates at every node.

    Raises:
        ValueError: There is no steady state without controls, or nothing is tracked.
    """
    tracking, R, space = problem.tracking, problem.regularization, problem.network.space
    if tracking is None or np.ptp(tracking.targets, axis=0).any():
        raise ValueError("turnpike rates need tracking targets that are constant in depth")
    value, slope = problem.network.activation.evaluate(np.full(1, 1e-12), 1)
    if abs(value[0]) > 1e-6:
        raise ValueError("turnpike rates need an activation with sigma(0) = 0")
    root = space.sqrt_weights[space.owned, None]
    gathered = space.gather(root * tracking.targets[0])
    M = GramFactor.of(problem.controls, R.kernel, R.bias, gathered).matrix
    weighted = np.sqrt(problem.sample_weights)[:, None] * M
    squares = np.linalg.eigvalsh(weighted @ weighted.transpose(0, 2, 1))
    rates: Array = float(slope[0]) * np.sqrt(tracking.weight * np.maximum(squares, 0.0))
    return rates[0] if len(M) == 1 else rates
