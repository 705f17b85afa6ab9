"""Runs the peers beside us and writes docs/peers.json and docs/peers.md.

    python3 -m benchmarks.peers TABLE [--tools TOOL ...] [--problems NAME ...] [--runs N]
                                      [--limit SECONDS] [--threads N] [--again]

TABLE is one of

    solves   time to a relative gradient of 1e-8 on benchmarks/problems/, from random starts
    tiny     the same on coarse networks, on which CasADi finishes too
    wide     the same from zero on 1 024 nodes with 8 samples, where we take the Gram form
    costs    what a gradient and a Hessian product cost, in per cent of the matrix-product rate
    page     nothing; writes the page anew

To be started outside of `environment/enter` with any Python from 3.11: it needs no package. Every
run is a process of its own in its environment, one at a time, all tools in turn on one problem and
one start before the next. A record that exists is not measured again unless `--again` is given:
the benchmark may be stopped at any time and gone on with, and `--again --tools newton
jax_trust_ncg` measures only these anew.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.peers import page, records
from benchmarks.revision import REPOSITORY, revision

PROBLEMS = REPOSITORY / "benchmarks" / "problems"
OURS = [str(REPOSITORY / "environment" / "enter"), "python3", "-m"]
PEERS = REPOSITORY / "environment" / "peers"
THEIRS = [str(PEERS / "python"), "-m"]

PATIENCE = 4.0
"""Seconds of the wall per second of a limit, and a minute to start, before a process is ended."""


@dataclass(frozen=True)
class Network:
    """A problem of a table.

    Attributes:
        name: As in the table.
        case: Its file's name without suffix.
        changes: `--set` of it.
    """

    name: str
    case: str
    changes: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The case file."""
        return str(PROBLEMS / f"{self.case}.toml")


@dataclass(frozen=True)
class Table:
    """What is measured.

    Attributes:
        networks: The problems.
        tools: Ours and the peers.
        runs: How many, with the seeds 0, 1, ... where the starts are random.
        limit: Seconds of a solve; 0: not a solve but the cost of single calls.
        random: Whether the starts are; else zero.
        once: Tools of which one run is enough, within so many seconds.
    """

    networks: tuple[Network, ...]
    tools: tuple[str, ...]
    runs: int
    limit: float
    random: bool = True
    once: Mapping[str, float] = field(default_factory=dict)


def resized(case: str, penalty: float | None = None, **sizes: int) -> Network:
    """A problem on another number of nodes, layers, samples, with another Tikhonov weight."""
    keys = {"nodes": "mesh.width.cells", "layers": "mesh.depth.cells", "samples": "data.samples"}
    name = f"{case}, " + ", ".join(f"{size} {what}" for what, size in sizes.items())
    changes = [f"{keys[what]}={size}" for what, size in sizes.items()]
    if penalty is not None:
        name += f", lambda = {penalty:g}"
        changes += [f"regularization.{control}={penalty}" for control in ("kernel", "bias")]
    return Network(name, case, tuple(changes))


SOLVERS = ("newton", "jax_trust_ncg", "scipy_lbfgsb", "torch_lbfgs")

TABLES = {
    "solves": Table(
        tuple(Network(path.stem, path.stem) for path in sorted(PROBLEMS.glob("*.toml"))),
        (*SOLVERS, "torch_adam"),
        runs=3,
        limit=30.0,
        once={"torch_adam": 10.0},
    ),
    "tiny": Table(
        tuple(
            resized("transport", nodes=n, layers=k) for n, k in ((4, 4), (8, 8), (16, 8), (24, 8))
        ),
        (*SOLVERS, "casadi_ipopt"),
        runs=3,
        limit=30.0,
    ),
    "wide": Table(
        (
            resized("transport", nodes=1024, layers=16),
            resized("transport", nodes=1024, layers=16, penalty=0.1),
        ),
        SOLVERS,
        runs=1,
        limit=420.0,
        random=False,
    ),
    "costs": Table(
        (
            resized("sine", nodes=64, samples=32, layers=32),
            resized("sine", nodes=512, samples=512, layers=32),
        ),
        SOLVERS,
        runs=1,
        limit=0.0,
    ),
}


def environment(threads: int) -> dict[str, str]:
    """Variables of a run: as many threads in every library that has some."""
    count = str(threads)
    return os.environ | {
        "OMP_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'} "
        f"intra_op_parallelism_threads={count}",
    }


def run(command: list[str], threads: int, patience: float = 600.0) -> records.Record:
    """The record that a process prints; why there is none, if there is none."""
    try:
        done = subprocess.run(
            command,
            env=environment(threads),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=patience,
        )
    except subprocess.TimeoutExpired:
        return {"reached": False, "ended": "did not react within the limit"}
    if done.returncode:
        return {"reached": False, "ended": f"status {done.returncode}"}
    lines = done.stdout.splitlines()
    return json.loads(lines[-1]) if lines else {}


def measure(
    table: Table, network: Network, tool: str, seed: int, threads: int, file: Path
) -> records.Record:
    """One run of one tool."""
    start = ["--seed", str(seed)] if table.random else []
    limit = table.once.get(tool, table.limit)
    patience = 60.0 + PATIENCE * limit
    if not table.limit:
        command = (
            [*OURS, "benchmarks.peers.our_costs", network.path, *network.changes]
            if tool == "newton"
            else [*THEIRS, "benchmarks.peers.costs", tool, str(file)]
        )
        return run(command, threads)
    if tool == "newton":
        changes = ["--set", *network.changes] if network.changes else []
        command = [*OURS, "benchmarks.peers.newton", network.path, *start, *changes]
        return run(command, threads, max(patience, 600.0))
    command = [*THEIRS, "benchmarks.peers.worker", tool, str(file), *start]
    return run([*command, "--limit", str(limit)], threads, patience)


def fill(name: str, given: argparse.Namespace, known: list[records.Record]) -> None:
    """Measure what a table lacks, and write the page after every problem."""
    table = TABLES[name]
    runs, session = given.runs or table.runs, time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    if given.limit:
        table = replace(table, limit=given.limit, once=dict.fromkeys(table.once, given.limit))
    have = set() if given.again else {records.key(record) for record in known}
    with tempfile.TemporaryDirectory(prefix="fem-dnn-peers-") as folder:
        for network in table.networks:
            if given.problems and not {network.name, network.case} & set(given.problems):
                continue
            todo = [
                (seed, tool)
                for seed in range(runs)
                for tool in given.tools or table.tools
                if not (seed and tool in table.once)
                and (name, network.name, tool, seed, given.threads) not in have
            ]
            file = Path(folder) / "problem.npz"
            if any(tool != "newton" for _, tool in todo):
                subprocess.run([PEERS / "prepare"], stdout=subprocess.DEVNULL)  # says what is amiss
                changes = ["--set", *network.changes] if network.changes else []
                command = [*OURS, "benchmarks.peers.export", network.path, str(file), *changes]
                subprocess.run(command, check=True, env=environment(1), stdin=subprocess.DEVNULL)
            for seed, tool in todo:
                record = measure(table, network, tool, seed, given.threads, file)
                if "disagrees" in record:
                    sys.exit(f"{tool} on {network.name} differs by {record['disagrees']:.1e}")
                record = {
                    "table": name,
                    "problem": network.name,
                    "tool": tool,
                    "run": seed,
                    "threads": given.threads,
                    "session": session,
                    "limit": table.once.get(tool, table.limit),
                    **record,
                }
                if tool == "newton":
                    record["revision"] = revision()
                records.keep(known, record)
                said = ("reached", "cpu_seconds", "seconds", "objective", "gradient", "hessian")
                print(
                    name, network.name, tool, seed, *(record.get(s, "") for s in said), flush=True
                )
            records.write_whole(page.PATH, page.render(known))


def main() -> None:
    """Measure one table."""
    parser = argparse.ArgumentParser(
        prog="python3 -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", choices=[*TABLES, "page"])
    tools = sorted({tool for table in TABLES.values() for tool in table.tools})
    parser.add_argument("--tools", nargs="+", choices=tools)
    parser.add_argument("--problems", nargs="+")
    parser.add_argument("--runs", type=int)
    parser.add_argument("--limit", type=float)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true")
    given = parser.parse_args()
    known = records.read()
    if given.table in TABLES:
        fill(given.table, given, known)
    records.write_whole(page.PATH, page.render(known))


if __name__ == "__main__":
    main()
