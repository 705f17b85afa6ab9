"""Activations: derivatives, constants, extreme arguments."""

import numpy as np
import pytest

from fem_dnn.activations import ACTIVATIONS, Activation

U = np.linspace(-8, 8, 4001)
GRID = U[np.abs(U) > 1e-3]  # off ReLU's kink


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values(name: str) -> None:
    from scipy.special import erf

    expected = {
        "tanh": np.tanh(U),
        "sigmoid": 1 / (1 + np.exp(-U)),
        "relu": np.where(U > 0, U, 0),
        "softplus": np.log(1 + np.exp(U)),
        "gelu": U * (1 + erf(U / np.sqrt(2))) / 2,
        "linear": U,
    }[name]
    assert np.allclose(ACTIVATIONS[name](U), expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives_are_those_of_the_value(name: str) -> None:
    """Central differences, whose error is of order h^2 = 1e-8."""
    h = 1e-4
    evaluate = ACTIVATIONS[name].evaluate
    up, down = evaluate(GRID + h, 1), evaluate(GRID - h, 1)
    _, first, second = evaluate(GRID, 2)
    assert np.allclose(first, (up[0] - down[0]) / (2 * h), rtol=0, atol=1e-7)
    assert np.allclose(second, (up[1] - down[1]) / (2 * h), rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("order", [0, 1, 2])
def test_order_and_shape(name: str, order: int) -> None:
    u = np.linspace(-1, 1, 24).reshape(2, 3, 4)
    results = ACTIVATIONS[name].evaluate(u, order)
    assert [r.shape for r in results] == [u.shape] * (order + 1)
    for lower, higher in zip(results, ACTIVATIONS[name].evaluate(u, 2), strict=False):
        assert np.array_equal(lower, higher)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_ranges(name: str) -> None:
    low, high = ACTIVATIONS[name].range
    values = ACTIVATIONS[name](np.linspace(-40, 40, 400_001))
    assert values.min() == pytest.approx(low, abs=1e-8) or (low == -np.inf and values.min() == -40)
    assert values.max() == pytest.approx(high, abs=1e-12) or (high == np.inf and values.max() == 40)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_inverses(name: str) -> None:
    """Up to the round-off that the slope of sigma^{-1} leaves."""
    activation = ACTIVATIONS[name]
    assert activation.inverse is not None
    low, high = activation.range
    v = np.linspace(max(low, -3.0), min(high, 3.0), 64)[1:-1]
    assert np.max(np.abs(activation(activation.inverse(v)) - v)) < 1e-14


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_constants_are_attained_and_not_exceeded(name: str) -> None:
    """The bounds of theory.md rest on these suprema."""
    activation = ACTIVATIONS[name]
    value, first, second = activation.evaluate(np.linspace(-30, 30, 600_001), 2)
    for computed, bound in [
        (value, activation.supremum),
        (first, activation.lipschitz),
        (second, activation.curvature),
    ]:
        largest = np.max(np.abs(computed))
        assert largest <= bound * (1 + 1e-12)
        if np.isfinite(bound):
            assert largest >= bound * (1 - 1e-6)
    if activation.increasing:
        assert np.all(first >= 0) and np.all(activation.evaluate(GRID, 1)[1] > 0)
    else:
        assert np.any(first <= 0)
    assert activation.smooth == (name != "relu")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_extreme_arguments_overflow_nowhere(name: str) -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        results = ACTIVATIONS[name].evaluate(np.array([-1e4, -800.0, 0.0, 800.0, 1e4]), 2)
    assert all(np.all(np.isfinite(r)) for r in results)


def test_a_users_own() -> None:
    softsign = Activation.from_functions(
        "softsign",
        lambda u: u / (1 + np.abs(u)),
        lambda u: 1 / (1 + np.abs(u)) ** 2,
        lambda u: -2 * np.sign(u) / (1 + np.abs(u)) ** 3,
        supremum=1.0,
        increasing=True,
    )
    assert softsign.supremum == 1.0 and softsign.increasing
    assert [len(softsign.evaluate(U, k)) for k in range(3)] == [1, 2, 3]
    assert softsign(np.array(1.0)) == 0.5
