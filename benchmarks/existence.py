"""Existence of minimisers, measured: minimising sequences, gamma -> 0, and the circles refined.

    environment/enter python3 benchmarks/existence.py [--circles]

writes docs/existence-measured.md and .json: the two examples of the demo `existence` on up to 128
layers and for gamma / lambda down to 1e-7 and, with --circles (some minutes), two circles
(benchmarks/problems/circles_1e-2.toml and _smooth) on 16, 32 and 64 layers and cells. Without it
the numbers of the circles stay as they are in the file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

import fem_dnn
from fem_dnn import demos
from fem_dnn.existence import (
    FrozenNeuron,
    FrozenProblem,
    assemble_exactly,
    minimising_sequence,
    refine,
    relax,
    smoothing_study,
)
from fem_dnn.files import write_whole

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
LAYERS = (16, 32, 64, 128)
RATIOS = tuple(float(x) for x in np.geomspace(3e-5, 1e-7, 6))
TRIALS, SEED = 600, 2

HEAD = """# Existence of minimisers: measured

Made by `benchmarks/existence.py` with fem-dnn {version}; do not edit. What the numbers mean:
[existence.md](existence.md).
"""


def neuron(name: str, *settings: str) -> FrozenNeuron:
    """The moving neuron of a demo's case."""
    case = fem_dnn.read_case(demos.folder() / f"{name}.toml", list(settings))
    problem = assemble_exactly(case, MPI.COMM_SELF).problem
    assert problem is not None
    (found,) = FrozenProblem.of(problem).neurons.values()
    return found


def sequence(name: str) -> dict[str, Any]:
    """A minimising sequence of one of the demo's cases."""
    moving = neuron(name)
    relaxed = relax(moving)
    found = minimising_sequence(moving, relaxed, LAYERS, trials=TRIALS, seed=SEED)
    print(name, found.explanation, flush=True)
    return {
        "lower": relaxed.lower,
        "upper": relaxed.upper,
        "layers": list(LAYERS),
        "gaps": [term.gap for term in found.terms],
        "derivatives": [term.derivative for term in found.terms],
        "decay": found.decay.exponent,
        "growth": found.growth.exponent,
    }


def smoothing(name: str, *settings: str, layers: int = 1024) -> dict[str, Any]:
    """Minimisers with gamma > 0."""
    moving = neuron(name, *settings)
    study = smoothing_study(moving, relax(moving), RATIOS, layers, turning=(1, 2, 4, 8, 16, 32, 64))
    print(name, *settings, study.explanation, flush=True)
    return {
        "ratios": list(RATIOS),
        "layers": layers,
        "gaps": [term.gap for term in study.terms],
        "derivatives": [term.derivative for term in study.terms],
        "decay": study.decay.exponent,
    }


def circles(name: str) -> dict[str, Any]:
    """Two circles on 16, 32 and 64 layers and cells."""
    settings = ["mesh.width.cells=16", "mesh.depth.cells=16", "solver.rtol=1e-6"]
    case = fem_dnn.read_case(HERE / "problems" / f"{name}.toml", settings)
    found = refine(case, (1, 2, 4), width=True)
    print(name, found.explanation, flush=True)
    return {
        "layers": [term.layers for term in found.terms],
        "objectives": [term.objective for term in found.terms],
        "derivatives": [term.derivative for term in found.terms],
        "converged": [term.converged for term in found.terms],
        "growth": found.growth.exponent,
    }


def _row(*cells: object) -> str:
    shown = [f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells]
    return "| " + " | ".join(shown) + " |\n"


def page(numbers: dict[str, Any]) -> str:
    """The page."""
    text = HEAD.format(version=fem_dnn.__version__)
    for name, title in (("existence", "tanh (theory.md 9.6)"), ("existence_relu", "ReLU")):
        found = numbers[name]
        text += f"\n## Minimising sequence, {title}\n\n"
        text += f"{found['lower']:.10f} <= inf J <= {found['upper']:.10f}; gap ~ N^"
        text += f"{found['decay']:.2f}, |d_t a|/|a| ~ N^{found['growth']:.2f}\n\n"
        text += _row("layers N", "best J_N - inf J", "\\|d_t a\\|/\\|a\\|") + _row(*["---"] * 3)
        for values in zip(found["layers"], found["gaps"], found["derivatives"], strict=True):
            text += _row(*values)
    for key, title, expected in (
        ("with tracking", "with tracking", "1/3"),
        ("without tracking", "without tracking", "1/2"),
    ):
        found = numbers[key]
        text += f"\n## gamma -> 0, tanh, {title}, {found['layers']} layers\n\n"
        text += f"J_gamma - inf J ~ gamma^{found['decay']:.3f} (theory: {expected})\n\n"
        text += _row("gamma / lambda", "J_gamma - inf J", "\\|d_t a\\|/\\|a\\|") + _row(
            *["---"] * 3
        )
        for values in zip(found["ratios"], found["gaps"], found["derivatives"], strict=True):
            text += _row(*values)
    for name, title in (
        ("circles_1e-2", "gamma = 0"),
        ("circles_1e-2_smooth", "gamma = 0.3 lambda"),
    ):
        if name not in numbers:
            continue
        found = numbers[name]
        text += f"\n## Two circles, lambda = 1e-2, {title}\n\n"
        text += f"|d_t a|/|a| ~ layers^{found['growth']:.2f}\n\n"
        text += _row("layers = cells", "J", "\\|d_t a\\|/\\|a\\|", "converged") + _row(*["---"] * 4)
        columns = (found[k] for k in ("layers", "objectives", "derivatives", "converged"))
        for values in zip(*columns, strict=True):
            text += _row(*values)
    return text


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--circles", action="store_true", help="also the circles: some minutes")
    given = parser.parse_args()
    records = DOCS / "existence-measured.json"
    numbers: dict[str, Any] = json.loads(records.read_text()) if records.exists() else {}
    for name in ("existence", "existence_relu"):
        numbers[name] = sequence(name)
    numbers["with tracking"] = smoothing("existence")
    numbers["without tracking"] = smoothing("existence", "loss.tracking=0.0")
    if given.circles:
        for name in ("circles_1e-2", "circles_1e-2_smooth"):
            numbers[name] = circles(name)
    for path, text in (
        (records, json.dumps(numbers, indent=1) + "\n"),
        (DOCS / "existence-measured.md", page(numbers)),
    ):
        write_whole(path, lambda file, text=text: file.write(text.encode()))


if __name__ == "__main__":
    main()
