"""The work that `newton` takes on two ranks that share rows, or samples: counts, no times.

    environment/enter mpirun -n 2 python3 -m benchmarks.parallel_solves [docs/parallel.json]

puts them into the record of `benchmarks.parallel`, whose command counts them too. Where samples are
dealt out, steps are not measured by the curvature (`fem_dnn.curvature_metric.why_not`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mpi4py import MPI

from benchmarks.revision import revision
from fem_dnn import __version__
from fem_dnn.assembly import assemble
from fem_dnn.case import read_case
from fem_dnn.files import write_whole
from fem_dnn.process_grid import group_count, solve_on_grid
from fem_dnn.solvers import Tolerances, solve_newton

PROBLEM = Path(__file__).parent / "problems" / "circles_1e-3.toml"
START = "solver.initial={ kind = 'random', seed = 0, scale = 1.0 }"
RTOL = 1e-8

Row = dict[str, Any]


def count() -> list[Row]:
    """One solve as `auto` shares it, and one with as many groups as ranks (collective)."""
    ranks, rows = MPI.COMM_WORLD.size, []
    for asked in ("'auto'", str(ranks)):
        model = assemble(read_case(PROBLEM, [START, f"solver.sample_groups={asked}"]))
        solution = solve_on_grid(
            solve_newton, model, model.initial, Tolerances(RTOL, 0.0, 500), escape=True
        )
        last = solution.history[-1]
        rows.append(
            {
                "problem": PROBLEM.stem,
                "asked": asked.strip("'"),
                "ranks": ranks,
                "groups": group_count(model, "newton"),
                "converged": solution.converged,
                "iterations": last.iteration,
                "gradients": last.adjoint_solves,
                "hessian_products": last.hessian_solves,
                "sweeps": last.sweeps,
                "objective": solution.objective,
                "version": __version__,
                "revision": revision(),
            }
        )
    return rows


def main() -> None:
    """Count, and put the counts into the record."""
    docs = Path(__file__).parent.parent / "docs"
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else docs / "parallel.json"
    rows = count()
    if MPI.COMM_WORLD.rank == 0:
        record = json.loads(path.read_text()) | {"solves": rows}
        text = json.dumps(record, indent=2) + "\n"
        write_whole(path, lambda file: file.write(text.encode()))
        print(*rows, sep="\n")


if __name__ == "__main__":
    main()
