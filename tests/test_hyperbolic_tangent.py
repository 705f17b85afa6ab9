"""tanh by table: exact to a few units in the last place, odd, bounded, and of any shape."""

import numpy as np
import pytest

from fem_dnn.hyperbolic_tangent import BLOCK, by_table, tanh


def table(u):
    out = np.empty_like(u)
    by_table(u, out)
    return out


def test_error_is_a_few_units_in_the_last_place() -> None:
    """Against extended precision, from tiny arguments to where tanh is 1."""
    rng = np.random.default_rng(0)
    u = np.concatenate([10 ** rng.uniform(-300, 1.4, 50_000), rng.uniform(0, 3, 150_000)])
    exact = np.tanh(u.astype(np.longdouble))
    if np.finfo(np.longdouble).eps > 1e-18:
        pytest.skip("no extended precision here")
    assert np.max(np.abs(table(u) - exact) / np.spacing(table(u))) < 3


def test_is_odd_and_never_beyond_one() -> None:
    u = np.random.default_rng(1).uniform(0, 21, 200_000)
    assert np.array_equal(table(-u), -table(u))
    assert table(u).max() == 1.0


def test_extremes() -> None:
    u = np.array([0.0, -0.0, np.inf, -np.inf, 1e300, -700.0, np.nan])
    assert np.array_equal(table(u), [0, 0, 1, -1, 1, -1, np.nan], equal_nan=True)


@pytest.mark.parametrize("shape", [(), (1,), (3, 0), (BLOCK + 1,), (2, BLOCK + 3), (700, 3, 40)])
def test_any_shape_and_in_place(shape: tuple[int, ...]) -> None:
    u = np.asarray(np.random.default_rng(2).standard_normal(shape))
    expected = np.tanh(u)
    tanh(u, u)
    assert np.allclose(u, expected, rtol=1e-15, atol=0)


def test_views_of_columns() -> None:
    whole = np.random.default_rng(3).standard_normal((300, 400))
    out = np.zeros_like(whole)
    by_table(whole[:, 100:350], out[:, 100:350])
    assert np.allclose(out[:, 100:350], np.tanh(whole[:, 100:350]), rtol=1e-15, atol=0)
    assert not out[:, :100].any() and not out[:, 350:].any()
