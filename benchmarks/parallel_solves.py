"""What `newton` takes on one rank, and on two that share rows or samples: times and work.

    environment/enter mpirun -n 2 python3 -m benchmarks.parallel_solves [docs/parallel.json]

puts them into the record of `benchmarks.parallel`, whose command measures them too. Where samples
are dealt out, every group measures steps by the same of them (`fem_dnn.process_grid.GridModel`).
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

from benchmarks.revision import revision
from benchmarks.width import measure_rate
from fem_dnn import __version__
from fem_dnn.assembly import assemble
from fem_dnn.case import Case, read_case
from fem_dnn.files import write_whole
from fem_dnn.process_grid import solve_on_grid
from fem_dnn.solvers import Tolerances, solve_newton
from fem_dnn.threads import suitable_threads

CIRCLES = Path(__file__).parent / "problems" / "circles_1e-3.toml"
START = "solver.initial={ kind = 'random', seed = 0, scale = 1.0 }"
RTOL, RUNS = 1e-8, 3

Row = dict[str, Any]


def circles(groups: int) -> Case:
    """Few nodes, few samples."""
    return read_case(CIRCLES, [START, f"solver.sample_groups={groups}"])


def waves(groups: int, nodes: int = 256, samples: int = 512, layers: int = 16) -> Case:
    """Sines of many phases and frequencies, to be carried to their squares."""
    s = np.random.default_rng(0).uniform(size=(samples, 2))
    inputs = [f"sin({np.pi * (1 + a):.15g}*x + {2 * np.pi * b:.15g})" for a, b in s]
    width = {"shape": "interval", "length": 1.0, "cells": nodes}
    return Case.parse(
        {
            "mesh": {"width": width, "depth": {"length": 1.0, "cells": layers}},
            "network": {"activation": "tanh", "depth_scheme": "resnet"},
            "data": {"inputs": inputs, "targets": [f"({each})**2" for each in inputs]},
            "regularization": {"kernel": 0.05, "bias": 0.05},
            "solver": {"sample_groups": groups, "representation": "dense"},
        }
    )


PROBLEMS: dict[str, Callable[[int], Case]] = {"circles_1e-3": circles, "waves": waves}


def solve(name: str, ranks: int, groups: int) -> Row:
    """Median of some solves; ranks beyond the first sleep where only one is wanted (collective)."""
    comm = MPI.COMM_WORLD if ranks > 1 else MPI.COMM_SELF
    row: Row = {}
    if comm.size == ranks and (ranks > 1 or MPI.COMM_WORLD.rank == 0):
        model = assemble(PROBLEMS[name](groups), comm)
        assert model.problem is not None
        seconds = []
        for _ in range(RUNS):
            comm.barrier()
            started = time.perf_counter()
            with suitable_threads(model.problem):
                solution = solve_on_grid(
                    solve_newton, model, model.initial, Tolerances(RTOL, 0.0, 500), escape=True
                )
            seconds.append(time.perf_counter() - started)
        last = solution.history[-1]
        row = {
            "seconds": statistics.median(seconds),
            "converged": solution.converged,
            "iterations": last.iteration,
            "gradients": last.adjoint_solves,
            "hessian_products": last.hessian_solves,
            "sweeps": last.sweeps,
            "objective": solution.objective,
            "nodes": model.network.space.n_nodes,
            "samples": len(model.ingredients.weights),
            "layers": model.network.levels.layers,
        }
    asleep(ranks == 1)
    return MPI.COMM_WORLD.bcast(row, root=0)


def asleep(waiting: bool) -> None:
    """Wait for rank 0 without looking for its message all the time: that would keep a core busy."""
    request = MPI.COMM_WORLD.Ibarrier()
    while waiting and not request.Test():
        time.sleep(0.01)
    request.Wait()


def count() -> list[Row]:
    """One rank, rows over all, and as many groups of samples as ranks (collective)."""
    size, rows = MPI.COMM_WORLD.size, []
    for name in PROBLEMS:
        for ranks, groups in ((1, 1), (size, 1), (size, size)):
            found = solve(name, ranks, groups)
            rows.append({"problem": name, "ranks": ranks, "groups": groups, **found})
            rows[-1] |= {"version": __version__, "revision": revision(), "rate": measure_rate()}
    return rows


def main() -> None:
    """Measure, and put the numbers into the record."""
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
