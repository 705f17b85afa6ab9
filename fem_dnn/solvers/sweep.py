"""Forward-backward sweeps: the method of successive approximations with an augmented Hamiltonian.

Given state f and adjoint p at the controls c_k = (a_k, b_k), the next controls minimise, at every
depth and every x by themselves (theory.md section 7),

    sum_s w_s p_s sigma(a f_s + b) + (lambda_a/2) |a|^2 + (lambda_b/2) |b|^2
                                                         + (rho/2) (|a - a_k|^2 + |b - b_k|^2).

Without the last term (Krylov & Chernous'ko, 1962) this converges on short depths only. Li, Chen,
Tai & E (JMLR 18, 2018) stabilise it by penalising what the new controls do to state and adjoint,
Sakawa & Shindo (IEEE Trans. Autom. Control 25, 1980) by the change of the controls, which bounds
it; so does the sequential quadratic Hamiltonian method (Breitenbach & Borzi, J. Dyn. Control Syst.
25, 2019; for networks Hofmann & Borzi, arXiv:2504.11647), whose rule is used here: rho grows until
J decreases enough, so J never rises. The rho tried first is the curvature that the last step has
met (Barzilai & Borwein), not that method's constant factors, which took two to four times the work.

The minimisation is local: a fixed-point iteration on the stationarity of the augmented Hamiltonian,

    a <- (rho a_k - sum_s w_s sigma'(a f_s + b) p_s f_s) / (lambda_a + rho),    b likewise,

projected onto the bounds where there are any (entry by entry, the exact minimiser of a quadratic),
which is a contraction once rho exceeds the Hamiltonian's curvature. Its first step is the
linearised closed form, a gradient step implicit in lambda; every further one costs two matrix
products per level, local to every rank. Learned outputs and derivatives in R, which are no part of
the pointwise problem, enter by their linearisation at c_k.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers.descent import Descent
from fem_dnn.solvers.method import Method, Way
from fem_dnn.solvers.step import SHORTEST, TOO_MANY, Failures, is_noise
from fem_dnn.trajectories import levelwise, pre_activations

Array = NDArray[np.float64]

GROWTH, SHRINKAGE = 2.0, 0.7
"""Factors on rho after a step that is refused, and after one that has met no curvature."""

CHANGE = 10.0
"""Largest factor by which rho changes from sweep to sweep."""

DECREASE = 1e-2
"""J has to decrease by this times (rho/2) |c_{k+1} - c_k|^2."""

INNER = 4
"""Fixed-point steps on the augmented Hamiltonian."""

INNER_TOLERANCE = 0.1
"""They end when the controls change by less than this part of their change so far."""


def _descend(descent: Descent) -> tuple[Linearisation, str]:
    """Sweep until the gradient is small."""
    descent.options.require_read()
    at, failures = descent.start, Failures()
    rho = max(at.gradient_norm, *at.problem.regularization.weights)  # a first step of 1 at most
    try:
        while at.gradient_norm > descent.target:
            if not descent.iterations_left:
                return descent.outcome(at, TOO_MANY)
            lower, rho = _sweep(at, rho, failures)
            if lower is at:
                return descent.outcome(at, failures.stagnation())
            rho = _curvature_met(at, lower, rho)
            at = lower
            descent.history.add(at)
        return descent.outcome(at, "")
    except SlabFailure as failure:
        # In an adjoint: keep what has been reached.
        return descent.outcome(descent.history.at or descent.start, str(failure))


solve_sweep = Method("sweep", Way(_descend), within_bounds=Way(_descend))
"""Forward-backward sweeps; of PETSc's options only those of the eigensolver have a reader."""


def _sweep(at: Linearisation, rho: float, failures: Failures) -> tuple[Linearisation, float]:
    """The next controls, and the rho that made J decrease; the present ones if none does."""
    problem = at.problem
    shortest = SHORTEST * max(problem.controls.norm(at.control), 1.0)
    while True:
        trial = problem.linearise(minimise_augmented_hamiltonian(at, rho))
        move = trial.control - at.control
        length = problem.controls.norm(move)
        if length <= shortest:
            return at, rho
        objective = failures.value(lambda trial=trial: trial.objective)  # type: ignore[misc]
        change = objective - at.objective
        if is_noise(change, at.objective):
            change = 0.5 * problem.controls.dot(at.gradient + trial.gradient, move)
        if change <= -DECREASE * 0.5 * rho * length**2:
            return trial, rho
        rho *= GROWTH


def _curvature_met(at: Linearisation, lower: Linearisation, rho: float) -> float:
    """The next rho: |y|^2/(s y) of a step s.

    y is the change of the gradient but for the Tikhonov terms, which the sweep minimises exactly.

    Args:
        at, lower: Both ends of the step.
        rho: What it was made with.
    """
    dot = at.problem.controls.dot
    s = lower.control - at.control
    y = lower.gradient - at.gradient - _tikhonov_weights(at.problem) * s
    y[s == 0] = 0.0  # held by a bound
    sy = dot(s, y)
    met = dot(y, y) / sy if sy > 0 else SHRINKAGE * rho
    return min(max(met, rho / CHANGE), rho * CHANGE)


def minimise_augmented_hamiltonian(at: Linearisation, rho: float) -> Array:
    """The controls that minimise the augmented Hamiltonian along a known state and adjoint.

    Args:
        at: Where state and adjoint are known.
        rho: Weight of the change of the controls.

    Returns:
        A local control vector; as good as `INNER` fixed-point steps make it.
    """
    problem, start = at.problem, at.control
    weights = _tikhonov_weights(problem)
    # What is not in the pointwise problem stays as it is at the start.
    slope = at.gradient - weights * start
    fixed = slope - _hamiltonian_slope(at, at.adjoint.q)
    project = problem.controls.project
    control = project(start - at.gradient / (weights + rho))
    length = problem.controls.norm(control - start)
    for _ in range(INNER - 1):
        slope = fixed + _hamiltonian_slope(at, _q(at, control))
        following = project((rho * start - slope) / (weights + rho))
        changed = problem.controls.norm(following - control)
        control = following
        if not changed > INNER_TOLERANCE * length:
            break
    return control


def _tikhonov_weights(problem: LearningProblem) -> Array:
    """lambda of every entry of the control vector."""
    weights = np.empty(problem.controls.n_local)
    for name, weight in problem.regularization.tikhonov.items():
        weights[problem.controls.blocks[name]] = weight
    return weights


def _hamiltonian_slope(at: Linearisation, q: Array) -> Array:
    """Derivative of sum_s w_s <p_s, sigma(u_s)> by the controls, zero for the output layer.

    Args:
        at: Where the state is known.
        q: sigma'(u) p at the levels, shape (levels, n_local, samples).
    """
    problem = at.problem
    K = problem.controls.outputs
    functions, offsets = np.zeros((K, problem.network.space.n_local)), np.zeros(K)
    return at.sums([(levelwise(q), at.state.functions)], functions, offsets)


def _q(at: Linearisation, control: Array) -> Array:
    """sigma'(u) p at other controls but the same state and adjoint, shape as the adjoint's q."""
    problem = at.problem
    problem.work.hamiltonians += 1
    weights = problem.layer_weights(problem.controls.split(control))
    u = pre_activations(weights, at.state)
    slope = problem.network.activation.evaluate(u, 1)[1]
    return slope * at.adjoint.levels
