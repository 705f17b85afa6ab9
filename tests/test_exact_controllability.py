"""Exact case 7 of theory.md section 9: controls that reach every target exactly (section 6).

Along f_s(t) = f_I + t v_s, v_s = (g_s - f_I)/T, the pre-activations are u_s = atanh(v_s); the Gram
formulas give the kernel and bias that produce them. The state is linear in t.
"""

import numpy as np
import pytest
from helpers import (
    fitted_order,
    in_file_order,
    l2_error,
    layer_weights,
    local,
    make_network,
    width_space,
)
from mpi4py import MPI

from fem_dnn.controls import ControlSpace, ControlValues
from fem_dnn.depth import SCHEMES
from fem_dnn.regularization import Regularization
from fem_dnn.state import solve_state

pytestmark = pytest.mark.mpi

T = 1.5
POINTS = np.array([0.0, 0.4, 0.6, T])
LAMBDA_A, LAMBDA_B = 0.3, 0.2


def data(x):
    inputs = np.stack([np.sin(3 * x), np.cos(2 * x), x**2 - 0.3])
    targets = inputs + np.stack([0.9 * np.cos(x), -0.5 + x, 1.1 * np.sin(2 * x)])
    return inputs, targets


def state_depths(network):
    """Where the nonlinear term sees the state: the levels, but for dg0 the slab's end.

    A piecewise constant takes its outgoing value throughout the slab.
    """
    levels = network.levels
    c = levels.scheme.stages.sum(axis=1)
    return (levels.points[:-1, None] + levels.steps[:, None] * c).ravel()


def controls_that_reach(network):
    """Kernel (levels, nodes, nodes) and bias (levels, nodes) of the Gram formulas."""
    space = network.space
    inputs, targets = data(space.nodes[:, 0])
    v = (targets - inputs) / T
    u = np.arctanh(v)
    kernel, bias = [], []
    for t in state_depths(network):
        f = inputs + t * v
        K = (f * space.node_weights) @ f.T / LAMBDA_A + 1 / LAMBDA_B
        q = np.linalg.solve(K, u)
        kernel.append(np.einsum("sx,sy->xy", q, f) / LAMBDA_A)
        bias.append(q.sum(axis=0) / LAMBDA_B)
    return np.array(kernel), np.array(bias)


def reach(comm, scheme, cells, degree):
    space = width_space(comm, cells, degree)
    network = make_network(space, scheme, "tanh", points=POINTS)
    kernel, bias = controls_that_reach(network)
    inputs, targets = data(space.nodes[:, 0])
    state = solve_state(
        network, layer_weights(network, kernel=kernel, bias=bias), local(space, inputs)
    )
    controls = ControlSpace(space, network.levels)
    control = controls.coordinates(ControlValues(kernel, bias))
    cost = Regularization(controls, LAMBDA_A, LAMBDA_B).value(control)
    return network, in_file_order(space, state.ends), inputs, targets, cost


@pytest.mark.parametrize("degree", [0, 2])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_reaches_every_target_to_round_off(scheme: str, degree: int) -> None:
    network, states, inputs, targets, cost = reach(MPI.COMM_WORLD, scheme, 4, degree)
    path = inputs + POINTS[:, None, None] * (targets - inputs) / T
    assert np.allclose(states, path, rtol=0, atol=1e-12)

    # The cost density is u'K^{-1}u / 2: kernel and bias are what section 3 says they are.
    space = network.space
    u = np.arctanh((targets - inputs) / T)
    expected = 0.0
    for t, omega in zip(state_depths(network), network.levels.weights, strict=True):
        f = inputs + t * (targets - inputs) / T
        K = (f * space.node_weights) @ f.T / LAMBDA_A + 1 / LAMBDA_B
        density = 0.5 * np.einsum("sx,sx->x", u, np.linalg.solve(K, u))
        expected += omega * space.node_weights @ density
    assert abs(cost - expected) < 1e-13 * expected


@pytest.mark.parametrize(
    ("degree", "cells"), [(0, [8, 16, 32, 64]), (1, [4, 8, 16, 32]), (2, [6, 8, 12, 16])]
)
def test_orders_in_width(degree: int, cells: list[int]) -> None:
    """The state is of order r + 1 in L2; the cost, a functional, of order 2r + 2."""
    reference = reach(MPI.COMM_SELF, "dg1", 40, 4)[-1]
    errors, costs = [], []
    for n in cells:
        network, states, _, _, cost = reach(MPI.COMM_WORLD, "dg1", n, degree)
        errors.append(l2_error(network.space, states[-1, 1], lambda x: data(x)[1][1]))
        costs.append(abs(cost - reference))
    assert abs(fitted_order(cells, errors) - (degree + 1)) < 0.15
    assert abs(fitted_order(cells, costs) - (2 * degree + 2)) < 0.2
