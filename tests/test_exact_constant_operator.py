"""Exact case 4 of theory.md section 9: linear activation, kernel only.

Optimal kernels are a(t) = e^{tW} a_0 e^{-tW}, W = a_0 - a_0', and f(T) = e^{TW} e^{T a_0'} f_I:
norm and spectrum of a(t) are constant in t. Operators are matrices in L2-orthonormal coordinates.
"""

import numpy as np
import pytest
from helpers import (
    fitted_order,
    in_file_order,
    l2_problem,
    layer_weights,
    local,
    make_network,
    uniform,
    width_space,
)
from mpi4py import MPI
from scipy.linalg import expm
from scipy.optimize import minimize, root

from fem_dnn.depth import SCHEMES
from fem_dnn.problem import Linearisation
from fem_dnn.solvers import Tolerances, solve_newton
from fem_dnn.state import solve_state

T = 1.2
LAMBDA = 0.05
CELLS = 3
LAYERS = {
    "resnet": [32, 64, 128, 256],
    "dg0": [32, 64, 128, 256],
    "dg1": [8, 16, 32, 64],
    "dg2": [4, 6, 8, 12],
}


def constant_operator(nodes: int) -> np.ndarray:
    return 0.8 * np.random.default_rng(7).standard_normal((nodes, nodes))


def terminal_map(a_0: np.ndarray) -> np.ndarray:
    return expm(T * (a_0 - a_0.T)) @ expm(T * a_0.T)


def inputs_and_targets(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(11)
    return rng.standard_normal((4, nodes)), rng.standard_normal((4, nodes))


@pytest.mark.mpi
@pytest.mark.parametrize("scheme", SCHEMES)
def test_order_in_depth_of_the_forward_problem(scheme: str) -> None:
    errors = []
    for layers in LAYERS[scheme]:
        space = width_space(MPI.COMM_WORLD, CELLS, 0)
        network = make_network(space, scheme, "linear", points=uniform(T, layers))
        h = np.sqrt(space.node_weights)
        a_0 = constant_operator(space.n_nodes)
        rotations = [expm(t * (a_0 - a_0.T)) for t in network.levels.t]
        # L2-orthonormal coordinates to nodal values: divide by the roots of both weights.
        kernel = np.stack([Q @ a_0 @ Q.T for Q in rotations]) / np.outer(h, h)
        f_I = inputs_and_targets(space.n_nodes)[0]
        weights = layer_weights(network, kernel=kernel)
        state = solve_state(network, weights, local(space, f_I))
        exact = ((f_I * h) @ terminal_map(a_0).T) / h
        errors.append(np.max(np.abs(in_file_order(space, state.ends)[-1] - exact)))
    assert errors[-1] > 1e-13, "at round-off there is no slope to fit"
    assert abs(fitted_order(LAYERS[scheme], errors) - SCHEMES[scheme].order) < 0.15


def learn(comm, scheme: str, layers: int) -> Linearisation:
    space = width_space(comm, CELLS, 0)
    network = make_network(space, scheme, "linear", points=uniform(T, layers))
    problem = l2_problem(network, *inputs_and_targets(space.n_nodes), kernel=LAMBDA)
    solution = solve_newton(
        problem, problem.controls.constant(), Tolerances(rtol=1e-12), escape=False
    )
    assert solution.converged, solution.reason
    return solution.at


def reduced_minimum() -> tuple[float, np.ndarray]:
    """J and f(T) of the exact reduction to one constant operator a_0, with f(T) by expm."""
    root_h = 1 / np.sqrt(CELLS)
    f_I, g = (data * root_h for data in inputs_and_targets(CELLS))

    def J(a: np.ndarray) -> complex:
        a_0 = a.reshape(CELLS, CELLS)
        misfit = f_I @ terminal_map(a_0).T - g
        return 0.5 * LAMBDA * T * np.sum(a_0**2) + 0.5 * np.sum(misfit**2) / len(f_I)

    def gradient(a: np.ndarray) -> np.ndarray:
        """By complex steps: J is analytic, so this is exact to round-off."""
        return np.array([J(a + 1e-30j * e).imag / 1e-30 for e in np.eye(a.size)])

    near = minimize(lambda a: J(a).real, np.zeros(CELLS**2), jac=gradient).x
    a = root(gradient, near, tol=1e-14).x
    terminal = f_I @ terminal_map(a.reshape(CELLS, CELLS)).T / root_h
    return float(J(a).real), terminal


@pytest.mark.parametrize(
    ("scheme", "layers"),
    [("resnet", [16, 32, 64]), ("dg0", [8, 16, 32]), ("dg1", [6, 12, 24]), ("dg2", [4, 6, 8])],
)
def test_learned_kernels_rotate(scheme: str, layers: list[int]) -> None:
    """In the limit of layers the minimiser has constant norm and spectrum, and the exact J."""
    degree = SCHEMES[scheme].levels - 1
    exact_objective, exact_terminal = reduced_minimum()
    norms, spectra, objectives, terminals = [], [], [], []
    for n in layers:
        at = learn(MPI.COMM_WORLD, scheme, n)
        kernel = at.problem.controls.values(at.control).kernel / CELLS  # to coordinates
        size = np.linalg.norm(kernel, axis=(1, 2))
        norms.append(np.ptp(size) / size.mean())
        # The spectrum through smooth functions of it: single eigenvalues may collide.
        invariants = np.array([[np.trace(a), np.trace(a @ a), np.linalg.det(a)] for a in kernel])
        spectra.append(np.max(np.ptp(invariants, axis=0)))
        objectives.append(abs(at.objective - exact_objective))
        terminal = in_file_order(at.problem.network.space, at.state.ends)[-1]
        terminals.append(np.max(np.abs(terminal - exact_terminal)))
    if degree == 0:
        # Both are symplectic Euler methods for state and adjoint: a_n = -(1/lambda) sum p f' of
        # neighbouring slab ends is carried on by similarity transforms, at any number of layers.
        assert max(norms + spectra) < 1e-9
    else:
        # Inside a slab the states are of order q + 1 (dg1's two levels happen to do better).
        assert fitted_order(layers, norms) > degree + 1 - 0.15
        assert fitted_order(layers, spectra) > degree + 1 - 0.15
    order = SCHEMES[scheme].order
    assert abs(fitted_order(layers, objectives) - order) < 0.2
    assert abs(fitted_order(layers, terminals) - order) < 0.2
