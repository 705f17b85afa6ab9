"""Errors of one discretisation against the exact solutions, by name of the quantity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.closed_forms import BiasOnly, ConstantOperator, RankOne, local
from benchmarks.manufactured import DEPTH, Manufactured, direction
from benchmarks.measure import DepthPoints, Quadrature
from fem_dnn.activations import ACTIVATIONS
from fem_dnn.controls import ControlValues
from fem_dnn.depth import SCHEMES, DepthLevels
from fem_dnn.network import LayerWeights, Network
from fem_dnn.nonlocal_operator import NonlocalOperator, kernel_coefficients
from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.solvers import Tolerances, solve_newton
from fem_dnn.state import solve_state
from fem_dnn.trajectories import StateTrajectory
from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]
Errors = dict[str, float]

TIGHT = Tolerances(rtol=1e-9, atol=1e-13)


def levels_of(scheme: str, layers: int, depth: float = DEPTH) -> DepthLevels:
    """Equal slabs."""
    return DepthLevels(SCHEMES[scheme], depth * np.arange(layers + 1) / layers)


def file_order(space: WidthSpace, values: Array) -> Array:
    """(..., n_local, samples) -> (..., samples, n_nodes), on every rank."""
    return np.swapaxes(space.to_file_order(values, axis=-2), -1, -2)


def level_states(space: WidthSpace, state: StateTrajectory) -> Array:
    """f at the levels, (levels, samples, n_nodes): what the nonlocal operator was applied to."""
    assert state.gathered is not None
    at_levels = state.gathered[:, space.owned] / space.sqrt_weights[space.owned, None]
    return file_order(space, at_levels)


def _l2(measure: Quadrature, difference: Array) -> Array:
    """Norms over Y and samples, one per depth; difference of shape (depths, samples, points)."""
    return np.sqrt(np.sum(measure.norm(difference) ** 2, axis=1))


def _in_depth(points: DepthPoints, norms: Array) -> float:
    return float(np.sqrt(points.weights @ norms**2))


class Comparison:
    """The discretisation of a learning problem beside its exact solution.

    Args:
        truth: The exact solution.
        space: Width space.
        levels: Depth levels; with straight trajectories dg1's or dg2's.
    """

    def __init__(
        self, truth: Manufactured | RankOne, space: WidthSpace, levels: DepthLevels
    ) -> None:
        self.truth, self.space, self.levels = truth, space, levels
        self.measure = truth.measure
        self.problem: LearningProblem = truth.problem(space, levels)
        self.exact_control = truth.control(self.problem)
        # Straight trajectories: exact at the levels, and no adjoint in between to compare with.
        points = DepthPoints.at_levels if truth.linear else DepthPoints.between
        self.points = points(levels)
        self.at_points = [truth.at(t, self.measure.points) for t in self.points.t]
        self.at_ends = [truth.at(t, self.measure.points) for t in levels.points]

    def given_control(self) -> Errors:
        """Errors at the exact controls."""
        at = self.problem.linearise(self.exact_control)
        errors = self._state(at) | self._adjoint(at)
        gradient = self.problem.controls.values(at.gradient)
        errors["gradient, L2"] = self._control_error(gradient, gradient=True)
        errors["derivative in a direction"] = abs(self._derivative(at) - self._exact_derivative())
        errors["objective"] = abs(at.objective - self.truth.objective(self.levels))
        return errors

    def optimum(self) -> Errors:
        """Errors of the solved learning problem; the exact controls have to be optimal."""
        solution = solve_newton(self.problem, self.exact_control, TIGHT, escape=False)
        if not solution.converged:
            raise RuntimeError(solution.reason)
        control = self.problem.controls.values(solution.control)
        errors = {
            "optimal " + name: error
            for name, error in (self._state(solution.at) | self._adjoint(solution.at)).items()
        }
        errors["optimal control, L2"] = self._control_error(control, gradient=False)
        exact = self.truth.objective(self.levels)
        errors["optimal objective"] = abs(solution.objective - exact)
        return errors

    def _state(self, at: Linearisation) -> Errors:
        ends, points = file_order(self.space, at.state.ends), self.points
        inside = (
            points.from_ends(ends)
            if self.levels.scheme.explicit
            else points.from_levels(level_states(self.space, at.state))
        )
        of_ends = self.measure.values(ends) - np.stack([e.f for e in self.at_ends])
        between = self.measure.values(inside) - np.stack([e.f for e in self.at_points])
        return {
            "state, slab ends": float(np.max(_l2(self.measure, of_ends))),
            "state, L2": _in_depth(points, _l2(self.measure, between)),
        }

    def _adjoint(self, at: Linearisation) -> Errors:
        ends, points = file_order(self.space, at.adjoint.ends), self.points
        inside = (
            points.from_ends(ends)
            if self.levels.scheme.explicit
            else points.from_levels(file_order(self.space, at.adjoint.levels))
        )
        between = self.measure.values(inside) - np.stack([e.p for e in self.at_points])
        errors = {"adjoint, L2": _in_depth(points, _l2(self.measure, between))}
        if not self.truth.linear:
            of_ends = self.measure.values(ends) - np.stack([e.p for e in self.at_ends])
            errors["adjoint, slab ends"] = float(np.max(_l2(self.measure, of_ends)))
        return errors

    def _control_error(self, values: ControlValues, *, gradient: bool) -> float:
        """L2 norm over depth and width of what kernel and bias differ from the exact ones by."""
        assert values.kernel is not None and values.bias is not None
        measure, points = self.measure, self.points
        squares = []
        in_depth = points.from_levels(values.kernel), points.from_levels(values.bias)
        for exact, a, b in zip(self.at_points, *in_depth, strict=True):
            a = measure.values(measure.values(a, axis=0), axis=1)
            a -= exact.kernel_gradient if gradient else exact.kernel()
            b = measure.values(b) - (exact.bias_gradient if gradient else exact.bias)
            squares.append(measure.kernel_norm(a) ** 2 + measure.norm(b) ** 2)
        return float(np.sqrt(points.weights @ squares))

    def _derivative(self, at: Linearisation) -> float:
        parts = [direction(t, self.space.nodes) for t in self.levels.t]
        kernel = np.stack([np.outer(left, right) for left, right, _ in parts])
        values = ControlValues(kernel, np.stack([bias for *_, bias in parts]))
        controls = self.problem.controls
        return controls.dot(at.gradient, controls.coordinates(values))

    def _exact_derivative(self) -> float:
        measure, total = self.measure, 0.0
        for t, omega, exact in zip(self.points.t, self.points.weights, self.at_points, strict=True):
            left, right, bias = (d * measure.weights for d in direction(t, measure.points))
            total += omega * (left @ exact.kernel_gradient @ right + exact.bias_gradient @ bias)
        return float(total)


def constant_operator(space: WidthSpace, levels: DepthLevels) -> Errors:
    """Errors of the state in case 4, in the space's own measure."""
    measure = Quadrature.nodal(space)
    case, omega = ConstantOperator(measure), levels.weights
    kernel = np.stack([case.kernel(t) for t in levels.t])
    operator = NonlocalOperator(space, omega, kernel_coefficients(space, omega, kernel))
    network = Network(space, levels, ACTIVATIONS["linear"])
    state = solve_state(network, LayerWeights(operator, None), local(space, case.inputs))
    exact = np.stack([case.state(t) for t in levels.points])
    ends = file_order(space, state.ends)
    points = DepthPoints.between(levels)
    inside = (
        points.from_ends(ends)
        if levels.scheme.explicit
        else points.from_levels(level_states(space, state))
    )
    between = inside - np.stack([case.state(t) for t in points.t])
    return {
        "state, slab ends": float(np.max(_l2(measure, ends - exact))),
        "state, L2": _in_depth(points, _l2(measure, between)),
    }


def bias_only(space: WidthSpace) -> Errors:
    """Errors of the optimum in cases 2 and 3; the depth is exact with any scheme."""
    case, measure = BiasOnly(), Quadrature.fine(space)
    problem = case.problem(space, levels_of("dg1", 1, case.depth))
    solution = solve_newton(problem, problem.controls.constant(), TIGHT)
    if not solution.converged:
        raise RuntimeError(solution.reason)
    bias = problem.controls.values(solution.control).bias
    assert bias is not None
    B = case.bias(measure.points)
    state = case.inputs(measure.points) + case.depth * np.tanh(B)
    computed = measure.values(file_order(space, solution.at.state.ends)[-1])
    return {
        "optimal bias, L2": float(measure.norm(measure.values(bias[0]) - B)),
        "optimal state at T, L2": float(_l2(measure, (computed - state)[None])[0]),
        "optimal objective": abs(solution.objective - case.objective(measure)),
    }
