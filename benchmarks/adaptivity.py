"""Adaptive against uniform refinement: error of the optimal objective against unknown controls.

The inputs have a layer in width, and the tracking targets are approached fast, early in depth:

    environment/enter python3 benchmarks/adaptivity.py [OUT_DIR]

writes adaptivity.json, adaptivity.md, adaptivity.png and the graded mesh's picture there. The true
error is taken against a reference on a mesh adapted to a tolerance far below all others.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import fem_dnn
from fem_dnn import pictures
from fem_dnn.adaptivity import solve_adaptively
from fem_dnn.pictures.style import CLASS_COLOURS, dress_curves, new_figure

TOLERANCE, REFERENCE_TOLERANCE = 3e-6, 3e-7
UNIFORM = [(4, 2), (8, 4), (16, 8), (32, 16)]
"""Width cells and layers of the uniform meshes; the adaptive ones start from the first."""


def case(cells: int, layers: int, degree: int = 1) -> dict[str, Any]:
    """A layer of width 1/40 at x = 0.3, and targets approached like exp(-30 t)."""
    layer, fast = "tanh(40*(x[0]-0.3))", "(1-exp(-30*t))"
    return {
        "mesh": {
            "width": {"shape": "interval", "length": 1.0, "cells": cells},
            "depth": {"length": 1.0, "cells": layers},
        },
        "network": {"width_degree": degree, "depth_scheme": "dg1"},
        "data": {
            "inputs": [layer, "cos(2*x[0])"],
            "targets": [layer, "0"],
            "tracking_targets": [f"{layer}+0.1*{fast}", f"cos(2*x[0])-0.1*{fast}"],
        },
        "loss": {"tracking": 10.0, "weight": 0.1},
        "regularization": {"kernel": 0.05, "bias": 0.05},
        "solver": {"rtol": 1e-8},
    }


def row(kind: str, mesh: dict[str, Any], reference: float) -> dict[str, Any]:
    """One line of the table."""
    return {
        "refinement": kind,
        **{name: mesh[name] for name in ("nodes", "layers", "unknowns")},
        "error": abs(mesh["objective"] - reference),
        "estimate": abs(mesh["depth"] + mesh["width"]),
    }


def measure() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The table, and the arrays of the last adaptive solution."""
    precise = solve_adaptively(case(*UNIFORM[0], degree=2), REFERENCE_TOLERANCE).meshes[-1]
    reference = precise["objective"] - precise["depth"] - precise["width"]
    adaptive = solve_adaptively(case(*UNIFORM[0]), TOLERANCE)
    rows = [row("adaptive", mesh, reference) for mesh in adaptive.meshes]
    for cells, layers in UNIFORM:
        run = fem_dnn.solve(case(cells, layers))
        assert run.estimate is not None, run.result["reason"]
        mesh = {
            "nodes": run.model.network.space.n_nodes,
            "layers": layers,
            "unknowns": run.solution.problem.controls.n_global,
            "objective": run.solution.objective,
            "depth": run.estimate.depth,
            "width": run.estimate.width,
        }
        rows.append(row("uniform", mesh, reference))
        print(rows[-1], flush=True)
    return rows, adaptive.run.arrays


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Error and estimate against unknowns."""
    figure = new_figure(6.0, 4.2, "Error of the optimal objective")
    panel = figure.subplots()
    for colour, kind in zip(CLASS_COLOURS, ("adaptive", "uniform"), strict=False):
        mine = [r for r in rows if r["refinement"] == kind]
        unknowns = [r["unknowns"] for r in mine]
        panel.loglog(unknowns, [r["error"] for r in mine], "o-", color=colour, label=kind)
        estimates = [r["estimate"] for r in mine]
        panel.loglog(unknowns, estimates, "x:", color=colour, label=f"{kind}, estimated")
    dress_curves(panel, x="unknown controls", y="error")
    panel.legend(frameon=False, fontsize=9)
    pictures.save(figure, path)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for r in rows:
        texts = (f"{v:.2e}" if isinstance(v, float) else str(v) for v in r.values())
        lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def main(out: Path) -> None:
    """Measure, write, draw."""
    out.mkdir(parents=True, exist_ok=True)
    rows, arrays = measure()
    (out / "adaptivity.json").write_text(json.dumps(rows, indent=2) + "\n")
    (out / "adaptivity.md").write_text(table(rows))
    draw(rows, out / "adaptivity.png")
    pictures.save(pictures.graded_mesh(arrays), out / "adaptivity-mesh.png")
    print(table(rows))
    print("smallest unknowns ratio at equal error:", gain(rows))


def gain(rows: list[dict[str, Any]]) -> float:
    """Unknowns that uniform refinement needs for the last adaptive error, over adaptive ones."""
    last = [r for r in rows if r["refinement"] == "adaptive"][-1]
    uniform = [r for r in rows if r["refinement"] == "uniform"]
    log = np.log([[r["error"], r["unknowns"]] for r in uniform])
    order = np.argsort(log[:, 0])
    needed = np.exp(np.interp(np.log(last["error"]), log[order, 0], log[order, 1]))
    return float(needed / last["unknowns"])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("benchmarks/results"))
