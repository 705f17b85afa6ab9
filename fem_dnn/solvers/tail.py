"""The learning problem from a layer on, and the adjoint of a single layer.

A change of layer n leaves the state before it alone. So what follows, with f(t_n) for its input, is
a learning problem of its own, on the layers n, n + 1, ..., that costs its share of the depth.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fem_dnn.adjoint import AdjointTrajectory, solve_adjoint
from fem_dnn.controls import ControlSpace
from fem_dnn.depth import DepthLevels
from fem_dnn.losses import OutputLayer
from fem_dnn.nonlocal_operator import NonlocalOperator
from fem_dnn.problem import LearningProblem, Linearisation, Work
from fem_dnn.regularization import Regularization
from fem_dnn.state import LayerWeights, Network, StateTrajectory

Array = NDArray[np.float64]


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
        network = self._network(first, self.layers)
        controls = ControlSpace(network.space, network.levels, kernel=False, bias=False)
        tracking = problem.tracking
        if tracking is not None and len(tracking.targets) == len(levels.tracking_t):
            tracking = replace(tracking, targets=tracking.targets[first * self._points :])
        return replace(
            problem,
            network=network,
            controls=controls,
            regularization=Regularization(controls, 0.0, 0.0),
            tracking=tracking,
            given=self._weights(first, self.layers),
            work=Work(),
        )

    def _network(self, first: int, last: int) -> Network:
        network = self.problem.network
        levels = DepthLevels(network.levels.scheme, network.levels.points[first : last + 1])
        return Network(network.space, levels, network.activation)

    def _weights(self, first: int, last: int) -> LayerWeights:
        part = slice(first * self.per_slab, last * self.per_slab)
        operator, bias = self.weights.operator, self.weights.bias
        if operator is not None:
            omega = self.problem.network.levels.weights[part]
            operator = NonlocalOperator(operator.space, omega, operator.coefficients[part])
        return LayerWeights(operator, None if bias is None else bias[part])

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
        here = StateTrajectory(
            state.ends[n : n + 2],
            state.u[levels],
            state.slope[levels],
            None if state.gathered is None else state.gathered[levels],
            state.tracked[points],
        )
        tracking = self.problem.tracking
        residuals = misfit[points] * (1.0 if tracking is None else tracking.weight)
        network, weights = self._network(n, n + 1), self._weights(n, n + 1)
        return solve_adjoint(network, weights, here, terminal, residuals)
