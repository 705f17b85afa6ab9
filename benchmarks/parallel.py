"""Gradients and Hessian products on two ranks against one. Writes docs/parallel.md, .json, .png.

    environment/enter python3 -m benchmarks.parallel [--sizes N,S,L ...] [--rounds K] [--page]

Starts two ranks, each with one BLAS thread. In every round, one after the other: one rank works
alone while the other sleeps; both share the rows; both share the samples; and matrix products of
the sweep's own shape, on one rank alone and on both at the same time, which says what two ranks can
gain on this machine at best. Processor times are of runs in which ranks meet asleep before they
exchange: on a shared machine too they say what a rank has to do. The traffic is counted, and so is
the work of `newton` either way (`parallel_solves`); a model of the time is fitted
(`parallel_model`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from benchmarks import parallel_page, parallel_solves
from benchmarks.communication import (
    Traffic,
    gradient_words,
    grid_problem,
    meet,
    product_bound,
    state_words,
)
from benchmarks.revision import revision
from fem_dnn import __version__
from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.sample_groups import SampleGroups

Array = NDArray[np.float64]
Row = dict[str, Any]

TARGET = (1024, 512, 32)
SMALLER = [(256, 128, 32), (256, 512, 16), (512, 64, 32), (512, 512, 8)]
SMALL = 5e9
"""N^2 S L up to which there are 5 rounds at the least."""

THIN = [(n, m) for n in (512, 1024) for m in (8, 16, 32, 64, 128, 512)]
MODES = {"width": 1, "samples": 2}
"""Number of groups of two ranks."""
DOCS = Path(__file__).parent.parent / "docs"


def clocked(
    work: Callable[[], object], alone: bool = False, traffic: Traffic | None = None
) -> tuple[float, float]:
    """Seconds of a piece of work, and of a processor's time, on rank 0 alone or on all ranks.

    The most that any of them takes, without what meetings in the traffic take; the same on all.
    """
    comm, traffic = MPI.COMM_WORLD, traffic or Traffic()
    met = traffic.meeting
    meet(comm)
    comm.Barrier()
    started, before = time.perf_counter(), time.process_time()
    if not alone or comm.rank == 0:
        work()
    seconds = np.array([time.perf_counter() - started, time.process_time() - before])
    seconds[1] -= traffic.meeting - met
    meet(comm)
    if alone:
        comm.Bcast(seconds)
    else:
        comm.Allreduce(MPI.IN_PLACE, seconds, op=MPI.MAX)
    return float(seconds[0]), float(seconds[1])


class Evaluation:
    """Gradients at one control, and Hessian products there."""

    def __init__(self, problem: LearningProblem | None) -> None:
        self.problem = problem
        self.control = None if problem is None else problem.controls.constant(0.5, 0.1)
        self.at: Linearisation | None = None

    def gradient(self) -> None:
        """Objective and gradient, from nothing."""
        assert self.problem is not None and self.control is not None
        self.at = None
        self.at = self.problem.linearise(self.control)
        _ = self.at.objective, self.at.gradient

    def hessian(self) -> None:
        """A product with the gradient."""
        assert self.at is not None
        self.at.hessian_action(self.at.gradient)


def matrix_product(rows: int, inner: int, columns: int, calls: int) -> Callable[[], None]:
    """Some products of random matrices into the same place."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((rows, inner)), rng.standard_normal((inner, columns))
    out = np.empty((rows, columns))

    def work() -> None:
        for _ in range(calls):
            np.matmul(a, b, out=out)

    return work


def measure(nodes: int, samples: int, layers: int, rounds: int) -> Row:
    """One size: medians over rounds in which everything has its turn."""
    comm = MPI.COMM_WORLD
    traffic = {mode: Traffic() for mode in MODES}
    turns: dict[str, Evaluation] = {"alone": Evaluation(None)}
    if comm.rank == 0:
        one = SampleGroups.alone(MPI.COMM_SELF)
        turns["alone"] = Evaluation(grid_problem(one, nodes, samples, layers))
    for mode, count in MODES.items():
        groups = SampleGroups.of(comm, count)
        turns[mode] = Evaluation(grid_problem(groups, nodes, samples, layers, traffic[mode]))
    calls = max(1, int(4e9 / (nodes**2 * samples)))
    half = matrix_product(nodes // 2, nodes, samples, calls)
    operations = calls * nodes**2 * samples
    times: dict[str, list[float]] = {}
    counted: dict[str, Row] = {}
    for number in range(rounds + 1):  # the first touches memory first, and does not count
        for name, turn in turns.items():
            own = None if name == "alone" else traffic[name]
            before = 0 if own is None else own.words
            first = clocked(turn.gradient, own is None)
            if own is not None and number == 0:
                assert turn.problem is not None
                counted[name] = {
                    "counted": own.words - before,
                    "formula": gradient_words(turn.problem),
                    "state": state_words(turn.problem),
                }
            second = clocked(turn.hessian, own is None)
            patient = first[1], second[1]
            if own is not None and number:
                own.patient = True
                patient = (
                    clocked(turn.gradient, traffic=own)[1],
                    clocked(turn.hessian, traffic=own)[1],
                )
                own.patient = False
            turn.at = None
            if number:
                for what, wall, processor in zip(
                    ("gradient", "hessian"), (first[0], second[0]), patient, strict=True
                ):
                    times.setdefault(f"{name} {what}", []).append(wall)
                    times.setdefault(f"{name} {what} processor", []).append(processor)
        for name in ("one", "two"):
            wall, processor = clocked(half, name == "one")
            if number:
                times.setdefault(f"rate {name}", []).append(operations / wall)
                times.setdefault(f"rate {name} processor", []).append(operations / processor)
    row: Row = {"nodes": nodes, "samples": samples, "layers": layers, "rounds": rounds}
    row |= {name: statistics.median(values) for name, values in times.items()}
    row["traffic"] = counted
    for mode in MODES:
        for what in ("gradient", "hessian"):
            for measure in ("", " processor"):
                pairs = zip(
                    times[f"alone {what}{measure}"], times[f"{mode} {what}{measure}"], strict=True
                )
                speedup = statistics.median(a / b for a, b in pairs)
                row[f"{mode} {what} speedup{measure}"] = speedup
    row["load"], row["cores"] = os.getloadavg()[0], os.cpu_count()
    row["version"], row["revision"] = __version__, revision()
    row["bound"] = layers * product_bound(nodes, nodes, samples, 2)
    return row


def thin_products() -> list[Row]:
    """Rates of products with few rows or few samples, on both ranks at the same time."""
    rows = []
    for inner, thin in THIN:
        for m, s in ((thin, 512), (512, thin)):
            calls = max(1, int(2e9 / (m * inner * s)))
            work = matrix_product(m, inner, s, calls)
            seconds = min(clocked(work)[1] for _ in range(3))
            rows.append({"m": m, "n": inner, "s": s, "rate": 2 * calls * m * inner * s / seconds})
    return rows


def messages() -> Row:
    """Latency and bandwidth of gathers between two ranks of this machine, undisturbed."""
    comm, found = MPI.COMM_WORLD, {}
    for name, size, calls in (("small", 1, 200), ("large", 1 << 19, 2)):
        piece, whole = np.ones(size), np.empty(2 * size)
        counts = np.array([size, size])

        def gather(
            piece: Array = piece, whole: Array = whole, counts: Any = counts, calls: int = calls
        ) -> None:
            for _ in range(calls):
                comm.Allgatherv(piece, [whole, counts])

        found[name] = min(clocked(gather)[0] for _ in range(30)) / calls
    return {"latency": found["small"], "bandwidth": 8 * (1 << 19) / found["large"]}


def overlap(nodes: int, samples: int, layers: int, rounds: int) -> Row:
    """A forward sweep by rows: plain, in two blocks of samples, and these overlapped.

    Overlapped, the next block's gather is posted before a block's product.
    """
    comm = MPI.COMM_WORLD
    rng = np.random.default_rng(comm.rank)
    mine = nodes // 2
    kernel = rng.standard_normal((mine, nodes)) / nodes
    counts = np.array([mine, mine])

    def sweep(blocks: int, ahead: bool) -> None:
        size = samples // blocks
        f = [rng.standard_normal((mine, size)) for _ in range(blocks)]
        whole = [np.empty((nodes, size)) for _ in range(blocks)]
        pending: dict[int, MPI.Request] = {}

        def post(block: int) -> None:
            buffer = [whole[block], counts * size]
            pending[block] = comm.Iallgatherv(f[block], buffer)

        if ahead:
            post(0)
        for layer in range(layers):
            for block in range(blocks):
                if ahead:
                    if (layer, block) != (layers - 1, blocks - 1):
                        post((block + 1) % blocks)
                    pending.pop(block).Wait()
                else:
                    comm.Allgatherv(f[block], [whole[block], counts * size])
                f[block] += np.tanh(kernel @ whole[block]) / layers

    ways = {"plain": (1, False), "two blocks": (2, False), "overlapped": (2, True)}
    times: dict[str, list[float]] = {}
    f, whole = np.ones((mine, samples)), np.empty((nodes, samples))

    def gathers() -> None:
        for _ in range(layers):
            comm.Allgatherv(f, [whole, counts * samples])

    for _ in range(rounds):
        found = {
            name: clocked(partial(sweep, blocks, ahead))[0]
            for name, (blocks, ahead) in ways.items()
        }
        found["gathers"] = clocked(gathers)[0]
        for name, seconds in found.items():
            times.setdefault(name, []).append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def work(sizes: list[tuple[int, int, int]], rounds: int, path: Path) -> None:
    """What both ranks do; rank 0 writes the numbers."""
    comm = MPI.COMM_WORLD
    result: Row = {"machine": messages() | {"products": thin_products()}}
    result["overlap"] = overlap(*sizes[0][:2], 8, 5)
    result["rows"] = []
    for size in sizes:
        small = size[0] ** 2 * size[1] * size[2] < SMALL
        result["rows"].append(measure(*size, max(rounds, 5) if small else rounds))
        if comm.rank == 0:
            print(json.dumps(result["rows"][-1]), flush=True)
    result["solves"] = parallel_solves.count()
    if comm.rank == 0:
        path.write_text(json.dumps(result, indent=2) + "\n")


def main() -> None:
    """Start the ranks, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", help="N,S,L; the first is the table's")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--page", action="store_true", help="only write the page anew")
    parser.add_argument("--out", type=Path, default=DOCS)
    parser.add_argument("--ranks-write", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    sizes = [TARGET, *SMALLER]
    if chosen.sizes:
        sizes = [(int(n), int(s), int(k)) for n, s, k in (t.split(",") for t in chosen.sizes)]
    if chosen.ranks_write:
        work(sizes, chosen.rounds, chosen.ranks_write)
        return
    chosen.out.mkdir(parents=True, exist_ok=True)
    path = chosen.out / "parallel.json"
    if not chosen.page:
        start_ranks(sizes, chosen.rounds, path)
    parallel_page.write(json.loads(path.read_text()), chosen.out)


def start_ranks(sizes: list[tuple[int, int, int]], rounds: int, path: Path) -> None:
    """Measure on two ranks, with one thread each."""
    command = [
        "mpirun",
        "-n",
        "2",
        "--bind-to",
        "none",
        sys.executable,
        "-m",
        "benchmarks.parallel",
    ]
    command += ["--sizes", *(",".join(map(str, size)) for size in sizes)]
    command += ["--rounds", str(rounds), "--ranks-write", str(path)]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run(command, env=os.environ | one_thread, check=True)


if __name__ == "__main__":
    main()
