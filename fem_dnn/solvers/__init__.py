"""Solvers of the optimality system: each takes a learning problem and returns a `Solution`."""

from fem_dnn.solvers.all_at_once import solve_all_at_once
from fem_dnn.solvers.gradient import solve_gradient
from fem_dnn.solvers.layerwise import solve_layerwise
from fem_dnn.solvers.lbfgs import solve_lbfgs
from fem_dnn.solvers.method import Method
from fem_dnn.solvers.newton import solve_newton
from fem_dnn.solvers.solution import Solution, Tolerances
from fem_dnn.solvers.sweep import solve_sweep
from fem_dnn.solvers.tao_newton import TAO_NEWTON

__all__ = [
    "ALL_METHODS",
    "METHODS",
    "UNBOUNDED",
    "Method",
    "Solution",
    "Tolerances",
    "solve_all_at_once",
    "solve_gradient",
    "solve_layerwise",
    "solve_lbfgs",
    "solve_newton",
    "solve_sweep",
]

_PROGRAMS_OWN = (
    solve_newton,
    solve_all_at_once,
    solve_lbfgs,
    solve_sweep,
    solve_layerwise,
    solve_gradient,
)

METHODS: dict[str, Method] = {method.name: method for method in _PROGRAMS_OWN}
"""The methods by their name in case files."""

ALL_METHODS: dict[str, Method] = METHODS | {method.name: method for method in TAO_NEWTON}
"""Also those that are there for comparison: PETSc TAO's Newton types, by TAO's names."""

UNBOUNDED = tuple(name for name, method in ALL_METHODS.items() if method.within_bounds is None)
"""Those that know no bounds on the controls."""
