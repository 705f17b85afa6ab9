"""One solve of one peer, in the peers' environment; prints a record as JSON.

    environment/peers/python -m benchmarks.peers.worker TOOL PROBLEM.npz [--seed N]
                                                        [--limit SECONDS]

The peer's objective and gradient norm are compared with ours first.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.discrete import DiscreteProblem
from benchmarks.peers.watch import Stop, Watch

AGREEMENT = 1e-10
"""Largest relative difference of objectives and of gradient norms."""


def disagreement(problem: DiscreteProblem, model: Any, path: Path) -> float:
    """Largest relative difference to our objectives and gradient norms in the file."""
    worst = 0.0
    with np.load(path) as ours:
        checked = zip(ours["checked_seeds"], ours["checked_scales"], strict=True)
        expected = zip(ours["objectives"], ours["gradient_norms"], strict=True)
        for (seed, scale), (objective, norm) in zip(checked, expected, strict=True):
            z = problem.random(int(seed), float(scale))
            value, gradient = model.objective_and_gradient(z)
            worst = max(worst, abs(value / objective - 1))
            worst = max(worst, abs(problem.norm(z, gradient) / norm - 1))
    return worst


def installed(name: str) -> tuple[Any, dict[str, str]]:
    """A peer's module and the versions of what it needs.

    Raises:
        ImportError: Something is not there.
    """
    tool = importlib.import_module(f"benchmarks.peers.tools.{name}")
    return tool, {need: importlib.metadata.version(need) for need in tool.NEEDS}


def measure(name: str, path: Path, seed: int | None, limit: float) -> dict[str, Any]:
    """The record of one solve; `absent`, `refused` or `disagrees` say why there was none."""
    try:
        tool, versions = installed(name)
    except ImportError as error:
        return {"absent": str(error)}
    problem = DiscreteProblem.read(path)
    if problem.box is not None and not tool.WITHIN_BOUNDS:
        return {"refused": "knows no bounds", "versions": versions}
    began = time.perf_counter()
    model = tool.Model(problem)
    difference = disagreement(problem, model, path)
    if not difference <= AGREEMENT:
        return {"disagrees": difference, "versions": versions}
    start = np.zeros(problem.size) if seed is None else problem.random(seed)
    if hasattr(model, "compile"):
        model.compile(start)
    watch = Watch(limit)
    with contextlib.suppress(Stop):
        tool.solve(model, start, watch)
    prepared = watch.started - began
    record = watch.result() | {"difference": difference, "preparation": prepared}
    if name == "torch_adam":
        record["curve"] = watch.curve
    return record | {"versions": versions | {"python": sys.version.split()[0]}}


def main() -> None:
    """Measure, and print the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tool")
    parser.add_argument("problem", type=Path)
    parser.add_argument("--seed", type=int, help="of the random start; without it, zero")
    parser.add_argument("--limit", type=float, default=60.0)
    given = parser.parse_args()
    print(json.dumps(measure(given.tool, given.problem, given.seed, given.limit)))


if __name__ == "__main__":
    main()
