"""Verification of derivatives, as a tool for users: is the gradient exact, is the Hessian?

    report = verify(problem, control, seed=0)
    print(report)

Four tests: Taylor remainders of order 2 (gradient) and 3 (Hessian), symmetry of the Hessian, the
adjoint identity of the linearised sweeps, and forward-mode against reverse-mode derivatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fem_dnn.adjoint import solve_adjoint
from fem_dnn.problem import LearningProblem
from fem_dnn.state import solve_tangent
from fem_dnn.trajectories import pre_activations

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TaylorRemainders:
    """Remainders of the Taylor expansion of J along a direction.

    Attributes:
        steps: Step sizes e.
        first: |J(c + e d) - J(c) - e J'(c) d|, of order e^2 if the gradient is exact.
        second: The same less e^2 d'H d / 2, of order e^3 if the Hessian is exact.
    """

    steps: Array
    first: Array
    second: Array

    @property
    def first_order(self) -> float:
        """Fitted order of the first remainder; inf if it vanishes to round-off."""
        return fitted_order(self.steps, self.first)

    @property
    def second_order(self) -> float:
        """Fitted order of the second remainder; inf if it vanishes to round-off."""
        return fitted_order(self.steps, self.second)


@dataclass(frozen=True)
class DerivativeReport:
    """Result of `verify`.

    Attributes:
        taylor: Taylor remainders.
        hessian_asymmetry: |(H d, e) - (d, H e)| / (|H d| |e| + |d| |H e|).
        adjoint_defect: Relative defect of the adjoint identity.
        mode_defect: Relative difference of forward-mode and reverse-mode derivatives.
    """

    taylor: TaylorRemainders
    hessian_asymmetry: float
    adjoint_defect: float
    mode_defect: float

    @property
    def passed(self) -> bool:
        """Whether orders and identities are what exact derivatives give."""
        return (
            self.taylor.first_order > 1.75
            and self.taylor.second_order > 2.75
            and max(self.hessian_asymmetry, self.adjoint_defect, self.mode_defect) < 1e-10
        )

    def __str__(self) -> str:
        return (
            f"Taylor orders {self.taylor.first_order:.3f} (gradient, expected 2) and "
            f"{self.taylor.second_order:.3f} (Hessian, expected 3); Hessian asymmetry "
            f"{self.hessian_asymmetry:.1e}; adjoint identity {self.adjoint_defect:.1e}; "
            f"forward against reverse mode {self.mode_defect:.1e}: "
            + ("exact" if self.passed else "NOT exact")
        )


def fitted_order(steps: Array, errors: Array) -> float:
    """Slope of log(errors) against log(steps) by least squares; inf where all errors vanish."""
    seen = errors > 0
    if seen.sum() < 2:
        return float("inf")
    return float(np.polyfit(np.log(steps[seen]), np.log(errors[seen]), 1)[0])


def taylor_remainders(
    problem: LearningProblem,
    control: Array,
    directions: Sequence[Array],
    steps: Array | None = None,
) -> TaylorRemainders:
    """Taylor remainders of the objective at a control, summed over directions.

    One direction may by accident lie where the leading term of the remainder vanishes, and then
    shows a wrong order; several do not.

    Args:
        problem: Learning problem.
        control: Local vector in L2-orthonormal coordinates.
        directions: Vectors of the same kind.
        steps: Step sizes; the default keeps the remainders of directions of norm about 1 well
            above round-off.
    """
    steps = 2.0 ** -np.arange(4.0, 8.0) if steps is None else np.asarray(steps)
    at = problem.linearise(control)
    dot = problem.controls.dot
    remainders = np.zeros((2, len(steps)))
    for d in directions:
        change = np.array([problem.objective(control + e * d) for e in steps]) - at.objective
        first = change - steps * dot(at.gradient, d)
        second = first - 0.5 * steps**2 * dot(at.hessian_action(d), d)
        remainders += np.abs([first, second])
    noise = 64 * np.finfo(float).eps * abs(at.objective) * len(directions)
    return TaylorRemainders(steps, *np.where(remainders > noise, remainders, 0.0))


def hessian_asymmetry(problem: LearningProblem, control: Array, d: Array, e: Array) -> float:
    """|(H d, e) - (d, H e)| / (|H d| |e| + |d| |H e|): round-off if the Hessian is symmetric."""
    at, space = problem.linearise(control), problem.controls
    Hd, He = at.hessian_action(d), at.hessian_action(e)
    size = space.norm(Hd) * space.norm(e) + space.norm(d) * space.norm(He)
    return abs(space.dot(Hd, e) - space.dot(d, He)) / size


def adjoint_defect(problem: LearningProblem, control: Array, direction: Array, seed: int) -> float:
    """Relative defect of (df(T), p) = (direction, L'p) for a random terminal covector p.

    L is the linearised control-to-terminal-state map; L' is evaluated by the adjoint sweep.
    """
    at, network = problem.linearise(control), problem.network
    space, omega = network.space, network.levels.weights
    change = problem.direction(problem.controls.split(direction))
    tangent = solve_tangent(network, at.weights, at.state, change)
    rng = np.random.default_rng(seed)
    samples = problem.inputs.shape[1]
    p = space.from_file_order(rng.standard_normal((space.n_nodes, samples)), axis=0)
    adjoint = solve_adjoint(network, at.weights, at.state.slope, p, np.empty((0, *p.shape)))
    left = float(space.sum(np.einsum("n,ns,ns->", space.local_weights, tangent.ends[-1], p)))
    # (direction, L'p) = sum over levels of omega int_Y q (dK f + db) dx
    du = pre_activations(change, at.state)
    products = np.einsum("l,n,lns,lns->", omega, space.local_weights, adjoint.q, du, optimize=True)
    right = float(space.sum(products))
    size = max(abs(left), abs(right))
    return abs(left - right) / size if size else 0.0  # 0: neither kernel nor bias is a control


def mode_defect(problem: LearningProblem, control: Array, direction: Array) -> float:
    """Relative difference of J'(c) d by the tangent sweep (forward) and the adjoint (reverse)."""
    at, network = problem.linearise(control), problem.network
    space = network.space
    parts = problem.controls.split(direction)
    tangent = solve_tangent(network, at.weights, at.state, problem.direction(parts))
    point, w = at.loss_point, problem.sample_weights
    inner = space.local_weights[:, None] * point.terminal * tangent.ends[-1]
    forward = float(space.sum((inner @ w).sum()))
    layer = problem.output_direction(parts)
    if layer is not None and point.functions is not None and point.offsets is not None:
        forward += float(space.sum((layer.functions * point.functions) @ space.local_weights).sum())
        forward += float(layer.offsets @ point.offsets)
    if problem.tracking is not None:
        levels = network.levels
        depth_weights = np.outer(levels.steps, levels.scheme.tracking_weights).ravel()
        misfit = at.state.tracked - problem.tracking.targets
        forward += problem.tracking.weight * float(
            space.sum(
                np.einsum(
                    "k,n,kns,kns,s->",
                    depth_weights,
                    space.local_weights,
                    misfit,
                    tangent.tracked,
                    w,
                    optimize=True,
                )
            )
        )
    of_penalty = problem.controls.dot(problem.regularization.action(control), direction)
    reverse = problem.controls.dot(at.gradient, direction)
    # At a critical point both derivatives are round-off, but their parts are not.
    return abs(forward + of_penalty - reverse) / (abs(forward) + abs(of_penalty))


def verify(problem: LearningProblem, control: Array, *, seed: int = 0) -> DerivativeReport:
    """Run all four tests at a control, in random directions of norm 1.

    Args:
        problem: Learning problem.
        control: Local vector in L2-orthonormal coordinates. Where the activation has a kink, no
            pre-activation may change sign near it.
        seed: Seed of the directions.
    """
    directions = [problem.controls.random_direction(seed + k) for k in range(3)]
    d, e = directions[:2]
    return DerivativeReport(
        taylor_remainders(problem, control, directions),
        hessian_asymmetry(problem, control, d, e),
        adjoint_defect(problem, control, d, seed),
        mode_defect(problem, control, d),
    )
