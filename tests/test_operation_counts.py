"""What gradients, Hessian products and a Newton solve cost, in operations rather than in seconds.

Counts of explicit schemes do not depend on the machine, so they are compared exactly with those
stored beside this file; those of a solve may, in the last digit, and must not become larger. What a
solve goes through is compared exactly too: a part that is left out by mistake costs nothing.
Whoever makes something dearer sees it here, and whoever makes it cheaper stores the new counts by

    python3 tests/test_operation_counts.py

Products are counted in the sweeps in NumPy: those in C do the same ones (tests/native).
"""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import (
    l2_problem,
    make_network,
    random_problem,
    sweeps_in_numpy,
    uniform,
    width_space,
)
from mpi4py import MPI

from fem_dnn.curvature_metric import FEW_CONTROLS
from fem_dnn.gram import GramProblem
from fem_dnn.problem import LearningProblem
from fem_dnn.solvers import Tolerances, solve_newton

STORED = Path(__file__).with_name("operation_counts.json")
NODES, SAMPLES, LAYERS = 6, 4, 5

CRITICAL: dict[str, Callable[[], LearningProblem]] = {
    "resnet": lambda: small(),
    "resnet, masked": lambda: small(mask=True),
    "resnet, bias alone": lambda: small(kernel=False),
    "resnet, given kernel": lambda: small(kernel=False, given=True),
    "resnet, tracked": lambda: small(tracking=True),
    "resnet, learned outputs": lambda: small(loss="softmax", learn_outputs=True),
    "resnet, Gram form": lambda: GramProblem.of(small()),
}
"""Solved for any critical point, by Newton's method alone."""

MINIMISED: dict[str, Callable[[], LearningProblem]] = {
    "resnet, minimised": lambda: larger(),
    "resnet, smooth in depth, minimised": lambda: larger(
        regularization=(0.01, 0.01, 0.01, 0.0, 0.01, 0.01)
    ),
    "resnet, minimised from a saddle": lambda: reflection(),
}
"""Solved as `fem-dnn solve` does: curvature's metrics, quasi-Newton steps, a look at the end."""

KINDS = CRITICAL | MINIMISED


def small(**options: Any) -> LearningProblem:
    return random_problem(
        MPI.COMM_SELF,
        **{
            "scheme": "resnet",
            "cells": NODES,
            "samples": SAMPLES,
            "points": uniform(1.0, LAYERS),
            "regularization": (1.0, 1.0, 1.0),
            **options,
        },
    )


def larger(**options: Any) -> LearningProblem:
    """With so many controls that curvature's metrics are worth their making."""
    problem = random_problem(
        MPI.COMM_SELF,
        **{
            "scheme": "resnet",
            "loss": "logistic",
            "cells": 8,
            "samples": 9,
            "points": uniform(2.0, 8),
            "regularization": (0.01, 0.01, 0.01),
            **options,
        },
    )
    assert problem.controls.n_global >= FEW_CONTROLS
    return problem


def reflection() -> LearningProblem:
    """Exact case 5 on as many controls: from zero Newton's method comes to a saddle first."""
    network = make_network(
        width_space(MPI.COMM_SELF, 8), "resnet", "linear", points=uniform(1.0, 8)
    )
    f = np.full(8, 1.7)
    problem = l2_problem(network, f, -f, kernel=0.1, bias=0.1, weight=2.0)
    assert problem.controls.n_global >= FEW_CONTROLS
    return problem


@contextmanager
def counted_products() -> Iterator[dict[str, int]]:
    """Calls of `numpy.matmul`, and the multiplications and additions they stand for."""
    count = {"matmul_calls": 0, "matmul_operations": 0}
    original = np.matmul

    def matmul(a: Any, b: Any, *args: Any, **how: Any) -> Any:
        result = original(a, b, *args, **how)
        count["matmul_calls"] += 1
        count["matmul_operations"] += 2 * int(np.size(result)) * np.shape(a)[-1]
        return result

    np.matmul = matmul  # type: ignore[assignment]
    try:
        yield count
    finally:
        np.matmul = original


@sweeps_in_numpy()
def counts(kind: str) -> dict[str, Any]:
    problem = KINDS[kind]()
    start = np.zeros(problem.controls.n_local)
    control = start + 0.3 * problem.controls.random_direction(1)
    at = problem.linearise(control)
    with counted_products() as of_gradient:
        _ = at.objective, at.gradient
    direction = problem.controls.random_direction(2)
    at.hessian_action(direction)  # what is known at a point is computed at the first product
    with counted_products() as of_product:
        at.hessian_action(direction)
    at_work = replace(problem.work)
    saddles: list[int] = []
    solution = solve_newton(
        problem,
        start,
        Tolerances(1e-6),
        escape=kind in MINIMISED,
        keep=lambda waypoint: saddles.append(waypoint().escapes),
    )
    assert solution.converged
    return {
        "gradient": of_gradient,
        "hessian_product": of_product,
        "work": {
            "states": at_work.states,
            "adjoints": at_work.adjoints,
            "hessians": at_work.hessians,
        },
        "way": {
            "quasi_newton": solution.history[1].hessian_solves == 0,
            "examined": solution.lowest_eigenvalue is not None,
            "saddles_left": saddles[-1],
        },
        "newton": {
            "iterations": solution.iterations,
            "hessian_products": solution.hessian_solves,
            "state_solves": solution.state_solves,
            "adjoint_solves": solution.adjoint_solves,
        },
    }


def stored() -> dict[str, Any]:
    return dict(json.loads(STORED.read_text()))


@pytest.mark.parametrize("kind", KINDS)
def test_work_is_what_it_was(kind: str) -> None:
    found, known = counts(kind), stored()[kind]
    solve, known_solve = found.pop("newton"), known.pop("newton")
    assert found == known
    for name, count in known_solve.items():
        assert solve[name] <= 1.1 * count + 1, name


def test_products_with_the_kernel_are_those_of_the_equations() -> None:
    """A gradient applies K, K' and q (x) f once per layer, a product each of them twice."""
    once = 2 * NODES**2 * SAMPLES * LAYERS
    known = stored()["resnet"]
    assert known["gradient"]["matmul_operations"] == 3 * once
    assert known["hessian_product"]["matmul_operations"] == 6 * once


@sweeps_in_numpy()
def memory() -> dict[str, float]:
    """Those of the sweeps in NumPy."""
    return peaks()


def peaks() -> dict[str, float]:
    """Peaks in trajectories of nodes x samples x layers numbers, to a tenth."""
    problem = random_problem(
        MPI.COMM_SELF, scheme="resnet", cells=128, samples=128, points=uniform(1.0, 32)
    )
    control = 0.1 * problem.controls.random_direction(1)
    direction = problem.controls.random_direction(2)
    problem.linearise(control).hessian_action(direction)  # whatever is cached for good

    def peak(work: Callable[[], object]) -> float:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        work()
        return round((tracemalloc.get_traced_memory()[1] - before) / (8 * 32 * 128**2), 1)

    tracemalloc.start()
    try:
        at = problem.linearise(control)
        found = {"gradient": peak(lambda: at.gradient)}
        found["first hessian_product"] = peak(lambda: at.hessian_action(direction))
        found["hessian_product"] = peak(lambda: at.hessian_action(direction))
    finally:
        tracemalloc.stop()
    return found


def test_memory_is_what_it_was() -> None:
    """Beyond states, adjoints, slopes and the gradient itself there is little."""
    known = stored()["memory"]
    assert memory() == known
    assert all(peak <= known[name] for name, peak in peaks().items())  # in C, where that is had


if __name__ == "__main__":
    everything = {**{kind: counts(kind) for kind in KINDS}, "memory": memory()}
    STORED.write_text(json.dumps(everything, indent=2) + "\n")
