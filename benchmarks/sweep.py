"""How near a sweep comes to the machine's limit. Writes docs/sweep.md and docs/sweep.json.

    python3 -m benchmarks.sweep [--size NODES SAMPLES LAYERS] ... [--threads T ...] [--rounds R]

State, adjoint and gradient (resnet, tanh, l2 loss, double precision) against matrix products of the
same number of operations, 6 nodes^2 samples layers, and beside a plain loop over layers in NumPy
that gives the same objective and gradient. All are measured in turn, round after round; rates are
compared within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import tracemalloc
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.width import PENALTY, problem
from fem_dnn.problem import LearningProblem
from fem_dnn.threads import suitable_threads

Array = NDArray[np.float64]

SIZES = [(64, 32, 32), (64, 64, 32), (128, 256, 32), (512, 512, 32), (1024, 512, 32)]
"""Nodes, samples, layers: the first is that of the problems in benchmarks/problems."""

SCALE = 1.0
DOCS = Path(__file__).parent.parent / "docs"


class Plain:
    """The same learning problem as one writes it down in NumPy, with arrays of nodal values.

    Args:
        of: The problem.
        control: A control of it.
    """

    def __init__(self, of: LearningProblem, control: Array) -> None:
        space, levels = of.network.space, of.network.levels
        values = of.controls.values(control)
        assert values.kernel is not None and values.bias is not None
        self.a, self.b = np.ascontiguousarray(values.kernel), values.bias[:, :, None].copy()
        order = space.file_order
        self.f_I, self.g = of.inputs[order], of.loss.targets[order]  # type: ignore[attr-defined]
        self.h, self.tau = float(space.weights[0]), float(levels.steps[0])
        self.w = float(of.sample_weights[0])

    def gradient(self) -> tuple[float, Array, Array]:
        """J, and its L2 gradient by a and by b."""
        a, b, h, tau = self.a, self.b, self.h, self.tau
        states, activated = [self.f_I], []
        for layer in range(len(a)):
            s = np.tanh(h * (a[layer] @ states[-1]) + b[layer])
            activated.append(s)
            states.append(states[-1] + tau * s)
        misfit = states[-1] - self.g
        value = 0.5 * self.w * h * np.sum(misfit**2)
        value += 0.5 * PENALTY * tau * h * (h * np.sum(a * a) + np.sum(b * b))
        da, db, p = np.empty_like(a), np.empty_like(b), misfit
        for layer in reversed(range(len(a))):
            q = (1 - activated[layer] ** 2) * p
            da[layer] = PENALTY * a[layer] + self.w * (q @ states[layer].T)
            db[layer] = PENALTY * b[layer] + self.w * q.sum(axis=1, keepdims=True)
            p = p + tau * h * (a[layer].T @ q)
        return float(value), da, db[:, :, 0]


def check(of: LearningProblem, control: Array, plain: Plain) -> float:
    """Largest relative difference of objective and gradient between the two."""
    at, (value, da, db) = of.linearise(control), plain.gradient()
    ours = of.controls.values(at.gradient)
    differences = [abs(at.objective - value) / abs(value)]
    for mine, theirs in ((ours.kernel, da), (ours.bias, db)):
        assert mine is not None
        differences.append(float(np.max(np.abs(mine - theirs)) / np.max(np.abs(theirs))))
    return max(differences)


def memory(of: LearningProblem, control: Array, direction: Array) -> dict[str, float]:
    """Peaks against what the mathematics stores at least, in bytes, the control itself included.

    A gradient: f at the slab ends, sigma'(u) at the levels, the control, the gradient. A Hessian
    product: also p and sigma''(u) p, the direction, the product, df at the slab ends and du.
    """
    levels, numbers = of.network.levels, of.inputs.size
    states, stages, controls = (
        8 * n for n in ((levels.layers + 1) * numbers, levels.count * numbers, control.size)
    )
    needed = {
        "gradient": states + stages + 2 * controls,
        "product": 3 * states + 3 * stages + 4 * controls,
    }
    tracemalloc.start()
    at = of.linearise(control)
    _ = at.gradient
    peaks = {"gradient": tracemalloc.get_traced_memory()[1] + controls}
    at.hessian_action(direction)
    tracemalloc.reset_peak()
    at.hessian_action(direction)
    peaks["product"] = tracemalloc.get_traced_memory()[1] + 2 * controls
    tracemalloc.stop()
    return {
        **{f"{name}_needs": float(value) for name, value in needed.items()},
        **{f"{name}_peak": float(value) for name, value in peaks.items()},
    }


def measure(nodes: int, samples: int, layers: int, threads: int, rounds: int) -> dict[str, Any]:
    """One size on so many threads."""
    of = problem(nodes, samples, layers)
    control = of.controls.random(seed=0, scale=SCALE)
    direction = of.controls.random_direction(seed=1)
    plain = Plain(of, control)
    rng = np.random.default_rng(2)
    A, B = rng.standard_normal((nodes, nodes)), rng.standard_normal((nodes, samples))
    C = np.empty((nodes, samples))
    point = of.linearise(control)

    def products() -> None:
        for _ in range(3 * layers):
            np.matmul(A, B, out=C)

    # Whether with as many threads as help, as solvers are run, or with all of them.
    tasks: dict[str, tuple[Callable[[], object], bool]] = {
        "machine": (products, False),
        "gradient": (lambda: of.linearise(control).gradient, True),
        "plain": (plain.gradient, False),
        "product": (lambda: point.hessian_action(direction), True),
    }
    # On one thread its processor time is what counts, whoever else the machine works for.
    clock = time.thread_time if threads == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in tasks}
    with threadpool_limits(limits=threads, user_api="blas"):
        difference = check(of, control, plain)
        assert difference < 1e-12, difference
        for _ in range(rounds):
            for name, (task, chosen) in tasks.items():
                with suitable_threads(of) if chosen else nullcontext():
                    # Idle threads of what was before go on looking for work and hold a core. When
                    # a first call ends they sleep.
                    task()
                    started = clock()
                    task()
                    times[name].append(clock() - started)
    median = {name: statistics.median(values) for name, values in times.items()}

    def against(above: str, below: str) -> float:
        pairs = zip(times[above], times[below], strict=True)
        return statistics.median(a / b for a, b in pairs)

    operations = 6.0 * nodes**2 * samples * layers
    row = {
        "nodes": nodes,
        "samples": samples,
        "layers": layers,
        "threads": threads,
        "gigaflops": operations / median["machine"] / 1e9,
        "gradient": median["gradient"],
        "plain": median["plain"],
        "product": median["product"],
        "gradient_share": against("machine", "gradient"),
        "plain_share": against("machine", "plain"),
        "product_share": 2 * against("machine", "product"),
        "product_to_gradient": against("product", "gradient"),
        "difference": difference,
        "load": os.getloadavg()[0],
    }
    with suitable_threads(of):
        return row | memory(of, control, direction)


def page(rows: list[dict[str, Any]], rounds: int) -> str:
    """The table as Markdown."""
    head = (
        "nodes",
        "samples",
        "threads",
        "machine",
        "gradient",
        "of the machine",
        "plain NumPy",
        "of the machine",
        "Hessian product",
        "per gradient",
        "memory: gradient",
        "Hessian product",
    )
    loads = [row["load"] for row in rows]
    lines = [
        "# Sweeps against the machine's limit",
        "",
        f"{rows[0]['layers']} layers, resnet, tanh, l2 loss, kernel and bias, double precision, "
        f"one rank. Medians of {rounds} rounds, in each of which everything is measured in turn, "
        "the second of two calls, so that no thread still waits for work of what was before: the "
        "machine's rate is that of as many matrix products nodes x nodes x samples as a "
        'gradient (state, adjoint and gradient) consists of; "of the machine" counts the '
        "6 nodes^2 samples layers operations of these alone, so time for tanh and for everything "
        "else counts against it. Plain NumPy is a loop over layers that gives the same objective "
        "and gradient (checked to 1e-12; the largest difference here is "
        f"{max(row['difference'] for row in rows):.0e}). On one thread times are processor times. "
        "Memory is the peak against what has to be stored: for a gradient the states, sigma'(u), "
        "control and gradient; for a Hessian product also adjoint, sigma''(u) p, direction, "
        "product, tangent and its pre-activation. Made by `python3 -m benchmarks.sweep` on "
        f"{os.cpu_count()} cores, shared with other work: the load average was "
        f"{min(loads):.1f} to {max(loads):.1f}.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---:|" * len(head),
    ]
    for row in rows:
        ratios = (
            f"{row[f'{name}_peak'] / 1e6:.0f} MB, {row[f'{name}_peak'] / row[f'{name}_needs']:.2f}"
            for name in ("gradient", "product")
        )
        cells = (
            str(row["nodes"]),
            str(row["samples"]),
            str(row["threads"]),
            f"{row['gigaflops']:.1f} GFLOP/s",
            f"{1e3 * row['gradient']:.3g} ms",
            f"{100 * row['gradient_share']:.0f} %",
            f"{1e3 * row['plain']:.3g} ms",
            f"{100 * row['plain_share']:.0f} %",
            f"{1e3 * row['product']:.3g} ms",
            f"{row['product_to_gradient']:.2f}",
            *ratios,
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=3, action="append", metavar="N")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=DOCS)
    chosen = parser.parse_args()
    rows = []
    for size in chosen.size or SIZES:
        for threads in chosen.threads:
            rows.append(measure(*size, threads, chosen.rounds))
            print(json.dumps(rows[-1]), flush=True)
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "sweep.md").write_text(page(rows, chosen.rounds))
    settings = {"penalty": PENALTY, "scale": SCALE, "rounds": chosen.rounds}
    (chosen.out / "sweep.json").write_text(json.dumps(settings | {"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
