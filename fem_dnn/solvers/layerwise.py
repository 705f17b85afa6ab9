"""Layer-by-layer gradient descent: block coordinate descent, the controls of a layer being a block.

A sweep goes through the layers from the last to the first, the order in which backpropagation
meets them, learned outputs before all layers: each layer takes one gradient step for the whole
objective in its own controls alone, with the others as they are by then (Gauss-Seidel). Steps obey
Armijo's condition, so the objective never rises; they start from the curvature that the layer's
last step has met (Barzilai & Borwein). This is the training, one layer after the other, that
Markowich & Portaro (arXiv:2411.06290) set out to improve on; it converges as block coordinate
descent does (Tseng & Yun, Math. Program. 117, 2009).

In this order a step on layer n leaves the state before it alone: it costs the state from n on
per trial and the adjoint down to n once, on average half the depth each, and one more layer of
adjoint hands p(t_n) to layer n - 1. From the first layer to the last it would cost the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fem_dnn.adjoint import AdjointTrajectory
from fem_dnn.controls import ControlParts
from fem_dnn.losses import LossPoint, OutputLayer
from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers.block_step import BlockSteps
from fem_dnn.solvers.descent import Descent
from fem_dnn.solvers.method import Method, Way
from fem_dnn.solvers.step import TOO_MANY, Failures
from fem_dnn.solvers.tail import Tails

Array = NDArray[np.float64]

LEFT_ALONE = 0.1
"""Blocks whose gradients all together are less than this part of the target take no step."""


def _descend(descent: Descent) -> tuple[Linearisation, str]:
    """Sweep until the gradient is small."""
    descent.options.require_read()
    at, failures = descent.start, Failures()
    layers = _Layers(at.problem, descent.target, failures)
    try:
        while at.gradient_norm > descent.target:
            if not descent.iterations_left:
                return descent.outcome(at, TOO_MANY)
            lower = layers.sweep(at)
            if lower is at:
                return descent.outcome(at, failures.stagnation())
            at = lower
            descent.history.add(at)
        return descent.outcome(at, "")
    except SlabFailure as failure:
        # In an adjoint: keep what has been reached.
        return descent.outcome(descent.history.at or descent.start, str(failure))


solve_layerwise = Method("layerwise", Way(_descend), within_bounds=Way(_descend))
"""Layer-by-layer gradient descent, an iteration being a sweep; of PETSc's options only those of the
eigensolver have a reader."""


class _Layers:
    """The blocks of the control vector: one per layer, the learned output layer last.

    Args:
        problem: The learning problem.
        target: Norm of the whole gradient to reach.
        failures: Collects what went wrong at trial points.
    """

    def __init__(self, problem: LearningProblem, target: float, failures: Failures) -> None:
        self.problem = problem
        controls, levels = problem.controls, problem.network.levels
        self.layers, self.count = levels.layers, levels.count
        # Weights of all layers that follow the control vector, layer by layer.
        self.weights = problem.layer_weights(controls.split(np.zeros(controls.n_local)))
        self.tails = Tails(problem, self.weights)
        numbers = np.arange(controls.n_local)
        kernel, bias = (
            numbers[controls.blocks[name]].reshape(self.layers, -1) for name in ("kernel", "bias")
        )
        entries = [np.concatenate(rows) for rows in zip(kernel, bias, strict=True)]
        entries.append(numbers[controls.blocks["outputs"].start :])
        negligible = LEFT_ALONE * target / len(entries) ** 0.5
        self.steps = BlockSteps(problem, entries, negligible, failures)

    def sweep(self, at: Linearisation) -> Linearisation:
        """One step on every block, from the last to the first; the start if none could be made."""
        problem, tails = self.problem, self.tails
        control, moved = at.control.copy(), False
        for n in range(self.layers):
            self.load(n, control)
        outputs = _OutputBlock(problem, at.state.ends[-1], at.loss_point, at.output_layer)
        if problem.controls.outputs:
            moved = self.steps.step(self.layers, control, outputs, at.objective)
        cost, terminal = outputs.cost, outputs.point.terminal
        tracking = problem.tracking_costs(at.misfit)
        whole: Linearisation | None = None
        for n in reversed(range(self.layers)):
            cost += float(tracking[n])
            adjoint = tails.layer_adjoint(n, at.state, at.misfit, terminal)
            levels, gathered = problem.network.levels.of_slab(n), at.state.gathered
            if gathered is not None:
                gathered = gathered[levels.start : levels.stop]
            block = _LayerBlock(self, n, at.state.ends[n], outputs.layer, adjoint, gathered, cost)
            whole = None
            if self.steps.step(n, control, block, at.objective):
                moved, whole = True, block.tail
            else:
                self.load(n, control)
            cost, terminal = block.cost, block.adjoint.ends[0]
        if not moved:
            return at
        lower = problem.linearise(control)
        if whole is not None:
            # The first layer's step has solved the equations on all layers.
            lower.state, lower.adjoint = whole.state, whole.adjoint
        return lower

    def load(self, n: int, control: Array) -> None:
        """Bring the weights of a layer to a control vector's."""
        controls, levels = self.problem.controls, self.problem.network.levels.of_slab(n)
        part = slice(levels.start, levels.stop)
        if controls.has_kernel and self.weights.operator is not None:
            packed = control[controls.blocks["kernel"]].reshape(self.count, -1)[part]
            controls.place(packed, self.weights.operator.coefficients[part])
        if controls.has_bias and self.weights.bias is not None:
            packed = control[controls.blocks["bias"]].reshape(self.count, -1)[part]
            self.weights.bias[part, :, 0] = packed / controls.bias_scale[part]

    def slope(self, n: int, q: Array, gathered: Array | None) -> Array:
        """Derivative of the losses by a layer's controls.

        Args:
            n: The layer.
            q: sigma'(u) p at its levels, shape (levels, n_local, samples).
            gathered: The state there on all nodes, shape (levels, n_nodes, samples).
        """
        controls, w = self.problem.controls, self.problem.sample_weights
        levels = self.problem.network.levels.of_slab(n)
        parts: list[Array] = [np.zeros(0)]
        if controls.has_kernel and self.weights.operator is not None and gathered is not None:
            for i, level in enumerate(levels):
                kernel = self.weights.operator.outer(level, w * q[i], gathered[i])
                parts.append(controls.entries(kernel[None]))
        if controls.has_bias:
            scale = controls.bias_scale[levels.start : levels.stop]
            parts.append((scale * (q @ w)).ravel())
        return np.concatenate(parts)


class _LayerBlock:
    """A layer's controls: they have influence on the state from the layer on.

    Args:
        layers: All blocks.
        n: The layer.
        f: f(t_n), which they have no influence on, shape (n_local, samples).
        outputs: The output layer.
        adjoint: The layer's adjoint.
        gathered: The state at its levels on all nodes; None without a kernel.
        cost: Terminal loss, and tracking from the layer on.
    """

    def __init__(
        self,
        layers: _Layers,
        n: int,
        f: Array,
        outputs: OutputLayer | None,
        adjoint: AdjointTrajectory,
        gathered: Array | None,
        cost: float,
    ) -> None:
        self.layers, self.n, self.f, self.outputs = layers, n, f, outputs
        self.adjoint, self.cost = adjoint, cost
        self.slope = layers.slope(n, adjoint.q, gathered)
        self.tail: Linearisation | None = None

    def attempt(self, control: Array) -> float:
        """The cost with the layer's controls from a vector."""
        self.layers.load(self.n, control)
        self.tail = self.layers.tails.state(self.n, self.f, self.outputs)
        return self.tail.loss

    def attempted_slope(self) -> Array:
        """The cost's derivative there."""
        assert self.tail is not None, "nothing has been attempted"
        adjoint, state = self.layers.tails.adjoint(self.n, self.tail), self.tail.state
        first = slice(self.layers.tails.per_slab)
        gathered = None if state.gathered is None else state.gathered[first]
        return self.layers.slope(self.n, adjoint.q[first], gathered)

    def accept(self) -> None:
        """The adjoint and the cost are those of the last attempt."""
        assert self.tail is not None, "nothing has been attempted"
        self.adjoint, self.cost = self.tail.adjoint, self.tail.loss


class _OutputBlock:
    """The learned output layer: it has influence on the terminal loss alone.

    Args:
        problem: The learning problem.
        f: f(T), shape (n_local, samples).
        point: The loss there.
        layer: The output layer; None for the l2 loss.
    """

    def __init__(
        self, problem: LearningProblem, f: Array, point: LossPoint, layer: OutputLayer | None
    ) -> None:
        self.problem, self.f = problem, f
        self.point, self.layer = point, layer
        self._attempt = point, layer

    @property
    def cost(self) -> float:
        """The terminal loss."""
        return float(self.problem.sample_weights @ self.point.values)

    @property
    def slope(self) -> Array:
        """Its derivative."""
        return self._slope(self.point)

    def attempt(self, control: Array) -> float:
        """The terminal loss with the output layer of a control vector."""
        layer = self.problem.output_direction(self.problem.controls.split(control))
        self._attempt = self.problem.loss.at(self.f, layer), layer
        return float(self.problem.sample_weights @ self._attempt[0].values)

    def attempted_slope(self) -> Array:
        """Its derivative there."""
        return self._slope(self._attempt[0])

    def accept(self) -> None:
        """Keep the last attempt."""
        self.point, self.layer = self._attempt

    def _slope(self, point: LossPoint) -> Array:
        controls, space = self.problem.controls, self.problem.network.space
        assert point.functions is not None, "a loss with an output layer"
        functions = point.functions * space.sqrt_weights[space.owned]
        vector = controls.join(ControlParts(None, None, functions, point.offsets))
        return vector[controls.blocks["outputs"].start :]
