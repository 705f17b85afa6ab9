"""Cost and memory against width: the Gram form is linear in it. Writes docs/width.md, .json, .png.

    environment/enter python3 -m benchmarks.width [--anew] [--only product solve ...] [--page]
                                                  [--out DIR]

One learning problem (resnet, tanh, l2 loss, lambda = 0.1) on ever finer widths: the time of a
Hessian product in both forms, as far as the dense one goes; the time and the memory of a Newton
solve from zero to a relative gradient of 1e-6; and what a million nodes take. Every measurement is
a process of its own, so that its peak memory is its own, and is written as soon as it is known; one
that the JSON file has already, at whatever commit, is not taken again unless asked for `--anew`.
One thread.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.peers.timing import ORDER
from benchmarks.revision import measured_with, revision
from benchmarks.width_page import page, picture
from fem_dnn import __version__
from fem_dnn.activations import ACTIVATIONS
from fem_dnn.controls import ControlSpace
from fem_dnn.depth import SCHEMES, DepthLevels
from fem_dnn.gram import GramProblem
from fem_dnn.losses import L2Loss
from fem_dnn.mesh import interval
from fem_dnn.network import Network
from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.regularization import Regularization
from fem_dnn.solvers import Tolerances, solve_newton
from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]
Row = dict[str, Any]

SAMPLES, LAYERS = 16, 32
PENALTY = 0.1
RTOL = 1e-6
ROUNDS = 5
DOCS = Path(__file__).parent.parent / "docs"

DENSE = [250, 500, 1000]
PRODUCTS = [250 * 2**k for k in range(10)]
SOLVES = [1000, 8000, 32_000, 100_000]
MILLION = 1_000_000

PLAN: list[Row] = [
    *({"measure": "dense", "nodes": nodes} for nodes in DENSE),
    *({"measure": "product", "nodes": b, "beside": a} for a, b in pairwise(PRODUCTS)),
    {"measure": "product", "nodes": 300_000, "beside": 128_000, "layers": 8},
    *({"measure": "solve", "nodes": nodes} for nodes in SOLVES),
    *({"measure": "solve", "nodes": nodes, "layers": 8} for nodes in (128_000, 300_000)),
    {"measure": "solve", "nodes": 32_000, "at_once": 6},
    {"measure": "once", "nodes": MILLION, "at_once": 4},
    {"measure": "solve", "nodes": MILLION, "samples": 8, "layers": 8, "at_once": 3},
]
"""What is measured: `beside` is the width that a product is timed in turns with; `at_once` the
layers whose states are at hand at a time. The largest rows are as large as a machine of 24 GB holds
beside other work: two widths at once with fewer layers, a million nodes with 16 GB at the most."""


def problem(nodes: int, samples: int = SAMPLES, layers: int = LAYERS) -> LearningProblem:
    """Sines to be carried to cosines; neighbouring inputs are nearly dependent."""
    space, s = WidthSpace(interval(MPI.COMM_SELF, nodes), 0), np.arange(samples)
    x = space.local_nodes
    inputs = np.sin(np.pi * (1 + s / 2) * x + 0.3 * s)
    targets = np.where(np.sin(s) < 0, -1, 1) * np.cos(np.pi * (1 + s % 3) * x)
    return carried(space, layers, inputs, targets, PENALTY)


def carried(
    space: WidthSpace, layers: int, inputs: Array, targets: Array, penalty: float
) -> LearningProblem:
    """Functions to be carried to others, (nodes, samples): resnet, tanh, kernel and bias, l2."""
    levels, samples = DepthLevels(SCHEMES["resnet"], np.linspace(0, 1, layers + 1)), inputs.shape[1]
    controls = ControlSpace(space, levels)
    return LearningProblem(
        Network(space, levels, ACTIVATIONS["tanh"]),
        controls,
        inputs,
        np.full(samples, 1 / samples),
        L2Loss(space, targets),
        Regularization(controls, penalty, penalty),
    )


def gram_of(row: Row) -> GramProblem:
    """The Gram form of a row's problem."""
    size = (row["nodes"], row.get("samples", SAMPLES), row.get("layers", LAYERS))
    return GramProblem.of(problem(*size), row.get("at_once"))


def measure_rate(order: int = ORDER) -> float:
    """Best of some matrix products, in 1e9 operations per second of processor time."""
    a = np.random.default_rng(0).standard_normal((order, order))
    times = []
    for _ in range(3):
        started = time.process_time()
        a @ a
        times.append(time.process_time() - started)
    return 2e-9 * order**3 / min(times)


def seconds_of_product(at: Linearisation, z: Array) -> float:
    """Processor time of a Hessian product as Newton's method takes it; z becomes the product."""
    metric = at.problem.metric(at)
    started = time.process_time()
    if metric is None:
        z[...] = at.hessian_action(z)
    else:
        at.hessian_in(metric, z, z)
    return time.process_time() - started


def measured_products(problems: list[LearningProblem]) -> list[list[float]]:
    """Times of products at a random control, the problems taking turns: (round, problem)."""
    points = []
    for of in problems:
        control = 1e-3 * np.random.default_rng(0).standard_normal(of.controls.n_local)
        at = of.linearise(control)
        z = at.gradient / of.controls.norm(at.gradient)
        at.__dict__.pop("gradient")
        seconds_of_product(at, z)
        points.append((at, z))
    rounds = []
    for _ in range(ROUNDS):
        rounds.append([])
        for at, z in points:
            z /= at.problem.controls.norm(z)
            rounds[-1].append(seconds_of_product(at, z))
    return rounds


def dense(row: Row) -> Row:
    """The dense form's product."""
    (times,) = zip(*measured_products([problem(row["nodes"])]), strict=True)
    return {"product": statistics.median(times)}


def product(row: Row) -> Row:
    """The Gram form's product on two widths in turns, and its growth per doubling."""
    pair = [gram_of(row | {"nodes": row[name]}) for name in ("beside", "nodes")]
    rounds = measured_products(list(pair))
    doublings = math.log2(row["nodes"] / row["beside"])
    ratio = statistics.median(second / first for first, second in rounds)
    before, after = (statistics.median(times) for times in zip(*rounds, strict=True))
    return {"product": after, "product_beside": before, "growth": ratio ** (1 / doublings)}


def solve(row: Row) -> Row:
    """A Newton solve from zero."""
    gram = gram_of(row)
    started = time.process_time()
    start = np.zeros(gram.controls.n_local)
    solution = solve_newton(gram, start, Tolerances(RTOL), escape=False)
    return {
        "processor_seconds": time.process_time() - started,
        "converged": solution.converged,
        "seconds": solution.seconds,
        "iterations": solution.iterations,
        "hessian_products": solution.hessian_solves,
        "objective": solution.objective,
        "relative_gradient": solution.gradient_norm / solution.initial_gradient_norm,
        "control_gigabytes": 8e-9 * gram.controls.n_local,
    }


def once(row: Row) -> Row:
    """Objective, gradient and one Hessian product at a random control."""
    gram = gram_of(row)
    control = np.random.default_rng(0).standard_normal(gram.controls.n_local)
    control *= 1e-3
    at = gram.linearise(control)
    times = [time.process_time()]
    objective = at.objective
    times.append(time.process_time())
    z = at.gradient
    times.append(time.process_time())
    z /= gram.controls.norm(z)
    seconds = seconds_of_product(at, z)
    return {
        "objective": objective,
        "state_seconds": times[1] - times[0],
        "gradient_seconds": times[2] - times[1],
        "product": seconds,
        "product_norm": gram.controls.norm(z),
        "control_gigabytes": 8e-9 * gram.controls.n_local,
    }


MEASURES = {"dense": dense, "product": product, "solve": solve, "once": once}


def measure(row: Row) -> Row:
    """A row with what has been measured, in this process."""
    base = peak_gigabytes()
    with threadpool_limits(1, user_api="blas"):
        rate = measure_rate()
        outcome = MEASURES[row["measure"]](row)
    memory = {"base_gigabytes": base, "peak_gigabytes": peak_gigabytes()}
    memory["machine_gigabytes"] = 1e-9 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    state = {"version": __version__, "revision": revision()}
    return row | outcome | memory | {"gflops": rate} | state


def peak_gigabytes() -> float:
    """The most that this process has had in memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measure_apart(row: Row) -> Row:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.width", "--row", json.dumps(row)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure what is not known yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--anew", action="store_true", help="measure again what is known")
    parser.add_argument("--only", nargs="+", default=list(MEASURES), choices=list(MEASURES))
    parser.add_argument("--most", type=int, default=MILLION, help="largest width")
    parser.add_argument("--page", action="store_true", help="only write the page anew")
    parser.add_argument("--out", type=Path, default=DOCS)
    chosen = parser.parse_args()
    if chosen.row is not None:
        print(json.dumps(measure(chosen.row)))
        return
    chosen.out.mkdir(parents=True, exist_ok=True)
    file = chosen.out / "width.json"
    if not chosen.page:
        fill(file, chosen)
    record = json.loads(file.read_text())
    (chosen.out / "width.md").write_text(page(record))
    picture(record, chosen.out / "width.png")


def fill(file: Path, chosen: argparse.Namespace) -> None:
    """Measure what is asked for and not known, or all that is asked for."""
    known = json.loads(file.read_text())["rows"] if file.exists() else []
    kept = []
    for asked in PLAN:
        found = [row for row in known if asked.items() <= row.items() and _same(asked, row)]
        if asked["measure"] not in chosen.only or asked["nodes"] > chosen.most:
            continue
        if found and not chosen.anew:
            kept += found
            continue
        known = [row for row in known if row not in found] + [measure_apart(asked)]
        print(json.dumps(known[-1]), flush=True)
        settings = {"samples": SAMPLES, "layers": LAYERS, "penalty": PENALTY, "rtol": RTOL}
        settings |= {"rounds": ROUNDS}
        file.write_text(json.dumps(settings | {"rows": known}, indent=2) + "\n")
    if kept:
        print(
            f"{len(kept)} rows are known, measured with {measured_with(kept)}: not taken again "
            "(--anew does)"
        )


def _same(asked: Row, row: Row) -> bool:
    """Whether a row answers exactly what is asked."""
    names = ("beside", "at_once", "samples", "layers")
    return all(asked.get(name) == row.get(name) for name in names)


if __name__ == "__main__":
    main()
