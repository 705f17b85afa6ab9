"""SciPy's L-BFGS-B on the hand-written NumPy gradient of `discrete.NumpyModel`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, minimize

from benchmarks.peers.discrete import DiscreteProblem, NumpyModel
from benchmarks.peers.watch import Watch, persist

Array = NDArray[np.float64]

NEEDS = ("scipy", "numpy")
WITHIN_BOUNDS = True

PAIRS = 10
"""The default: 20 take as many iterations on `sine`, each longer."""

Model = NumpyModel


def solve(model: NumpyModel, start: Array, watch: Watch) -> None:
    """Minimise, within the bounds where there are some."""
    problem: DiscreteProblem = model.problem
    at = start

    def evaluate(z: Array) -> tuple[float, Array]:
        nonlocal at
        objective, gradient = model.objective_and_gradient(z)
        before = watch.lowest
        watch.see(objective, problem.norm(z, gradient))
        if watch.lowest < before:
            at = z.copy()
        return objective, gradient

    def attempt() -> None:
        minimize(evaluate, at, jac=True, method="L-BFGS-B", bounds=bounds, options=options)

    options = {"maxiter": 10**9, "maxfun": 10**9, "ftol": 0.0, "gtol": 0.0, "maxcor": PAIRS}
    bounds = None if problem.box is None else Bounds(*problem.box)
    persist(watch, attempt)
