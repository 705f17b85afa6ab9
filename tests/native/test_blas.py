"""Multiples that the BLAS adds are those that NumPy adds, whatever the arrays are like."""

from collections.abc import Callable

import numpy as np
import pytest
from helpers import random_control, random_problem
from mpi4py import MPI

from fem_dnn.native import blas
from fem_dnn.native.blas import add_multiple

LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "single precision": lambda x: x.astype(np.float32),
    "strided": lambda x: np.repeat(x, 2)[::2],
    "backwards": lambda x: x[::-1].copy()[::-1],
    "whole numbers": lambda x: np.round(10 * x).astype(np.int64),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_of_any_layout(layout: str) -> None:
    rng = np.random.default_rng(0)
    values, out = LAYOUTS[layout](rng.standard_normal(13)), rng.standard_normal(13)
    expected = out + 0.3 * values.astype(np.float64)
    add_multiple(0.3, values, out)
    assert np.allclose(out, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    "out",
    [
        np.zeros(6, np.float32),
        np.zeros(12)[::2],
        np.zeros(5),
        np.zeros(7),
        np.zeros((2, 3)),
        np.zeros(6, ">f8"),
    ],
)
def test_what_cannot_be_added_to_is_refused(out: np.ndarray) -> None:
    with pytest.raises(ValueError, match="cannot be added to"):
        add_multiple(1.0, np.ones(6), out)
    assert not out.any()


@pytest.mark.parametrize("size", [0, 1, 4, 5, 8, 11])
def test_more_numbers_than_are_counted(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(blas, "AT_MOST", 4)
    counts, axpy = [], blas._axpy()

    def noted(count, *arguments: object) -> None:
        counts.append(count.value)
        axpy(count, *arguments)

    monkeypatch.setattr(blas, "_axpy", lambda: noted)
    values, out = np.arange(1.0, size + 1), np.ones(size)
    add_multiple(2.0, values, out)
    assert np.array_equal(out, 1 + 2 * values)
    assert sum(counts) == size and max(counts, default=0) <= 4


@pytest.mark.parametrize("layout", ["single precision", "strided"])
def test_gradient_and_hessian_at_controls_of_any_layout(layout: str) -> None:
    problem = random_problem(MPI.COMM_SELF, scheme="resnet", regularization=(0.5, 0.7, 0.9))
    control, direction = random_control(problem), problem.controls.random_direction(5)
    given, moved = LAYOUTS[layout](control), LAYOUTS[layout](direction)
    at, exact = (problem.linearise(c) for c in (given, given.astype(np.float64)))
    assert np.allclose(at.gradient, exact.gradient, rtol=1e-5, atol=1e-6)
    expected = exact.hessian_action(moved.astype(np.float64))
    assert np.allclose(at.hessian_action(moved), expected, rtol=1e-5, atol=1e-6)
