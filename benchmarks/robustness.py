"""How often and with how much work a method succeeds, from random starts on the named problems.

    environment/enter python3 -m benchmarks.robustness [--starts 100] [--methods newton lbfgs]
                                                       [--problems sine ...] [--seconds 3600]
                                                       [--page]

A start is a standard normal kernel and bias (`solver.initial = { kind = "random", seed = n }`). A
solve succeeds if the reduced gradient falls to 1e-8 of its first norm within 500 iterations and the
lowest Hessian eigenvalue is not below minus the tolerance. Methods of first order may take more
iterations (`LIMITS`), as each costs less; both counts are tabulated, and the work in sweeps.

Every solve is added to docs/robustness.json at once, with its commit, and those that are there
already are not repeated: the benchmark may be stopped at any time and gone on with.
docs/robustness.md is the table.
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
from benchmarks.markdown import number, table
from benchmarks.revision import measured_with, revision
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

Made by `environment/enter python3 -m benchmarks.robustness` (`--page`: only the page anew); do not
edit. Solved with {measured}.
{older}
Problems: `benchmarks/problems/`. Success: a relative reduced gradient of 1e-8 within 500
iterations and a lowest Hessian eigenvalue not below minus the tolerance (1e-3 of the smallest
Tikhonov weight). Starts are standard normal controls with the seeds 0, 1, 2, ...; "in the end"
counts what succeeds within the method's own limit (iterations: {limits}).
Work is that of the descent in sweeps (a state or an adjoint solve is one, a Hessian product four),
its median over what succeeded in the end; objectives are the lowest, the median and the highest
there. Other methods than `newton` had fewer starts: the work to compare theirs with is that of
`newton` from the same ones, in the column beside.

"""

OLDER = """Methods may have got other settings since: [peers](peers.md) has newer counts of the
sweeps of `newton`, from three starts.
"""

COLUMNS = (
    *("problem", "method", "starts", "success", "in the end", "iterations", "work"),
    *("newton's, same starts", "objective"),
)


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
        "revision": revision(),
    }


def is_free(problem: str) -> bool:
    """Whether a problem's controls have no bounds."""
    bounds = read_case(HERE / "problems" / f"{problem}.toml").bounds
    return bounds.kernel is None and bounds.bias is None


def row(records: Sequence[Record], newtons: Sequence[Record]) -> list[str]:
    """A line of the table.

    Args:
        records: One method's on one problem.
        newtons: Those of `newton` on it.
    """
    done = [r for r in records if r["converged"]]
    within = [r for r in done if r["iterations"] <= WITHIN]
    cells = [records[0]["problem"], records[0]["method"], str(len(records))]
    cells += [f"{len(some) / len(records):.0%}" for some in (within, done)]
    if not done:
        return [*cells, *[""] * 4]
    seeds = {r["seed"] for r in done}
    same = [r["sweeps"] for r in newtons if r["converged"] and r["seed"] in seeds]
    values = sorted(r["objective"] for r in done)
    cells.append(f"{median(r['iterations'] for r in done):.0f}")
    cells.append(number(median(r["sweeps"] for r in done)))
    cells.append(number(median(same)) if same and records[0]["method"] != "newton" else "")
    return [*cells, f"{values[0]:.5g}, {median(values):.5g}, {values[-1]:.5g}"]


def page(records: Sequence[Record]) -> str:
    """The page."""
    limits = ", ".join(f"{name} {limit}" for name, limit in LIMITS.items())
    rows = []
    for problem in PROBLEMS:
        of = {
            method: [r for r in records if (r["problem"], r["method"]) == (problem, method)]
            for method in ALL_METHODS
        }
        rows += [row(mine, of["newton"]) for mine in of.values() if mine]
    older = "" if all(record.get("revision") for record in records) else OLDER
    head = HEAD.format(measured=measured_with(records), older=older, limits=limits)
    return head + table(COLUMNS, rows, text=2)


def save(records: Sequence[Record]) -> None:
    """Write records and page, each whole or not at all."""
    lines = ",\n".join(json.dumps(record) for record in records)
    for path, text in ((RECORDS, f"[\n{lines}\n]\n"), (DOCS / "robustness.md", page(records))):
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
    parser.add_argument("--page", action="store_true", help="only write the page anew")
    given = parser.parse_args()
    if given.page:
        save(json.loads(RECORDS.read_text()))
        return
    seeds = range(given.first, given.first + given.starts)
    run(((p, m, s) for s in seeds for p in given.problems for m in given.methods), given.seconds)


if __name__ == "__main__":
    main()
