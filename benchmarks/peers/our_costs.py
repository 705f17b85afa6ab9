"""What a gradient and a Hessian product cost us, in the dense form; prints a record as JSON.

environment/enter python3 -m benchmarks.peers.our_costs CASE.toml [key=value ...]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mpi4py import MPI

from benchmarks.peers.newton import versions
from benchmarks.peers.timing import own_seconds, product_gflops
from fem_dnn.assembly import assemble
from fem_dnn.case import read_case


def measure(path: Path, changes: list[str]) -> dict[str, Any]:
    """The record: at a control, objective and gradient; there, a product with a direction."""
    problem = assemble(read_case(path, changes), MPI.COMM_SELF).problem
    assert problem is not None
    control = problem.controls.random(0)
    direction = problem.controls.random_direction(1)

    def gradient() -> None:
        at = problem.linearise(control)
        at.objective, at.gradient  # noqa: B018 (computed when asked for)

    rate, cost = product_gflops(), own_seconds(gradient)
    at = problem.linearise(control)
    product = own_seconds(lambda: at.hessian_action(direction))
    return {"gflops": rate, "gradient": cost, "hessian": product, "versions": versions()}


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), sys.argv[2:])))
