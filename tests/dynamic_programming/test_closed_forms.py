"""The value function against closed forms, at the inputs and over the states.

Bias only, one sample and node (Hopf-Lax; theory.md section 9, case 2): the set of velocities and
costs is convex for these activations, so a constant bias is optimal,

    V(f, t) = min_b [ (T - t) (lambda_b / 2) b^2 + (f + (T - t) sigma(b) - g)^2 / 2 ].

Linear, one sample and node of weight h, kernel and bias: H = -K(f) |DV|^2 / 2 with
K = h f^2 / lambda_a + 1 / lambda_b is the Hamiltonian of geodesics of the metric df^2 / K, so

    V(f, t) = h min_y [ (F(y) - F(f))^2 / (2 (T - t)) + (y - g)^2 / 2 ],   F' = K^{-1/2}.

Linear, two samples, one node, kernel only: f_s(T) = e^A f_s, so

    V(f, t) = min_A [ lambda_a A^2 / (2 (T - t)) + sum_s w_s (e^A f_s - g_s)^2 / 2 ].
"""

import numpy as np
import pytest
from helpers import fitted_order
from scipy.optimize import minimize_scalar

from fem_dnn.activations import ACTIVATIONS
from fem_dnn.dynamic_programming import (
    DirectControls,
    FiniteProblem,
    MultiplierControls,
    StateGrid,
    run_closed_loop,
    sweep_back,
)
from fem_dnn.dynamic_programming.controls import Trained

T = 1.5
CELLS = [16, 32, 64]


def finite_problem(activation, inputs, targets, *, kernel=None, bias=None, h=1.0, T=T):
    """One node of weight h, l2 loss, equal sample weights."""
    f, g, nodes = np.array(inputs)[:, None], np.array(targets)[:, None, None], np.array([h])
    S = len(inputs)
    controls = MultiplierControls if S == 1 else DirectControls
    return FiniteProblem(
        ACTIVATIONS[activation],
        nodes,
        np.full(S, 1 / S),
        f,
        T,
        controls(Trained(nodes, kernel, bias)),
        lambda f: 0.5 * h / S * np.sum((f - g) ** 2, axis=(0, 1)),
        (kernel or 0.0, bias or 0.0),
    )


def errors(problem, box, exact, steps_per_cell=0.25):
    """Of V at the input, the largest over the grid's middle half at t = 0, of the closed loop."""
    at_input, over_states, closed = [], [], []
    for cells in CELLS:
        grid = StateGrid(np.array(box), cells)
        value = sweep_back(problem, grid, round(cells * steps_per_cell))
        wanted = exact(*problem.inputs[:, 0])
        at_input.append(abs(value.at(problem.inputs) - wanted))
        loop = run_closed_loop(value, problem.inputs)
        assert loop.inside
        closed.append(abs(loop.cost - wanted))
        if grid.dimension == 1:
            quarter = cells // 4
            middle = slice(quarter, -quarter, max(quarter // 8, 1))
            known = [exact(f) for f in grid.axes[0][middle]]
            over_states.append(np.max(np.abs(value.values[0][middle] - known)))
    return at_input, over_states, closed


@pytest.mark.parametrize(
    ("activation", "objective"),
    [("tanh", 0.0314161896), ("sigmoid", 0.0058238935), ("relu", 0.0253125)],
)
def test_bias_only(activation, objective):
    """The dynamics of constant biases are exact: what is left is interpolation, O(h^4 / tau).

    ReLU cannot go down: V has a jump of its second derivative at f = g, and no more than the order
    of the monotone interpolation is sure there, h^2 / tau.
    """
    lam, g = 0.1, 0.9
    sigma, b = ACTIVATIONS[activation], np.linspace(-6, 6, 240_001)

    def exact(f):
        return float(np.min(T * lam / 2 * b * b + 0.5 * (f + T * sigma(b) - g) ** 2))

    assert exact(0.0) == pytest.approx(objective, abs=1e-9)
    problem = finite_problem(activation, [0.0], [g], bias=lam)
    at_input, over_states, closed = errors(problem, [[-2.4, 3.1]], exact)
    assert at_input[-1] < 5e-5
    assert closed[-1] < 1e-6
    assert fitted_order(CELLS, over_states) > (1.0 if activation == "relu" else 2.0)


def test_linear_kernel_and_bias():
    """Controls vary in depth: held on steps of length tau they cost O(tau^2) too much."""
    h, a, b, g = 0.7, 0.1, 0.2, 1.2

    def F(f):
        return np.sqrt(a / h) * np.arcsinh(f * np.sqrt(h * b / a))

    y = np.linspace(-2, 2, 400_001)

    def exact(f):
        return float(h * np.min((F(y) - F(f)) ** 2 / (2 * T) + 0.5 * (y - g) ** 2))

    problem = finite_problem("linear", [-1.0], [g], kernel=a, bias=b, h=h)
    at_input, over_states, closed = errors(problem, [[-2.3, 2.6]], exact)
    for each in (at_input, over_states, closed):
        assert abs(fitted_order(CELLS, each) - 2) < 0.2
    assert at_input[-1] < 1e-2 * exact(-1.0)


def test_two_samples():
    """A state of two dimensions."""
    lam, inputs, targets = 0.3, [1.0, -0.6], [1.8, -0.7]

    def exact(*f):
        def cost(A):
            return lam * A * A / (2 * T) + 0.25 * np.sum(
                (np.exp(A) * np.array(f) - np.array(targets)) ** 2
            )

        return minimize_scalar(cost, bounds=(-1, 2), method="bounded", options={"xatol": 1e-9}).fun

    problem = finite_problem("linear", inputs, targets, kernel=lam)
    at_input, _, closed = errors(problem, [[0.3, 2.4], [-1.4, -0.1]], exact, 1 / 8)
    assert abs(fitted_order(CELLS, at_input) - 2) < 0.3
    assert max(closed) < 1e-5
