"""What a gradient and a Hessian product cost a peer; prints a record as JSON.

environment/peers/python -m benchmarks.peers.costs TOOL PROBLEM.npz
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers.discrete import DiscreteProblem
from benchmarks.peers.timing import own_seconds, product_gflops
from benchmarks.peers.worker import AGREEMENT, disagreement, installed


def measure(name: str, path: Path) -> dict[str, Any]:
    """The record of one peer; `absent` or `disagrees` say why there is none."""
    try:
        tool, versions = installed(name)
    except ImportError as error:
        return {"absent": str(error)}
    problem = DiscreteProblem.read(path)
    model = tool.Model(problem)
    difference = disagreement(problem, model, path)
    if not difference <= AGREEMENT:
        return {"disagrees": difference, "versions": versions}
    z, direction = problem.random(0), problem.random(1)
    record: dict[str, Any] = {
        "gflops": product_gflops(),
        "gradient": own_seconds(lambda: model.objective_and_gradient(z)),
    }
    if hasattr(model, "hessian_action"):
        record["hessian"] = own_seconds(lambda: model.hessian_action(z, direction))
    return record | {"difference": difference, "versions": versions}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
