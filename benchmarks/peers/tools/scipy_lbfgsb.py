"""SciPy's L-BFGS-B on the hand-written NumPy gradient of `discrete.NumpyModel`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, minimize

from benchmarks.peers.discrete import DiscreteProblem, NumpyModel
from benchmarks.peers.watch import Watch

Array = NDArray[np.float64]

NEEDS = ("scipy", "numpy")
WITHIN_BOUNDS = True

PAIRS = 10
"""The default: 20 take as many iterations on these problems, each longer."""

Model = NumpyModel


def solve(model: NumpyModel, start: Array, watch: Watch) -> None:
    """Minimise, starting again where the line search gives up, as long as that helps."""
    problem: DiscreteProblem = model.problem
    at, best = start, np.inf

    def evaluate(z: Array) -> tuple[float, Array]:
        nonlocal at
        objective, gradient = model.objective_and_gradient(z)
        at = z.copy()
        watch.see(objective, problem.norm(z, gradient))
        return objective, gradient

    options = {"maxiter": 10**9, "maxfun": 10**9, "ftol": 0.0, "gtol": 0.0, "maxcor": PAIRS}
    bounds = None if problem.box is None else Bounds(*problem.box)
    while watch.relative < best:
        best = watch.relative if watch.evaluations else np.inf
        minimize(evaluate, at, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
