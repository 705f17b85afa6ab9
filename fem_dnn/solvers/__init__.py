"""Solvers of the optimality system: each takes a learning problem and returns a `Solution`."""

from collections.abc import Callable
from functools import partial
from typing import get_args

from fem_dnn.solvers.all_at_once import solve_all_at_once
from fem_dnn.solvers.gradient import solve_gradient
from fem_dnn.solvers.layerwise import solve_layerwise
from fem_dnn.solvers.lbfgs import solve_lbfgs
from fem_dnn.solvers.newton import solve_newton
from fem_dnn.solvers.solution import Solution, Tolerances
from fem_dnn.solvers.sweep import solve_sweep
from fem_dnn.solvers.tao_newton import UNBOUNDED_TAO, TaoNewtonType, solve_tao_newton

__all__ = [
    "ALL_METHODS",
    "METHODS",
    "UNBOUNDED",
    "Solution",
    "Tolerances",
    "solve_all_at_once",
    "solve_gradient",
    "solve_layerwise",
    "solve_lbfgs",
    "solve_newton",
    "solve_sweep",
    "solve_tao_newton",
]

METHODS: dict[str, Callable[..., Solution]] = {
    "newton": solve_newton,
    "all-at-once": solve_all_at_once,
    "lbfgs": solve_lbfgs,
    "sweep": solve_sweep,
    "layerwise": solve_layerwise,
    "gradient": solve_gradient,
}
"""The methods by their name in case files; all have the same signature."""

ALL_METHODS: dict[str, Callable[..., Solution]] = METHODS | {
    tao_type: partial(solve_tao_newton, tao_type=tao_type) for tao_type in get_args(TaoNewtonType)
}
"""Also those that are there for comparison: PETSc TAO's Newton types, by TAO's names."""

UNBOUNDED = ("all-at-once", *UNBOUNDED_TAO)
"""Those that know no bounds on the controls."""
