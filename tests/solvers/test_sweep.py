"""Forward-backward sweeps: the augmented Hamiltonian and its minimiser. See test_methods too."""

from itertools import pairwise

import numpy as np
import pytest
from helpers import random_control, random_problem
from mpi4py import MPI

from fem_dnn.solvers import Tolerances, solve_sweep
from fem_dnn.solvers import sweep as module
from fem_dnn.solvers.sweep import minimise_augmented_hamiltonian

pytestmark = pytest.mark.mpi

WORLD = MPI.COMM_WORLD


def hamiltonian(at, control) -> float:
    """int_0^T sum_s w_s <p_s, sigma(a f_s + b)> dt + R, at the state and adjoint of `at`."""
    problem = at.problem
    weights = problem.layer_weights(problem.controls.split(control))
    value = 0.0
    for level, omega in enumerate(problem.network.levels.weights):
        u = weights.bias[level] + weights.operator.apply(level, at.state.gathered[level])
        sigma = problem.network.activation(u)
        h, w = problem.network.space.local_weights, problem.sample_weights
        value += omega * float(h @ (at.adjoint.levels[level] * sigma) @ w)
    space = problem.network.space
    return float(space.sum(np.array(value))) + problem.regularization.value(control)


@pytest.mark.parametrize("scheme", ["resnet", "dg1"])
@pytest.mark.parametrize("mask", [False, True])
def test_minimises_the_augmented_hamiltonian(scheme: str, mask: bool, monkeypatch) -> None:
    """Stationary, by central differences of the definition; and lower than the start."""
    problem = random_problem(WORLD, scheme=scheme, mask=mask, regularization=(0.1, 0.2, 0.3))
    at, rho = problem.linearise(random_control(problem, scale=0.3)), 100.0
    monkeypatch.setattr(module, "INNER", 60)
    monkeypatch.setattr(module, "INNER_TOLERANCE", 0.0)
    found = minimise_augmented_hamiltonian(at, rho)

    def augmented(control):
        change = control - at.control
        return hamiltonian(at, control) + 0.5 * rho * problem.controls.dot(change, change)

    least, eps = augmented(found), 1e-4
    assert least < augmented(at.control) - 1e-3
    for seed in range(4):
        d = problem.controls.random_direction(seed)
        plus, minus = augmented(found + eps * d), augmented(found - eps * d)
        slope, curvature = (plus - minus) / (2 * eps), (plus - 2 * least + minus) / eps**2
        assert abs(slope) < 1e-7 * at.gradient_norm  # eps^2 times the third derivative
        assert curvature > 0
    # The derivative along the known trajectory is the gradient: same critical points.
    d = problem.controls.random_direction(9)
    slope = (hamiltonian(at, at.control + eps * d) - hamiltonian(at, at.control - eps * d)) / 2
    assert abs(slope / eps - problem.controls.dot(at.gradient, d)) < 1e-6 * at.gradient_norm


def test_the_inner_steps_converge_to_it(monkeypatch) -> None:
    """Linearly: the linearised closed form is near, every further step nearer."""
    problem = random_problem(WORLD, scheme="resnet", regularization=(0.1, 0.2, 0.3))
    at, rho = problem.linearise(random_control(problem, scale=0.3)), 100.0
    monkeypatch.setattr(module, "INNER_TOLERANCE", 0.0)
    found = []
    for steps in (1, 2, 3, 60):
        monkeypatch.setattr(module, "INNER", steps)
        found.append(minimise_augmented_hamiltonian(at, rho))
    errors = [problem.controls.norm(c - found[-1]) for c in found[:-1]]
    assert all(0 < b < 0.5 * a for a, b in pairwise(errors))


def test_the_objective_never_rises() -> None:
    problem = random_problem(WORLD, scheme="resnet", loss="softmax", learn_outputs=True)
    solution = solve_sweep(problem, random_control(problem), Tolerances(max_iterations=60))
    objectives = [line.objective for line in solution.history]
    assert all(b < a for a, b in pairwise(objectives))
    assert problem.work.hamiltonians > 0
    assert solution.sweeps == problem.work.sweeps
