"""How near a sweep comes to the machine's limit. Writes docs/sweep.md and docs/sweep.json.

    environment/enter python3 -m benchmarks.sweep [--size NODES SAMPLES LAYERS] ...
                                                  [--threads T ...] [--rounds R] [--page]

State, adjoint and gradient (resnet, tanh, l2 loss, double precision) against matrix products of the
same number of operations, 6 nodes^2 samples layers, and beside a plain loop over layers in NumPy
that gives the same objective and gradient; and square products, the rate that other pages compare
with. All are measured in turn, round after round; rates are compared within a round.
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

from benchmarks import sweep_page
from benchmarks.peers.timing import ORDER
from benchmarks.revision import revision
from benchmarks.width import PENALTY, problem
from fem_dnn import __version__
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
    square = rng.standard_normal((ORDER, ORDER))
    squared = np.empty_like(square)
    point = of.linearise(control)

    def products() -> None:
        for _ in range(3 * layers):
            np.matmul(A, B, out=C)

    # Whether with as many threads as help, as solvers are run, or with all of them.
    tasks: dict[str, tuple[Callable[[], object], bool]] = {
        "machine": (products, False),
        "square": (lambda: np.matmul(square, square, out=squared), False),
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
        "square_gigaflops": 2e-9 * ORDER**3 / median["square"],
        "gradient": median["gradient"],
        "plain": median["plain"],
        "product": median["product"],
        "gradient_share": against("machine", "gradient"),
        "plain_share": against("machine", "plain"),
        "product_share": 2 * against("machine", "product"),
        "product_to_gradient": against("product", "gradient"),
        "difference": difference,
        "load": os.getloadavg()[0],
        "version": __version__,
        "revision": revision(),
    }
    with suitable_threads(of):
        return row | memory(of, control, direction)


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=3, action="append", metavar="N")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--page", action="store_true", help="only write the page anew")
    parser.add_argument("--out", type=Path, default=DOCS)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    file = chosen.out / "sweep.json"
    if not chosen.page:
        rows = []
        for size in chosen.size or SIZES:
            for threads in chosen.threads:
                rows.append(measure(*size, threads, chosen.rounds))
                print(json.dumps(rows[-1]), flush=True)
        settings = {"penalty": PENALTY, "scale": SCALE, "rounds": chosen.rounds}
        settings |= {"cores": len(os.sched_getaffinity(0))}
        file.write_text(json.dumps(settings | {"rows": rows}, indent=2) + "\n")
    (chosen.out / "sweep.md").write_text(sweep_page.page(json.loads(file.read_text())))


if __name__ == "__main__":
    main()
