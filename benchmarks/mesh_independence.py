"""Newton and CG counts against the mesh: a smooth case from 32 to 256 nodes and 16 to 128 layers.

    environment/enter python3 benchmarks/mesh_independence.py

prints the table and writes docs/mesh-independence.md and .json beside it. The counts may not vary
by more than 25 %: controls carry the L2 inner product or, where derivatives are penalised, the
regulariser's own.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import fem_dnn

NODES = [32, 64, 128, 256]
LAYERS = [16, 32, 64, 128]
LIMIT = 0.25
"""Largest variation of the counts, (highest - lowest) / lowest."""

REGULARIZATIONS = {
    "L2": {"kernel": 0.1, "bias": 0.1},
    "H1 in depth": {"kernel": 0.1, "bias": 0.1, "kernel_depth": 0.03, "bias_depth": 0.03},
    "H1 in depth and width": {
        "kernel": 0.1, "bias": 0.1, "kernel_depth": 0.03, "bias_depth": 0.03,
        "kernel_width": 1e-3, "bias_width": 1e-3,
    },
}  # fmt: skip


HEAD = """# Iteration counts against the mesh

Made by `benchmarks/mesh_independence.py` with fem-dnn {version}; do not edit.

Newton and CG steps to a relative gradient of 1e-8 from zero controls on a smooth case: two
functions on an interval carried to two others, tanh. The counts may vary by 25 % at most.

| regularization | scheme | growing | sizes | Newton | CG | largest variation |
|---|---|---|---|---|---|---|
"""


def case(nodes: int, layers: int, scheme: str, regularization: dict[str, float]) -> dict[str, Any]:
    """Carry two functions to two others."""
    return {
        "mesh": {
            "width": {"shape": "interval", "length": 1.0, "cells": nodes},
            "depth": {"length": 1.0, "cells": layers},
        },
        "network": {"depth_scheme": scheme},
        "data": {
            "inputs": ["sin(pi*x)", "cos(pi*x)"],
            "targets": ["cos(2*pi*x)/2", "x"],
        },
        "regularization": regularization,
        "solver": {"escape": False},
    }


def measure(name: str, scheme: str, nodes: int, layers: int) -> dict[str, Any]:
    """One solve."""
    started = time.perf_counter()
    solution = fem_dnn.solve(case(nodes, layers, scheme, REGULARIZATIONS[name])).solution
    assert solution is not None and solution.converged, solution and solution.reason
    return {
        "regularization": name,
        "scheme": scheme,
        "nodes": nodes,
        "layers": layers,
        "newton": solution.iterations,
        "cg": solution.linear_iterations,
        "objective": solution.objective,
        "seconds": time.perf_counter() - started,
    }


def variation(counts: list[int]) -> float:
    """(highest - lowest) / lowest."""
    return (max(counts) - min(counts)) / min(counts)


def series(name: str, scheme: str, along: str) -> list[dict[str, Any]]:
    """Solves with one of nodes and layers growing."""
    if along == "nodes":
        return [measure(name, scheme, nodes, LAYERS[0]) for nodes in NODES]
    return [measure(name, scheme, NODES[0], layers) for layers in LAYERS]


def main() -> None:
    """Measure everything, print and write it."""
    lines = [*HEAD.format(version=fem_dnn.__version__).splitlines()]
    results, worst = [], 0.0
    for name in REGULARIZATIONS:
        for scheme in ("resnet", "dg1"):
            for along in ("nodes", "layers"):
                rows = series(name, scheme, along)
                results += rows
                newton, cg = [r["newton"] for r in rows], [r["cg"] for r in rows]
                largest = max(variation(newton), variation(cg))
                worst = max(worst, largest)
                cells = [name, scheme, along]
                cells += [", ".join(str(r[along]) for r in rows)]
                cells += [", ".join(map(str, counts)) for counts in (newton, cg)]
                lines.append("| " + " | ".join([*cells, f"{largest:.0%}"]) + " |")
                print(lines[-1], flush=True)
    docs = Path(__file__).resolve().parent.parent / "docs"
    (docs / "mesh-independence.md").write_text("\n".join(lines) + "\n")
    (docs / "mesh-independence.json").write_text(json.dumps(results, indent=1) + "\n")
    assert worst <= LIMIT, f"counts vary by {worst:.0%}"


if __name__ == "__main__":
    main()
