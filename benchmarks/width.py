"""Cost against width: the Gram form is linear in it. Writes docs/width.md, .json and .png.

    python3 -m benchmarks.width [--nodes N ...] [--solve N] [--layers L] [--samples S]

One learning problem (resnet, tanh, l2 loss, lambda = 0.1) on ever finer widths: the time of a
Hessian product in both forms, as far as the dense one goes, the time of a Newton solve from zero to
a relative gradient of 1e-6, and the process's peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.activations import ACTIVATIONS
from fem_dnn.controls import ControlSpace
from fem_dnn.depth import SCHEMES, DepthLevels
from fem_dnn.gram import GramProblem
from fem_dnn.losses import L2Loss
from fem_dnn.mesh import interval
from fem_dnn.problem import LearningProblem
from fem_dnn.regularization import Regularization
from fem_dnn.solvers import Tolerances, solve_newton
from fem_dnn.state import Network
from fem_dnn.threads import suitable_threads
from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]

DENSE_NUMBERS = 4e7
"""Kernel entries on all levels up to which the dense form is timed too."""

PENALTY = 0.1
RTOL = 1e-6
REPEATS = 3
DOCS = Path(__file__).parent.parent / "docs"


def problem(nodes: int, samples: int, layers: int) -> LearningProblem:
    """Sines to be carried to cosines; neighbouring inputs are nearly dependent."""
    space = WidthSpace(interval(MPI.COMM_SELF, nodes), 0)
    levels = DepthLevels(SCHEMES["resnet"], np.linspace(0, 1, layers + 1))
    x, s = space.local_nodes, np.arange(samples)
    inputs = np.sin(np.pi * (1 + s / 2) * x + 0.3 * s)
    targets = np.where(np.sin(s) < 0, -1, 1) * np.cos(np.pi * (1 + s % 3) * x)
    controls = ControlSpace(space, levels)
    return LearningProblem(
        Network(space, levels, ACTIVATIONS["tanh"]),
        controls,
        inputs,
        np.full(samples, 1 / samples),
        L2Loss(space, targets),
        Regularization(controls, PENALTY, PENALTY),
    )


def seconds_per_product(of: LearningProblem) -> float:
    """Median time of a Hessian product at zero controls."""
    at = of.linearise(np.zeros(of.controls.n_local))
    direction = at.gradient / of.controls.norm(at.gradient)
    with suitable_threads(of):
        at.hessian_action(direction)
        times = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            at.hessian_action(direction)
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def measure(nodes: int, samples: int, layers: int, *, solve: bool) -> dict[str, Any]:
    """One width."""
    dense = problem(nodes, samples, layers)
    row: dict[str, Any] = {"nodes": nodes}
    if layers * nodes**2 <= DENSE_NUMBERS:
        row["dense_product"] = seconds_per_product(dense)
    gram = GramProblem.of(dense)
    row["gram_product"] = seconds_per_product(gram)
    if solve:
        with suitable_threads(gram):
            start = np.zeros(gram.controls.n_local)
            solution = solve_newton(gram, start, Tolerances(RTOL), escape=False)
        row |= {
            "converged": solution.converged,
            "seconds": solution.seconds,
            "iterations": solution.iterations,
            "hessian_products": solution.hessian_solves,
            "objective": solution.objective,
            "relative_gradient": solution.gradient_norm / solution.initial_gradient_norm,
        }
    row["peak_gigabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return row


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Times against width, with the slopes 1 and 2 to compare with."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, label, colour in (
        ("dense_product", "dense: Hessian product", "tab:orange"),
        ("gram_product", "Gram: Hessian product", "tab:blue"),
        ("seconds", f"Gram: Newton solve to {RTOL:g}", "tab:green"),
    ):
        known = [(row["nodes"], row[name]) for row in rows if name in row]
        if not known:
            continue
        nodes, seconds = np.array(known).T
        axes.loglog(nodes, seconds, "o-", color=colour, label=label)
        slope = 2 if name == "dense_product" else 1
        axes.loglog(nodes, seconds[-1] * (nodes / nodes[-1]) ** slope, "k:", lw=0.8)
    axes.plot([], [], "k:", lw=0.8, label="slopes 1 and 2")
    axes.set(xlabel="width nodes", ylabel="seconds", title="Cost against width")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def page(rows: list[dict[str, Any]], samples: int, layers: int) -> str:
    """The table as Markdown."""
    head = (
        "nodes",
        "dense product",
        "Gram product",
        "ratio",
        "solve",
        "Newton",
        "products",
        "peak",
    )
    lines = [
        "# Cost against width",
        "",
        f"{samples} samples, {layers} layers, resnet, tanh, l2 loss, Tikhonov weights {PENALTY}. "
        "A product is one of the Hessian with a vector (median of "
        f"{REPEATS}); the ratio is to the row above, per doubling of the width; solves start at "
        f"zero and end at a relative gradient of {RTOL:g}; the peak memory is the process's so "
        "far. Made by `python3 -m benchmarks.width`; the machine is shared, times vary.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---:|" * len(head),
    ]
    before: dict[str, Any] | None = None
    for row in rows:
        ratio = ""
        if before is not None:
            doublings = np.log2(row["nodes"] / before["nodes"])
            growth = (row["gram_product"] / before["gram_product"]) ** (1 / doublings)
            ratio = f"{growth:.2f}"
        dense = f"{row['dense_product']:.3g} s" if "dense_product" in row else ""
        solved = f"{row['seconds']:.3g} s" if "seconds" in row else ""
        cells = (
            f"{row['nodes']:,}".replace(",", " "),
            dense,
            f"{row['gram_product']:.3g} s",
            ratio,
            solved,
            str(row.get("iterations", "")),
            str(row.get("hessian_products", "")),
            f"{row['peak_gigabytes']:.2f} GB",
        )
        lines.append("| " + " | ".join(cells) + " |")
        before = row
    return "\n".join([*lines, "", "![Cost against width](width.png)", ""])


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[250 * 2**k for k in range(8)])
    parser.add_argument("--solve", type=int, nargs="*", default=[1000, 8000, 32000])
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--out", type=Path, default=DOCS)
    chosen = parser.parse_args()
    rows = []
    for nodes in sorted({*chosen.nodes, *chosen.solve}):
        solve = nodes in chosen.solve
        rows.append(measure(nodes, chosen.samples, chosen.layers, solve=solve))
        print(json.dumps(rows[-1]), flush=True)
    chosen.out.mkdir(parents=True, exist_ok=True)
    text = page(rows, chosen.samples, chosen.layers)
    (chosen.out / "width.md").write_text(text)
    settings = {"samples": chosen.samples, "layers": chosen.layers, "penalty": PENALTY}
    (chosen.out / "width.json").write_text(json.dumps(settings | {"rows": rows}, indent=2) + "\n")
    picture(rows, chosen.out / "width.png")


if __name__ == "__main__":
    main()
