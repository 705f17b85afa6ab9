"""`fem-dnn value`: the value function of a small network beside its optimality system.

The sweep over the state grid is shared out among the ranks; the learning problem, which is tiny, is
solved on rank 0, so that a case may have fewer width cells than there are ranks.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn import commands
from fem_dnn.assembly import Discretisation, Model, model_of
from fem_dnn.case import Case, require_value_problem
from fem_dnn.collective import on_root
from fem_dnn.dynamic_programming import (
    Examination,
    FiniteProblem,
    OpenLoop,
    StateGrid,
    ValueFunction,
    default_box,
    examine,
    run_closed_loop,
    steps_for,
    sweep_back,
)
from fem_dnn.ingredients import read_ingredients
from fem_dnn.request import CaseLike, Request, read_any
from fem_dnn.results import provenance
from fem_dnn.solvers import Tolerances
from fem_dnn.value_files import write_value

Array = NDArray[np.float64]
Result = dict[str, Any]

MOST = 3
"""State dimensions that a grid can be paid for in."""

MOST_POINTS = 30_000_000
"""Points of a grid whose arrays fit into the memory of common machines."""

ENLARGEMENTS = 3
"""How often a default box is doubled when the optimal trajectory leaves it."""

OPEN_LOOP = ("converged", "reason", "gradient_norm", "iterations", "lowest_eigenvalue")
"""What is passed on of the optimality system's result."""


def value(case: CaseLike, request: Request | None = None) -> Result:
    """V(f_I, 0) by Hamilton-Jacobi-Bellman, with open and closed loop (collective).

    Raises:
        BadInput: The case is wrong or has too many state dimensions; the same on all ranks.
    """
    request = request or Request()
    case = read_any(case, request)
    require_value_problem(case)
    discretisation = Discretisation.of(case, MPI.COMM_SELF)
    ingredients = on_root(request.comm, lambda: read_ingredients(case, discretisation.places, None))
    model = model_of(case, discretisation, ingredients)
    require_small_problem(model)
    problem, given_box = FiniteProblem.of(model), _given_box(model)
    request.prepare_out()
    started = time.perf_counter()
    alone = replace(request, comm=MPI.COMM_SELF)
    solved = on_root(request.comm, lambda: _solve(model, alone))
    cells = case.value.cells
    steps = steps_for(len(problem.inputs.ravel()), cells, solved.strength)
    sweep = _Sweep(problem, request)
    coarse = _coarse(sweep, max(cells // 2, 1), steps // 2, given_box, solved)
    fine = sweep(coarse.grid.box, cells, steps)
    found = on_root(request.comm, lambda: examine(coarse, fine, solved.loop))
    result = _result(case, solved, found, coarse, fine)
    result |= {"seconds": time.perf_counter() - started}
    result |= provenance(model, request.options) | {"ranks": request.comm.size}
    on_root(request.comm, lambda: write_value(alone, result, fine, found, solved.arrays))
    return result


def require_small_problem(model: Model) -> None:
    """What `value` needs of a case with its arrays.

    Raises:
        BadInput: It has too many state dimensions, its grid too many points or its box does not
            hold the inputs, or the problem itself is none for `value`.
    """
    case, inputs = model.case, model.ingredients.train.inputs
    require_value_problem(case)
    samples, nodes = inputs.shape
    dimensions = samples * nodes
    if dimensions > MOST:
        raise case.error(
            "value",
            f"has {dimensions} state dimensions ({samples} samples x {nodes} nodes)",
            f"samples x nodes <= {MOST}",
        )
    points = (case.value.cells + 1) ** dimensions
    if points > MOST_POINTS:
        most = int(MOST_POINTS ** (1 / dimensions)) - 1
        wrong = f"{case.value.cells} in {dimensions} dimensions makes {points:.1e} grid points"
        raise case.error("value.cells", wrong, f"at most {most}")


def _given_box(model: Model) -> Array | None:
    case, inputs = model.case, model.ingredients.train.inputs
    if case.value.box is None:
        return None
    box = np.array(case.value.box)
    samples, nodes = inputs.shape
    if len(box) != inputs.size:
        raise case.error(
            "value.box",
            f"has {len(box)} pairs for {inputs.size} state dimensions",
            f"{inputs.size} pairs [low, high] ({samples} samples x {nodes} nodes, nodes fastest)",
        )
    for number, (start, (low, high)) in enumerate(zip(inputs.ravel(), box, strict=True)):
        if not low < start < high:
            s, x = divmod(number, nodes)
            wrong = f"[{low:g}, {high:g}] does not hold the input {start:g} of sample {s}, node {x}"
            raise case.error("value.box", wrong, "a box around the inputs")
    return box


@dataclass(frozen=True, eq=False)
class _Solved:
    """The outcome of the optimality system, in arrays that can travel between ranks."""

    result: Result
    arrays: dict[str, Any]
    loop: OpenLoop | None

    @property
    def depth_error(self) -> float | None:
        """Estimated J_h - J of the objective on the depth mesh."""
        return self.result.get("error_estimate", {}).get("depth")

    @property
    def strength(self) -> float:
        """int |a| dt along the open loop: how strong its kernels are."""
        if self.loop is None:
            return 0.0
        h, omega = self.arrays["node_weights"], self.arrays["control_weights"]
        squares = np.einsum("x,y,kxy->k", h, h, self.arrays["kernel"] ** 2)
        return float(omega @ np.sqrt(squares))


def _solve(model: Model, request: Request) -> _Solved:
    """Solve the learning problem as `solve` does."""
    solver = model.case.solver
    tolerances = Tolerances(solver.rtol, solver.atol, solver.max_iterations)
    run = commands.solve_model(model, None, tolerances, request)
    if run.solution is None:
        return _Solved(run.result, {}, None)
    arrays = run.arrays
    return _Solved(run.result, arrays, OpenLoop(arrays["t"], arrays["state"], arrays["adjoint"]))


@dataclass(frozen=True, eq=False)
class _Sweep:
    """Sweeps of one problem over grids of different boxes and sizes."""

    problem: FiniteProblem
    request: Request

    def __call__(self, box: Array, cells: int, steps: int) -> ValueFunction:
        """V on a grid (collective)."""
        grid = StateGrid(box, cells)
        shape = " x ".join(map(str, grid.shape))
        self.request.say(f"value function on {shape} states, {steps} steps in depth")
        watch = _Clock(self.request)
        return sweep_back(self.problem, grid, steps, self.request.comm, watch)


class _Clock:
    """Says how long a sweep will take and how far it is, where it takes long."""

    PAUSE = 5.0
    """Seconds between two lines at the least."""

    def __init__(self, request: Request) -> None:
        self._say = request.say
        self._started = self._said = time.perf_counter()

    def __call__(self, done: int, of: int) -> None:
        now = time.perf_counter()
        left = (now - self._started) / done * (of - done)
        if now - self._said > self.PAUSE and done < of:
            self._say(f"  {done} of {of} steps, about {left:.0f} s left")
            self._said = now


def _coarse(
    sweep: _Sweep, cells: int, steps: int, given: Array | None, solved: _Solved
) -> ValueFunction:
    """V on the coarser grid (collective); a default box that the closed loop leaves is doubled."""
    problem, comm = sweep.problem, sweep.request.comm
    states = problem.inputs[None] if solved.loop is None else solved.loop.states
    box = default_box(states, problem.depth, problem.activation) if given is None else given
    coarse = sweep(box, cells, steps)
    for _ in range(0 if given is not None else ENLARGEMENTS):
        if on_root(comm, partial(_stays_inside, coarse)):
            break
        middle, half = box.mean(axis=1, keepdims=True), 0.5 * (box[:, 1:] - box[:, :1])
        box = middle + 2 * half * np.array([[-1.0, 1.0]])
        sweep.request.say("the optimal trajectory leaves the box: twice the box")
        coarse = sweep(box, cells, steps)
    return coarse


def _stays_inside(value: ValueFunction) -> bool:
    return run_closed_loop(value, value.problem.inputs).inside


def _result(
    case: Case, solved: _Solved, found: Examination, coarse: ValueFunction, fine: ValueFunction
) -> Result:
    """The JSON result, but for what every command adds."""
    grid, kinks, gradients = fine.grid, found.kinks, found.gradients
    converged, reason = _verdict(solved, found)
    return {
        "converged": converged,
        "reason": reason,
        "value": found.value,
        "error_estimate": found.error_estimate,
        "extrapolated": found.extrapolated,
        "coarse_value": found.coarse,
        "optimal_objective": solved.result.get("objective"),
        "optimal_objective_error": solved.depth_error,
        "closed_loop_objective": found.closed.cost if case.value.feedback else None,
        "adjoint_difference": None if gradients is None else gradients.difference,
        "nondifferentiable": {
            "fraction": float(kinks.fractions[0]),
            "largest_fraction": float(np.max(kinks.fractions)),
            "at_input": kinks.at_input,
            "on_open_loop": kinks.on_open_loop.tolist(),
        },
        "grid": {
            "box": grid.box.tolist(),
            "cells": [grid.cells] * grid.dimension,
            "points": grid.size,
            "steps": len(fine.times) - 1,
            "coarse_cells": [coarse.grid.cells] * grid.dimension,
            "coarse_steps": len(coarse.times) - 1,
        },
        "open_loop": {name: solved.result[name] for name in OPEN_LOOP if name in solved.result},
    }


def _verdict(solved: _Solved, found: Examination) -> tuple[bool, str]:
    """Whether all was solved as asked, and what the comparison says."""
    objective = solved.result.get("objective")
    text = f"V at the input is {found.value:.8g}, with {found.error_estimate:.1e} between the grids"
    if not found.closed.inside:
        text += "; the optimal trajectory leaves the box or comes to its faces, where V is not to "
        return False, text + "be trusted: enlarge value.box"
    if not solved.result["converged"] or objective is None:
        return False, f"{text}; the optimality system was not solved: {solved.result['reason']}"
    error = solved.depth_error or 0.0
    gap = found.value - (objective - error)
    unsure = found.error_estimate + abs(error) + 1e-8 * abs(objective)
    text += f"; the optimality system's objective is {objective:.8g}"
    if abs(gap) <= unsure:
        text += ", the same within the errors"
    elif gap < 0:
        text += (
            f", higher by {-gap:.3g}, more than the errors explain: it is no global minimiser; try "
            "other starts (solver.initial)"
        )
    else:
        text += f", lower by {gap:.3g}, more than the errors explain: use more value.cells"
    if found.kinks.at_input:
        text += "; V has a kink at the input: several minimisers tie, or nearly"
    return True, text
