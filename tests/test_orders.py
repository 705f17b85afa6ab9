"""Orders of convergence: what benchmarks/orders.py reports, asserted on the same meshes.

Between the exact cases' own tests (test_exact_*.py) and these: there one quantity on the interval,
here state, adjoint, gradient and optimum on interval, square and disc.
"""

import pytest

from benchmarks.measure import DOMAINS
from benchmarks.orders import CELLS, Row, depth_rows, width_rows
from fem_dnn.depth import SCHEMES


def assert_orders(rows: list[Row], tolerance: float = 0.15) -> None:
    """Fitted slopes are the expected ones; a functional's may be higher.

    A functional's error is one signed number: its leading term may be small by accident, and the
    next one is then seen on the coarser meshes.
    """
    assert rows
    for row in rows:
        assert row.fitted > row.expected - tolerance, row
        if "objective" not in row.quantity and "derivative" not in row.quantity:
            assert row.fitted < row.expected + 2 * tolerance, row


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("domain", DOMAINS)
def test_depth_with_given_controls(domain: str, scheme: str) -> None:
    assert_orders(depth_rows(domain, scheme, "rank one"))
    assert_orders(depth_rows(domain, scheme, "constant operator"))


@pytest.mark.mpi
@pytest.mark.parametrize("scheme", SCHEMES)
def test_depth_with_tracking_and_samples(scheme: str) -> None:
    assert_orders(depth_rows("interval", scheme, "manufactured"))


@pytest.mark.parametrize(("scheme", "layers"), [("dg1", [6, 12]), ("dg2", [6, 10])])
def test_depth_of_a_learned_optimum(scheme: str, layers: list[int]) -> None:
    assert_orders(depth_rows("interval", scheme, "optimum", layers))


@pytest.mark.parametrize(("domain", "degree"), CELLS)
def test_width_with_given_controls(domain: str, degree: int) -> None:
    assert_orders(width_rows(domain, degree, "manufactured"))


@pytest.mark.mpi
@pytest.mark.parametrize(("domain", "degree"), CELLS)
def test_width_of_a_learned_bias(domain: str, degree: int) -> None:
    assert_orders(width_rows(domain, degree, "bias only"))


@pytest.mark.parametrize(
    ("domain", "degree", "cells"),
    [("interval", 1, [6, 12]), ("square", 1, [3, 6]), ("disc", 0, [4, 6])],
)
def test_width_of_a_learned_optimum(domain: str, degree: int, cells: list[int]) -> None:
    assert_orders(width_rows(domain, degree, "optimum", cells))


def test_a_lost_order_is_seen() -> None:
    """dg1's rows claimed as dg2's: every expectation is missed from above, and is noticed."""
    rows = depth_rows("interval", "dg1", "constant operator", [8, 16])
    for row in rows:
        claimed = Row(**{**vars(row), "expected": row.expected + 1})
        with pytest.raises(AssertionError):
            assert_orders([claimed])
