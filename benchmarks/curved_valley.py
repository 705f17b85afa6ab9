"""The curved valley: how Newton gets along it on the circles at lambda = 1e-3, and what helps.

    environment/enter python3 benchmarks/curved_valley.py

prints the table, writes docs/curved-valley.json and puts the table into docs/curved-valley.md. Path
length and distance are L2 norms of controls on the finest mesh: the sum of the
steps, and that between the finest mesh's first and last iterate.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.assembly import Model, assemble
from fem_dnn.case import read_case
from fem_dnn.nested import solve_nested
from fem_dnn.problem import Linearisation
from fem_dnn.solvers import METHODS, Solution, Tolerances
from fem_dnn.solvers.history import Report

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "curved-valley.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"

HEAD = """| case | coarser meshes | stretches per mesh | Newton steps per mesh | CG steps per mesh | work | path | distance | objective |
|---|---|---|---|---|---|---|---|---|
"""  # noqa: E501

Array = NDArray[np.float64]


def measure(problem: str, nested: int, alone: bool) -> dict[str, Any]:
    """One solve from a random start, on coarser meshes first if asked for.

    Args:
        problem: Its name.
        nested: How many coarser meshes.
        alone: Whether Newton's steps go all the way, without quasi-Newton steps before them.
    """
    guess = "solver.initial={ kind = 'random', seed = 0, scale = 1.0 }"
    case = read_case(HERE / "problems" / f"{problem}.toml", [guess, f"solver.nested={nested}"])
    model = assemble(case, MPI.COMM_SELF)
    assert model.problem is not None
    visited: list[Array] = []

    def newton(
        of: Model, start: Array, tolerances: Tolerances, *, report: Report, **_: object
    ) -> Solution:
        assert of.problem is not None
        visited.clear()

        def remember(at: Linearisation) -> None:
            visited.append(at.control)

        return METHODS["newton"](
            of.problem, start, tolerances, escape=not alone, report=report, accuracy=remember
        )

    tolerances = Tolerances(1e-8, 0.0, 500)
    if nested:
        solution = solve_nested(model, newton, tolerances, lambda _: None, lambda _: None)
    else:
        solution = newton(model, model.initial, tolerances, report=lambda _: None)
    meshes = [
        list(lines) for _, lines in itertools.groupby(solution.history, key=lambda line: line.mesh)
    ]
    stretches = [
        sum(line.hessian_solves == lines[0].hessian_solves for line in lines[1:])
        for lines in meshes
    ]
    steps = [float(np.linalg.norm(b - a)) for a, b in itertools.pairwise(visited)]
    return {
        "problem": problem,
        "nested": nested,
        "converged": solution.converged,
        "alone": alone,
        "stretches": stretches,
        "newton": [len(lines) - 1 - n for lines, n in zip(meshes, stretches, strict=True)],
        "cg": [lines[-1].linear_iterations - lines[0].linear_iterations for lines in meshes],
        "sweeps": solution.history[-1].sweeps,
        "path": sum(steps),
        "distance": float(np.linalg.norm(visited[-1] - visited[0])),
        "objective": solution.objective,
    }


def row(r: dict[str, Any]) -> str:
    """A line of the table."""
    counts = [", ".join(map(str, r[key])) for key in ("stretches", "newton", "cg")]
    path = f"{r['path']:.1f}" if r["alone"] else ""
    if r["alone"]:
        counts[0] = "none"
    numbers = f"{r['sweeps']:.0f} | {path} | {r['distance']:.1f} | {r['objective']:.5f}"
    return f"| {r['problem']} | {r['nested']} | {' | '.join(counts)} | {numbers} |\n"


def main() -> None:
    """Measure, print, and put the table into the page."""
    results = []
    for problem in ("circles_1e-3", "circles_1e-3_smooth"):
        for nested, alone in itertools.product((0, 2, 3), (True, False)):
            results.append(measure(problem, nested, alone))
            print(row(results[-1]), end="", flush=True)
    PAGE.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    before, rest = PAGE.read_text().split(BEGIN)
    table = "".join([HEAD, *map(row, results)])
    PAGE.write_text(before + BEGIN + table + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
