"""What a memory limit costs. Writes docs/memory.md and docs/memory.json.

    environment/enter python3 -m benchmarks.memory [--only dense gram] [--page] [--out DIR]

One learning problem with many samples (dense form: 128 nodes, 2 048 samples, 16 layers) and one
with many nodes (Gram form: 20 000 nodes, 16 samples, 16 layers), under ever lower limits: how they
are cut up, what gradient and Hessian product take against those without a limit in the same run, a
whole solve, and the process's peak. Every limit is a process of its own. One thread.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI
from threadpoolctl import threadpool_limits

from benchmarks import width
from benchmarks.memory_page import page
from benchmarks.peers.timing import ORDER
from benchmarks.revision import revision
from fem_dnn import __version__
from fem_dnn.gram import GramProblem
from fem_dnn.memory import TooLittle, limited
from fem_dnn.mesh import interval
from fem_dnn.portions import PortionedProblem
from fem_dnn.problem import LearningProblem
from fem_dnn.solvers import Tolerances, solve_newton
from fem_dnn.width import WidthSpace

Row = dict[str, Any]

DOCS = Path(__file__).parent.parent / "docs"
PENALTY, RTOL, ROUNDS = 0.05, 1e-6, 3
SIZES = {"dense": (128, 2048, 16), "gram": (20_000, 16, 16)}
PARTS = (0.5, 0.2, 0.05, 0.0)
"""Limits: the least that does, and so much of the way from there to what all trajectories take."""


def many_samples(nodes: int, samples: int, layers: int) -> LearningProblem:
    """Sines of all phases and of frequencies up to two to be carried to their squares."""
    space = WidthSpace(interval(MPI.COMM_SELF, nodes), 0)
    s = np.random.default_rng(0).uniform(size=(2, samples))
    inputs = np.sin(np.pi * (1 + s[0]) * space.local_nodes + 2 * np.pi * s[1])
    return width.carried(space, layers, inputs, inputs**2, PENALTY)


def problem(form: str) -> LearningProblem:
    """The problem of a form."""
    if form == "gram":
        return GramProblem.of(width.problem(*SIZES[form]))
    return many_samples(*SIZES[form])


def limits(form: str) -> list[float]:
    """Bytes, descending."""
    of = problem(form)
    try:
        limited(of, "newton", 0.0)
    except TooLittle as reason:
        least = reason.least
    most = least
    while isinstance(cut := limited(of, "newton", most), PortionedProblem) or (
        isinstance(cut, GramProblem) and cut.cut
    ):
        most *= 1.02
    return [most, *(least + part * (most - least) for part in PARTS)]


def peak() -> float:
    """Of this process's memory, in bytes."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return 1024.0 * int(found[1])


def measure(row: Row) -> Row:
    """One limit: times, then a solve."""
    of, limit = problem(row["form"]), row["limit"]
    cut = of if limit is None else limited(of, "newton", 1.0001 * limit)
    result: Row = {"portions": 1, "resident": 0, "layers_at_hand": of.network.levels.layers}
    if isinstance(cut, PortionedProblem):
        result |= {"portions": cut.count, "resident": cut.resident}
    if isinstance(cut, GramProblem):
        result["layers_at_hand"] = cut.layers_at_once or cut.network.levels.layers
    control = 1e-2 * np.random.default_rng(0).standard_normal(of.controls.n_local)
    if row["form"] == "gram":
        control *= 0.1
    times: dict[str, list[float]] = {"gradient": [], "product": []}
    for _ in range(ROUNDS):
        started = time.process_time()
        at = cut.linearise(control)
        _ = at.objective
        norm = at.gradient_norm
        times["gradient"].append(time.process_time() - started)
        z = at.gradient / norm
        times["product"].append(width.seconds_of_product(at, z))
        del at
    result |= {name: statistics.median(values) for name, values in times.items()}
    del z
    start = np.zeros(of.controls.n_local)
    solution = solve_newton(cut, start, Tolerances(RTOL))
    return result | {
        "peak": peak(),
        "seconds": solution.seconds,
        "converged": solution.converged,
        "objective": solution.objective,
        "sweeps": solution.sweeps,
        "rate": width.measure_rate(),
        "control": 8.0 * of.controls.n_local,
    }


def measured(row: Row) -> Row:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", "--row", json.dumps(row)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return row | dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--page", action="store_true", help="only write the page anew")
    parser.add_argument("--out", type=Path, default=DOCS)
    chosen = parser.parse_args()
    if chosen.row is not None:
        with threadpool_limits(limits=1, user_api="blas"):
            print(json.dumps(measure(chosen.row)))
        return
    record = chosen.out / "memory.json"
    known = json.loads(record.read_text()) if record.exists() else {"rows": []}
    if not chosen.page:
        made_by = {"version": __version__, "revision": revision()}
        for form in chosen.only:
            known["rows"] = [row for row in known["rows"] if row["form"] != form]
            for limit in (None, *limits(form)):
                row = {"form": form, "limit": limit, "size": SIZES[form], **made_by}
                known["rows"].append(measured(row))
                print(json.dumps(known["rows"][-1]), flush=True)
        known |= {"penalty": PENALTY, "rtol": RTOL, "rounds": ROUNDS, "order": ORDER}
        record.write_text(json.dumps(known, indent=2) + "\n")
    (chosen.out / "memory.md").write_text(page(known))


if __name__ == "__main__":
    main()
