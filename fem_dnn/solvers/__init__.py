"""Solvers of the optimality system: each takes a learning problem and returns a `Solution`."""

from fem_dnn.solvers.lbfgs import solve_lbfgs
from fem_dnn.solvers.newton import solve_newton
from fem_dnn.solvers.solution import Solution, Tolerances

__all__ = ["METHODS", "Solution", "Tolerances", "solve_lbfgs", "solve_newton"]

METHODS = {"newton": solve_newton, "lbfgs": solve_lbfgs}
"""The methods by their name in case files; all have the same signature."""
