"""Our side: one solve by `newton` with its defaults; prints a record as JSON.

    environment/enter python3 -m benchmarks.peers.newton CASE.toml [--seed N] [--set key=value ...]

The call is that of `fem-dnn solve`: the form (dense or Gram) that the program chooses, as many BLAS
threads as it finds suitable, escape from saddles on. `seconds` end at the first iterate whose
gradient is small enough, as the peers' do; `seconds_with_proof` also hold the lowest Hessian
eigenvalue, which says whether that is a minimiser. The machine's rate of matrix products is
measured in the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from mpi4py import MPI
from petsc4py import PETSc

import fem_dnn
from benchmarks.peers.timing import product_gflops
from fem_dnn.assembly import assemble
from fem_dnn.case import read_case
from fem_dnn.gram.choice import choose_representation, representation
from fem_dnn.solvers import Tolerances, solve_newton
from fem_dnn.solvers.history import Iteration
from fem_dnn.threads import suitable_threads

RTOL = 1e-8

START = "solver.initial={{ kind = 'random', seed = {seed}, scale = 1.0 }}"


def versions() -> dict[str, str]:
    """Of what a solve of ours depends on."""
    return {
        "fem-dnn": fem_dnn.__version__,
        "petsc": ".".join(map(str, PETSc.Sys.getVersion())),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "python": platform.python_version(),
    }


def measure(path: Path, changes: list[str], seed: int | None) -> dict[str, Any]:
    """The record of one solve, from standard normal controls or, without a seed, from zero."""
    rate = product_gflops()
    start = [] if seed is None else [START.format(seed=seed)]
    model = choose_representation(assemble(read_case(path, [*changes, *start]), MPI.COMM_SELF))
    problem, initial = model.problem, model.initial
    assert problem is not None
    first = problem.linearise(problem.controls.project(initial.copy())).gradient_norm  # warms up
    passed: list[tuple[float, Iteration]] = []
    with suitable_threads(problem):
        began = time.process_time()
        solution = solve_newton(
            problem,
            initial,
            Tolerances(RTOL, 0.0, 500),
            report=lambda line: passed.append((time.process_time() - began, line)),
        )
    met = [(cpu, line) for cpu, line in passed if line.gradient_norm <= RTOL * first]
    cpu, line = met[0] if met else passed[-1]
    return {
        "reached": bool(met),
        "seconds": line.seconds if met else solution.seconds,
        "cpu_seconds": cpu,
        "objective": line.objective,
        "relative_gradient": line.gradient_norm / first,
        "iterations": line.iteration,
        "evaluations": line.adjoint_solves,
        "hessian_products": line.hessian_solves,
        "sweeps": line.sweeps,
        "seconds_with_proof": solution.seconds,
        "final_objective": solution.objective,
        "lowest_eigenvalue": solution.lowest_eigenvalue,
        "converged": solution.converged,
        "reason": solution.reason,
        "representation": representation(model),
        "gflops": rate,
        "cores": len(os.sched_getaffinity(0)),
        "versions": versions(),
    }


def main() -> None:
    """Measure, and print the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("case", type=Path)
    parser.add_argument("--seed", type=int, help="of the random start; without it, zero")
    parser.add_argument("--set", nargs="*", default=[])
    given = parser.parse_args()
    print(json.dumps(measure(given.case, given.set, given.seed)))


if __name__ == "__main__":
    main()
