"""How often and with how much work a method succeeds, from random starts on the named problems.

    environment/enter python3 benchmarks/robustness.py [--starts 100] [--methods newton lbfgs]
                                                       [--problems sine ...] [--seconds 3600]

A start is a standard normal kernel and bias (`solver.initial = { kind = "random", seed = n }`). A
solve succeeds if the reduced gradient falls to 1e-8 of its first norm within 500 iterations and the
lowest Hessian eigenvalue is not below minus the tolerance. Methods of first order may take more
iterations (`LIMITS`), as each costs less; both counts are tabulated, and the work in sweeps.

Every solve is added to docs/robustness.json at once, and those that are there already are not
repeated: the benchmark may be stopped at any time and gone on with. docs/robustness.md is the
table.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from mpi4py import MPI

import fem_dnn
from fem_dnn.assembly import assemble
from fem_dnn.case import read_case
from fem_dnn.files import write_whole
from fem_dnn.solvers import ALL_METHODS, UNBOUNDED, Tolerances
from fem_dnn.solvers.solution import Solution

HERE = Path(__file__).resolve().parent
PROBLEMS = sorted(path.stem for path in (HERE / "problems").glob("*.toml"))
DOCS = HERE.parent / "docs"
RECORDS = DOCS / "robustness.json"

RTOL = 1e-8
WITHIN = 500
"""Iterations within which a solve has to succeed."""

LIMITS = {"newton": 500, "all-at-once": 500, "lbfgs": 5000}
"""Iterations after which a method is stopped; others stop at `WITHIN`."""

Record = dict[str, Any]

HEAD = """# Success from random starts

Made by `benchmarks/robustness.py` with fem-dnn {version}; do not edit.

Problems: `benchmarks/problems/`. Success: a relative reduced gradient of 1e-8 within 500
iterations and a lowest Hessian eigenvalue not below minus the tolerance (1e-3 of the smallest
Tikhonov weight). Starts are standard normal controls with the seeds 0, 1, 2, ...; "in the end"
counts what succeeds within the method's own limit (iterations: {limits}). Work is that of the
descent in sweeps (a state or an adjoint solve is one, a Hessian product four), its median over what
succeeded in the end; objectives are the lowest, the median and the highest there.

| problem | method | starts | success | in the end | iterations | work | objective |
|---|---|---|---|---|---|---|---|
"""


def solve(problem: str, method: str, seed: int) -> Record:
    """One solve of a named problem."""
    guess = f"{{ kind = 'random', seed = {seed}, scale = 1.0 }}"
    case = read_case(HERE / "problems" / f"{problem}.toml", [f"solver.initial={guess}"])
    model = assemble(case, MPI.COMM_SELF)
    assert model.problem is not None
    started = time.perf_counter()
    solution: Solution = ALL_METHODS[method](
        model.problem, model.initial, Tolerances(RTOL, 0.0, LIMITS.get(method, WITHIN))
    )
    relative = solution.gradient_norm / solution.initial_gradient_norm
    return {
        "problem": problem,
        "method": method,
        "seed": seed,
        "converged": solution.converged,
        "reason": solution.reason,
        "iterations": solution.iterations,
        "sweeps": solution.history[-1].sweeps,
        "objective": solution.objective,
        "relative_gradient": relative,
        "lowest_eigenvalue": solution.lowest_eigenvalue,
        "seconds": time.perf_counter() - started,
        "version": fem_dnn.__version__,
    }


def is_free(problem: str) -> bool:
    """Whether a problem's controls have no bounds."""
    bounds = read_case(HERE / "problems" / f"{problem}.toml").bounds
    return bounds.kernel is None and bounds.bias is None


def row(problem: str, method: str, records: Sequence[Record]) -> str:
    """A line of the table."""
    done = [r for r in records if r["converged"]]
    within = [r for r in done if r["iterations"] <= WITHIN]
    cells = [problem, method, str(len(records)), f"{len(within) / len(records):.0%}"]
    cells.append(f"{len(done) / len(records):.0%}")
    if done:
        values = sorted(r["objective"] for r in done)
        cells.append(f"{median(r['iterations'] for r in done):.0f}")
        cells.append(f"{median(r['sweeps'] for r in done):.0f}")
        cells.append(f"{values[0]:.5g}, {median(values):.5g}, {values[-1]:.5g}")
    else:
        cells += ["", "", ""]
    return "| " + " | ".join(cells) + " |"


def table(records: Sequence[Record]) -> str:
    """The page."""
    limits = ", ".join(f"{name} {limit}" for name, limit in LIMITS.items())
    lines = [HEAD.format(version=fem_dnn.__version__, limits=limits)]
    for problem in PROBLEMS:
        for method in ALL_METHODS:
            mine = [r for r in records if (r["problem"], r["method"]) == (problem, method)]
            if mine:
                lines.append(row(problem, method, mine) + "\n")
    return "".join(lines)


def save(records: Sequence[Record]) -> None:
    """Write records and page, each whole or not at all."""
    lines = ",\n".join(json.dumps(record) for record in records)
    for path, text in ((RECORDS, f"[\n{lines}\n]\n"), (DOCS / "robustness.md", table(records))):
        write_whole(path, lambda file, text=text: file.write(text.encode()))


def run(todo: Iterable[tuple[str, str, int]], seconds: float) -> None:
    """Solve what has no record yet, until the time is over."""
    records = json.loads(RECORDS.read_text()) if RECORDS.exists() else []
    known = {(r["problem"], r["method"], r["seed"]) for r in records}
    started = time.perf_counter()
    bounded = {p for p in PROBLEMS if not is_free(p)}
    for problem, method, seed in todo:
        if (problem, method, seed) in known or time.perf_counter() - started > seconds:
            continue
        if problem in bounded and method in UNBOUNDED:
            continue
        record = solve(problem, method, seed)
        records.append(record)
        save(records)
        print(*(record[k] for k in ("problem", "method", "seed", "converged")), end=" ")
        print(record["iterations"], f"{record['seconds']:.1f} s", flush=True)


def main() -> None:
    """Take the problems in turn, start by start, so that an unfinished table is even."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--starts", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--methods", nargs="+", default=["newton"], choices=list(ALL_METHODS))
    parser.add_argument("--problems", nargs="+", default=PROBLEMS, choices=PROBLEMS)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.starts)
    run(((p, m, s) for s in seeds for p in given.problems for m in given.methods), given.seconds)


if __name__ == "__main__":
    main()
