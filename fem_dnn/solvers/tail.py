"""The learning problem from a layer on, and the adjoint of a single layer.

A change of layer n leaves the state before it alone. So what follows, with f(t_n) for its input, is
a learning problem of its own, on the layers n, n + 1, ..., that costs its share of the depth. Its
optimal value is the value functional V(f, t_n) of theory.md section 8 (`problem_from`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fem_dnn.adjoint import AdjointTrajectory, solve_adjoint
from fem_dnn.controls import ControlSpace
from fem_dnn.depth import DepthLevels
from fem_dnn.losses import OutputLayer
from fem_dnn.network import LayerWeights, Network
from fem_dnn.nonlocal_operator import NonlocalOperator
from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.regularization import Regularization
from fem_dnn.tracking import Tracking
from fem_dnn.trajectories import StateTrajectory
from fem_dnn.work import Work

Array = NDArray[np.float64]


def network_of(network: Network, first: int, last: int) -> Network:
    """The network on the layers first, ..., last - 1."""
    levels = DepthLevels(network.levels.scheme, network.levels.points[first : last + 1])
    return Network(network.space, levels, network.activation)


def weights_of(levels: DepthLevels, weights: LayerWeights, first: int, last: int) -> LayerWeights:
    """Kernel and bias on the layers first, ..., last - 1; views."""
    part = slice(first * levels.scheme.levels, last * levels.scheme.levels)
    operator, bias = weights.operator, weights.bias
    if operator is not None:
        operator = NonlocalOperator(
            operator.space, levels.weights[part], operator.coefficients[part]
        )
    return LayerWeights(operator, None if bias is None else bias[part])


def tracking_from(problem: LearningProblem, first: int) -> Tracking | None:
    """The tracking term from a layer on."""
    tracking, levels = problem.tracking, problem.network.levels
    if tracking is None or len(tracking.targets) != len(levels.tracking_t):
        return tracking
    points = len(levels.scheme.tracking_points)
    return replace(tracking, targets=tracking.targets[first * points :])


def problem_from(problem: LearningProblem, first: int, inputs: Array) -> LearningProblem:
    """The learning problem from a layer on, with the controls that it has there.

    Where derivatives in depth are penalised, those across t_first are left out.

    Args:
        problem: The learning problem on the whole depth.
        first: The layer n.
        inputs: f(t_n), shape (n_local, samples).
    """
    levels = problem.network.levels
    network = network_of(problem.network, first, levels.layers)
    controls = problem.controls.on(network.levels)
    return replace(
        problem,
        network=network,
        controls=controls,
        inputs=inputs,
        regularization=replace(problem.regularization, controls=controls, given=0.0),
        tracking=tracking_from(problem, first),
        given=weights_of(levels, problem.given, first, levels.layers),
        work=Work(),
    )


class Tails:
    """A learning problem's parts from each layer on, without anything to train.

    Args:
        problem: The learning problem.
        weights: Kernel and bias of all layers. The parts see what is changed in their arrays.
    """

    def __init__(self, problem: LearningProblem, weights: LayerWeights) -> None:
        self.problem = problem
        self.weights = weights
        levels = problem.network.levels
        self.layers = levels.layers
        self.per_slab = levels.scheme.levels
        self._points = len(levels.scheme.tracking_points)
        self._parts = [self._part(n) for n in range(self.layers)]

    def _part(self, first: int) -> LearningProblem:
        problem, levels = self.problem, self.problem.network.levels
        network = network_of(problem.network, first, self.layers)
        controls = ControlSpace(network.space, network.levels, kernel=False, bias=False)
        return replace(
            problem,
            network=network,
            controls=controls,
            regularization=Regularization(controls, 0.0, 0.0),
            tracking=tracking_from(problem, first),
            given=weights_of(levels, self.weights, first, self.layers),
            work=Work(),
        )

    def state(self, first: int, f: Array, outputs: OutputLayer | None) -> Linearisation:
        """State and loss from a layer on, solved now: the weights may change afterwards.

        Args:
            first: The layer n.
            f: f(t_n), shape (n_local, samples).
            outputs: The output layer.

        Raises:
            SlabFailure: An implicit slab did not converge.
        """
        self.problem.work.states += (self.layers - first) / self.layers
        at = replace(self._parts[first], inputs=f, given_outputs=outputs).linearise(np.zeros(0))
        _ = at.loss
        return at

    def adjoint(self, first: int, at: Linearisation) -> AdjointTrajectory:
        """The adjoint from T down to a layer, at the weights of `state`."""
        self.problem.work.adjoints += (self.layers - first) / self.layers
        return at.adjoint

    def layer_adjoint(
        self, n: int, state: StateTrajectory, misfit: Array, terminal: Array
    ) -> AdjointTrajectory:
        """The adjoint of layer n alone, from p(t_{n+1}).

        Args:
            n: The layer.
            state: A state on all layers that is the present one on this layer.
            misfit: f - g at all tracking points of that state, or empty.
            terminal: p(t_{n+1}), shape (n_local, samples).
        """
        self.problem.work.adjoints += 1 / self.layers
        levels = slice(n * self.per_slab, (n + 1) * self.per_slab)
        points = slice(n * self._points, (n + 1) * self._points)
        tracking = self.problem.tracking
        residuals = misfit[points] * (1.0 if tracking is None else tracking.weight)
        network = network_of(self.problem.network, n, n + 1)
        weights = weights_of(self.problem.network.levels, self.weights, n, n + 1)
        return solve_adjoint(network, weights, state.slope[levels], terminal, residuals)
