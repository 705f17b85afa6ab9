"""The families of controls contain the cheapest row for every pre-activation."""

import numpy as np
import pytest
from scipy.optimize import minimize

from fem_dnn.dynamic_programming import DirectControls, MultiplierControls
from fem_dnn.dynamic_programming.controls import Trained

rng = np.random.default_rng(1)
H = np.array([0.3, 0.5, 0.2])
PRICES = {"kernel": 0.4, "bias": 0.7}
MASK = np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])


def density(trained, a, b):
    """The cost per node, shape (N, M)."""
    cost = np.zeros((len(trained.node_weights), (b if a is None else a).shape[-1]))
    if a is not None:
        cost += 0.5 * trained.kernel * np.einsum("y,xym->xm", trained.node_weights, a * a)
    if b is not None:
        cost += 0.5 * trained.bias * b * b
    return cost


def preactivation(trained, a, b, f):
    u = np.zeros(f.shape)
    if a is not None:
        u = u + np.einsum("xym,y,sym->sxm", a, trained.node_weights, f)
    return u if b is None else u + b


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_one_sample_unbounded(kernel, bias, mask):
    """u = k z at the cost z^2 / 2 = u^2 / (2 K), the least there is (theory.md section 7)."""
    if not kernel and not bias:
        return
    trained = Trained(
        H, PRICES["kernel"] if kernel else None, PRICES["bias"] if bias else None, mask
    )
    controls = MultiplierControls(trained)
    z, f = rng.standard_normal((3, 6)), rng.standard_normal((1, 3, 6))
    a, b = controls.rows(z, f)
    m = np.ones((3, 3)) if mask is None else mask
    K = kernel * np.einsum("xy,y,ym->xm", m, H, f[0] ** 2) / PRICES["kernel"]
    K = K + bias / PRICES["bias"]
    assert controls.reach(f) == pytest.approx(np.sqrt(K))
    assert preactivation(trained, a, b, f)[0] == pytest.approx(np.sqrt(K) * z)
    assert density(trained, a, b) == pytest.approx(np.where(K > 0, 0.5 * z**2, 0.0))
    if a is not None and mask is not None:
        assert not np.any(a[mask == 0])


def test_one_sample_within_bounds():
    """No admissible row of the same u is cheaper (a quadratic programme by SciPy)."""
    bounds = {"kernel_bounds": (-0.6, 0.9), "bias_bounds": (-0.2, 0.4)}
    trained = Trained(H, **PRICES, **bounds)
    controls = MultiplierControls(trained)
    f = rng.standard_normal((1, 3, 8))
    a, b = controls.rows(1.5 * rng.standard_normal((3, 8)), f)
    assert np.all((a >= -0.6) & (a <= 0.9) & (b >= -0.2) & (b <= 0.4))
    assert np.any(np.isin(a, [-0.6, 0.9])) and np.any(np.isin(b, [-0.2, 0.4]))
    u, cost = preactivation(trained, a, b, f)[0], density(trained, a, b)
    for m in range(3):
        row = np.append(H * f[0, :, m], 1.0)
        price = np.append(PRICES["kernel"] * H, PRICES["bias"])
        best = minimize(
            lambda c, price=price: 0.5 * price @ (c * c),
            np.append(a[0, :, m], b[0, m]),
            jac=lambda c, price=price: price * c,
            bounds=[(-0.6, 0.9)] * 3 + [(-0.2, 0.4)],
            constraints={"type": "eq", "fun": lambda c, row=row, m=m: row @ c - u[0, m]},
            method="SLSQP",
            options={"ftol": 1e-14},
        )
        assert cost[0, m] == pytest.approx(best.fun, rel=1e-6, abs=1e-9)


def test_one_node():
    """Several samples: kernel and bias themselves, in units in which the cost is |z|^2 / 2."""
    h = np.array([0.8])
    trained = Trained(h, **PRICES)
    controls = DirectControls(trained)
    z, f = rng.standard_normal((2, 5)), rng.standard_normal((3, 1, 5))
    a, b = controls.rows(z, f)
    assert density(trained, a, b)[0] == pytest.approx(0.5 * np.sum(z * z, axis=0))
    moved = [
        np.max(np.abs(preactivation(trained, *controls.rows(unit[:, None] * np.ones(5), f), f)), 0)
        for unit in np.eye(2)
    ]
    assert controls.reach(f) == pytest.approx(np.concatenate(moved))
    bounded = DirectControls(Trained(h, **PRICES, bias_bounds=(0.0, 0.1)))
    assert np.all((bounded.rows(z, f)[1] >= 0) & (bounded.rows(z, f)[1] <= 0.1))
    assert DirectControls(Trained(h, **PRICES, mask=np.zeros((1, 1)))).count == 1
