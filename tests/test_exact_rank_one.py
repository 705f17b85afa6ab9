"""Exact case 1 of theory.md section 9: rank-one kernels, for every activation with a closed form.

Width spaces of degree 1 hold the (linear) data exactly and their node weights integrate all
products that occur, so that the only error is the one in depth.
"""

import numpy as np
import pytest
from helpers import (
    fitted_order,
    in_file_order,
    layer_weights,
    local,
    make_network,
    uniform,
    width_space,
)
from mpi4py import MPI
from scipy.special import lambertw

from fem_dnn.depth import SCHEMES
from fem_dnn.state import solve_state

pytestmark = pytest.mark.mpi

LAYERS = {
    "resnet": [64, 128, 256, 512],
    "dg0": [64, 128, 256, 512],
    "dg1": [16, 32, 64, 128],
    "dg2": [6, 8, 10, 12],  # two doublings later there is nothing but round-off
}
T = 1.5


def psi(x):
    return 1 - x / 3


def f_I(x):
    return np.stack([0.3 + x / 2, 1 - x])


def first_moments():
    """m_0 = (psi, f_I) per sample, by hand."""
    return np.array([0.3 * 5 / 6 + 1 / 4 - 1 / 18, 1 - 1 / 2 - 1 / 6 + 1 / 9])


def linear(t, x):
    """sigma(u) = u, a = alpha(t) phi(x) psi(y): the moment m grows like e^(kappa A)."""
    kappa = 1 + 1 / 4 - 1 / 6 - 1 / 18  # int (1 - y/3)(1 + y/2) dy
    A = t + np.sin(2 * t) / 2  # alpha = 1 + cos 2t
    growth = np.expm1(kappa * A) / kappa
    return f_I(x) + first_moments()[:, None] * (1 + x / 2) * growth


def tanh(t, x):
    """phi = 1, constant alpha = 1.7, b = -0.4."""
    alpha, b, c, m_0 = 1.7, -0.4, 5 / 6, first_moments()
    m = (np.arcsinh(np.sinh(alpha * m_0 + b) * np.exp(alpha * c * t)) - b) / alpha
    return f_I(x) + ((m - m_0) / c)[:, None]


def sigmoid(t, x):
    """phi = 1, constant alpha = -4, no bias: m - e^(-alpha m)/alpha grows linearly."""
    alpha, c, m_0 = -4.0, 5 / 6, first_moments()
    k = m_0 - np.exp(-alpha * m_0) / alpha + c * t
    m = k + lambertw(np.exp(-alpha * k)).real / alpha
    return f_I(x) + ((m - m_0) / c)[:, None]


def controls(activation, t, x):
    """Kernel (levels, nodes, nodes) and bias (levels, nodes) or None."""
    one = np.ones((len(t), len(x)))
    if activation == "linear":
        alpha = 1 + np.cos(2 * t)
        return alpha[:, None, None] * np.outer(1 + x / 2, psi(x)), None
    alpha, bias = {"tanh": (1.7, -0.4 * one), "sigmoid": (-4.0, None)}[activation]
    return alpha * one[:, :, None] * psi(x), bias


EXACT = {"linear": linear, "tanh": tanh, "sigmoid": sigmoid}


def largest_error(comm, activation, scheme, layers):
    """Largest error over nodes, samples and slab ends."""
    space = width_space(comm, 2, 1)
    network = make_network(space, scheme, activation, points=uniform(T, layers))
    x = space.nodes[:, 0]
    kernel, bias = controls(activation, network.levels.t, x)
    weights = layer_weights(network, kernel=kernel, bias=bias)
    state = solve_state(network, weights, local(space, f_I(x)))
    computed = in_file_order(space, state.ends)
    exact = np.stack([EXACT[activation](t, x) for t in network.levels.points])
    return np.max(np.abs(computed - exact))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "activation",
    ["tanh", *(pytest.param(n, marks=pytest.mark.one_rank) for n in EXACT if n != "tanh")],
)
def test_order_in_depth(activation: str, scheme: str) -> None:
    errors = [largest_error(MPI.COMM_WORLD, activation, scheme, n) for n in LAYERS[scheme]]
    assert errors[-1] > 1e-13, "at round-off there is no slope to fit"
    assert abs(fitted_order(LAYERS[scheme], errors) - SCHEMES[scheme].order) < 0.15
