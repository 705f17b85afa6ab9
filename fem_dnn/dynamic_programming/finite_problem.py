"""The learning problem as one of optimal control in R^(S N): dynamics and costs of many states.

States f have shape (S, N, M): samples, nodes in file order, M states at once. As a point of the
state grid a state is y = f.reshape(S N, M), nodes fastest. The gradient on the grid and the L2(Y)
gradient differ by the node weights: (D_{f_s} V)(x_i) = (dV/dy_si) / h_i, and that is w_s p_s(x_i).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from fem_dnn.activations import Activation
from fem_dnn.assembly import Model
from fem_dnn.dynamic_programming.controls import (
    Controls,
    DirectControls,
    MultiplierControls,
    Trained,
)
from fem_dnn.losses import L2Loss, OutputLoss

Array = NDArray[np.float64]


class InDepth:
    """A function of depth, known at some depths: between them the cubics that do not overshoot.

    Args:
        t: Ascending depths, shape (L,).
        values: Shape (L or 1, ...); one value: constant.
    """

    def __init__(self, t: Array, values: Array) -> None:
        varies = len(values) > 1 and bool(np.any(values != values[0]))
        self._constant = np.asarray(values[0])
        self._varying = PchipInterpolator(t, values, axis=0) if varies else None

    def at(self, t: float) -> Array:
        """The value at a depth."""
        return self._constant if self._varying is None else np.asarray(self._varying(t))


@dataclass(frozen=True, eq=False)
class FiniteProblem:
    """Dynamics and costs.

    Attributes:
        activation: sigma.
        node_weights: h, shape (N,).
        sample_weights: w, shape (S,).
        inputs: f_I, shape (S, N).
        depth: T.
        controls: The controls that the minimum is taken over.
        terminal: sum_s w_s ell_s of states (S, N, M), shape (M,).
        prices: lambda_a and lambda_b, which given controls pay too.
        given_kernel, given_bias: [x, y] and [x] where they are not trained; None: absent.
        tracking: mu and g_s, shape (..., S, N); None: nothing is tracked.
    """

    activation: Activation
    node_weights: Array
    sample_weights: Array
    inputs: Array
    depth: float
    controls: Controls
    terminal: Callable[[Array], Array]
    prices: tuple[float, float]
    given_kernel: InDepth | None = None
    given_bias: InDepth | None = None
    tracking: tuple[float, InDepth] | None = None

    @classmethod
    def of(cls, model: Model) -> FiniteProblem:
        """The problem of a model that lives on one rank.

        The trained controls have positive weights, no output is learned, and nothing else than
        controls is penalised; there is one sample or one node.
        """
        problem, ingredients, case = model.problem, model.ingredients, model.case
        assert problem is not None and model.comm.size == 1
        space, levels, strength = model.network.space, model.network.levels, case.regularization
        bounds = problem.controls.bounded
        free = (-np.inf, np.inf)
        trained = Trained(
            space.node_weights,
            strength.kernel if problem.controls.has_kernel else None,
            strength.bias if problem.controls.has_bias else None,
            ingredients.mask,
            bounds.get("kernel", free),
            bounds.get("bias", free),
        )
        inputs = ingredients.train.inputs
        controls = MultiplierControls if len(inputs) == 1 else DirectControls
        kernel, bias, tracking = ingredients.kernel, ingredients.bias, None
        if kernel is not None and ingredients.mask is not None:
            kernel = kernel * ingredients.mask
        if ingredients.tracking is not None:
            followed = InDepth(levels.tracking_t, ingredients.tracking)
            tracking = (case.loss.tracking, followed)
        return cls(
            model.network.activation,
            space.node_weights,
            ingredients.weights,
            inputs,
            float(levels.points[-1]),
            controls(trained),
            _terminal(model),
            (strength.kernel, strength.bias),
            None if kernel is None else InDepth(levels.t, kernel),
            None if bias is None else InDepth(levels.t, bias),
            tracking,
        )

    def states(self, y: Array) -> Array:
        """States (S, N, M) of grid points y (S N, M)."""
        return y.reshape(*self.inputs.shape, -1)

    def rows(self, z: Array, f: Array, t: float) -> tuple[Array | None, Array | None]:
        """Kernel (N, N, M) and bias (N, M): those that z names at the states f, or given at t."""
        a, b = self.controls.rows(z, f)
        if self.given_kernel is not None:
            a = self.given_kernel.at(t)[:, :, None]
        if self.given_bias is not None:
            b = self.given_bias.at(t)[:, None]
        return a, b

    def preactivation(self, f: Array, a: Array | None, b: Array | None) -> Array:
        """u = sum_y h a f + b, of shape (S, N, M)."""
        if a is None:
            u: Array = np.zeros_like(f)
        else:
            u = np.einsum("xym,sym->sxm", a, self.node_weights[:, None] * f)
        return u if b is None else u + b

    def flow(
        self, f: Array, a: Array | None, b: Array | None, t: float, tau: float
    ) -> tuple[Array, Array]:
        """States (S, N, M) after a time tau under constant controls, and the cost on the way (M,).

        The explicit midpoint rule, of order 2 (exact without a kernel); what is tracked is
        integrated by Simpson's rule.
        """
        slope = self.activation(self.preactivation(f, a, b))
        if a is not None:
            slope = self.activation(self.preactivation(f + 0.5 * tau * slope, a, b))
        end = f + tau * slope
        cost: Array = np.zeros(f.shape[2])
        if a is not None:
            squares = np.einsum("x,y,xym->m", self.node_weights, self.node_weights, a * a)
            cost = cost + 0.5 * self.prices[0] * tau * squares
        if b is not None:
            cost = cost + 0.5 * self.prices[1] * tau * (self.node_weights @ (b * b))
        if self.tracking is not None:
            for part, place in ((1 / 6, 0.0), (4 / 6, 0.5), (1 / 6, 1.0)):
                at = f + place * tau * slope
                cost = cost + part * tau * self._tracking_cost(at, t + place * tau)
        return end, cost

    def _tracking_cost(self, f: Array, t: float) -> Array:
        assert self.tracking is not None
        weight, targets = self.tracking
        misfit = f - targets.at(t)[:, :, None]
        misfit *= misfit
        cost: Array = (
            0.5 * weight * np.einsum("s,x,sxm->m", self.sample_weights, self.node_weights, misfit)
        )
        return cost


def _terminal(model: Model) -> Callable[[Array], Array]:
    """sum_s w_s ell_s by the problem's own loss, which takes the M states for as many samples."""
    problem = model.problem
    assert problem is not None
    space, loss, layer = model.network.space, problem.loss, problem.given_outputs
    assert isinstance(loss, L2Loss | OutputLoss)
    weights = model.ingredients.weights
    of_sample = [replace(loss, targets=loss.targets[:, s : s + 1]) for s in range(len(weights))]

    def terminal(f: Array) -> Array:
        total = np.zeros(f.shape[2])
        for s, ell in enumerate(of_sample):
            total += weights[s] * ell.at(space.from_file_order(f[s], axis=0), layer).values
        return total

    return terminal
