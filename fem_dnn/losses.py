"""Terminal losses ell_s(f_s(T)) with exact first and second derivatives (theory.md section 2).

`l2` compares the state with a target function. `mse`, `logistic` and `softmax` read it through an
output layer z_k = int_Y W_k f(T) dx + m_k, given or learned. A loss evaluated at a state is a
`LossPoint`, which knows the adjoint's terminal value and its derivative in any direction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logsumexp, softmax

from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OutputLayer:
    """The output layer, or a direction in which it changes.

    Attributes:
        functions: W_k at this rank's nodes, shape (K, n_local).
        offsets: m_k, shape (K,), the same on every rank.
    """

    functions: Array
    offsets: Array


@dataclass(frozen=True, eq=False)
class LossTangent:
    """Derivative of a loss point in a direction.

    Attributes:
        terminal: Derivative of grad ell_s, shape (n_local, samples).
        functions: Derivative of `LossPoint.functions` or None.
        offsets: Derivative of `LossPoint.offsets` or None.
    """

    terminal: Array
    functions: Array | None = None
    offsets: Array | None = None


class LossPoint(Protocol):
    """A loss at one state.

    Attributes:
        values: ell_s, shape (samples,), the same on every rank.
        terminal: p_s(T) = grad ell_s(f_s(T)), shape (n_local, samples).
        outputs: z, shape (K, samples), the same on every rank; None without an output layer.
        density: Values at this rank's nodes, shape (n_local, samples), that say where ell_s comes
            from: the integrand of l2; grad ell_s f_s for the losses of outputs.
        curvature: Second derivative of ell_s by its outputs, shape (K, K, samples); None without an
            output layer.
        functions, offsets: Derivatives per sample weight of sum_s w_s ell_s by W and m, shapes
            (K, n_local) and (K,); None for losses without output layer.
    """

    @property
    def values(self) -> Array: ...

    @property
    def terminal(self) -> Array: ...

    @property
    def outputs(self) -> Array | None: ...

    @property
    def density(self) -> Array: ...

    @property
    def curvature(self) -> Array | None: ...

    @property
    def functions(self) -> Array | None: ...

    @property
    def offsets(self) -> Array | None: ...

    def tangent(self, df: Array, layer: OutputLayer | None) -> LossTangent:
        """Derivative in the direction df, shape (n_local, samples), and that of the layer."""


class TerminalLoss(Protocol):
    """A family of losses ell_s, one per sample."""

    def at(self, f: Array, layer: OutputLayer | None) -> LossPoint:
        """The loss at the terminal states f, shape (n_local, samples)."""

    def of_samples(self, some: slice, weights: Array) -> TerminalLoss:
        """Those of some samples, with their weights w_s."""


@dataclass(eq=False)
class _L2Point:
    values: Array
    terminal: Array
    weight: float
    outputs: None = None
    curvature: None = None
    functions: None = None
    offsets: None = None

    @property
    def density(self) -> Array:
        if self.weight == 0:
            return np.zeros_like(self.terminal)
        return 0.5 / self.weight * self.terminal**2

    def tangent(self, df: Array, layer: OutputLayer | None) -> LossTangent:
        return LossTangent(self.weight * df)


@dataclass(frozen=True, eq=False)
class L2Loss:
    """ell_s = (weight / 2) int_Y (f_s(T) - g_s)^2 dx.

    Attributes:
        space: Width space.
        targets: g_s at this rank's nodes, shape (n_local, samples).
        weight: Factor on the loss.
    """

    space: WidthSpace
    targets: Array
    weight: float = 1.0

    def at(self, f: Array, layer: OutputLayer | None = None) -> _L2Point:
        """The loss at the terminal states."""
        difference = f - self.targets
        values = self.space.sum(self.space.local_weights @ (difference * difference))
        return _L2Point(0.5 * self.weight * values, self.weight * difference, self.weight)

    def of_samples(self, some: slice, weights: Array) -> L2Loss:
        """Those of some samples; weights do not enter here."""
        return replace(self, targets=np.ascontiguousarray(self.targets[:, some]))


# Pointwise losses of the outputs z, shape (K, samples), against their targets. Each returns the
# values (samples,), the gradient (K, samples) and the Hessian's action on dz.
PointwiseLoss = Callable[[Array, Array], tuple[Array, Array, Callable[[Array], Array]]]


def mse(z: Array, y: Array) -> tuple[Array, Array, Callable[[Array], Array]]:
    """|z - y|^2 / 2; targets y of shape (K, samples)."""
    return 0.5 * np.sum((z - y) ** 2, axis=0), z - y, lambda dz: dz


def logistic(z: Array, y: Array) -> tuple[Array, Array, Callable[[Array], Array]]:
    """log(1 + exp(-y z)); one output, targets y = +1 or -1 of shape (1, samples)."""
    p = expit(-y * z)
    return np.logaddexp(0, -y * z)[0], -y * p, lambda dz: p * (1 - p) * dz


def softmax_cross_entropy(z: Array, y: Array) -> tuple[Array, Array, Callable[[Array], Array]]:
    """log sum_k exp(z_k) - z_y; targets y are indicator columns of shape (K, samples)."""
    p = softmax(z, axis=0)
    values = logsumexp(z, axis=0) - np.sum(z * y, axis=0)
    return values, p - y, lambda dz: p * (dz - np.sum(p * dz, axis=0))


POINTWISE: dict[str, PointwiseLoss] = {
    "mse": mse,
    "logistic": logistic,
    "softmax": softmax_cross_entropy,
}
"""Losses of the outputs, by name."""


@dataclass(eq=False)
class _OutputPoint:
    loss: OutputLoss
    layer: OutputLayer
    f: Array
    values: Array
    gradient: Array  # of the pointwise loss, (K, samples), times the weight
    hessian: Callable[[Array], Array]
    outputs: Array

    @property
    def terminal(self) -> Array:
        return self.layer.functions.T @ self.gradient

    @property
    def density(self) -> Array:
        return self.terminal * self.f

    @property
    def curvature(self) -> Array:
        units = np.eye(len(self.outputs))[:, :, None] * np.ones(self.outputs.shape[1])
        return self.loss.weight * np.stack([self.hessian(unit) for unit in units])

    @property
    def functions(self) -> Array:
        return (self.gradient * self.loss.sample_weights) @ self.f.T

    @property
    def offsets(self) -> Array:
        return self.gradient @ self.loss.sample_weights

    def tangent(self, df: Array, layer: OutputLayer | None) -> LossTangent:
        dz = self.loss.project(self.layer.functions, df)
        if layer is not None:
            dz += self.loss.project(layer.functions, self.f) + layer.offsets[:, None]
        dg = self.loss.weight * self.hessian(dz)
        terminal = self.layer.functions.T @ dg
        if layer is None:
            return LossTangent(terminal)
        w = self.loss.sample_weights
        return LossTangent(
            terminal + layer.functions.T @ self.gradient,
            (dg * w) @ self.f.T + (self.gradient * w) @ df.T,
            dg @ w,
        )


@dataclass(frozen=True, eq=False)
class OutputLoss:
    """A loss of the outputs z_k = int_Y W_k f(T) dx + m_k.

    Attributes:
        space: Width space.
        pointwise: mse, logistic or softmax_cross_entropy.
        targets: Shape (K, samples), see the pointwise losses.
        sample_weights: w_s, shape (samples,).
        weight: Factor on the loss.
    """

    space: WidthSpace
    pointwise: PointwiseLoss
    targets: Array
    sample_weights: Array
    weight: float = 1.0

    def project(self, functions: Array, f: Array) -> Array:
        """int_Y W_k f_s dx, shape (K, samples), the same on every rank."""
        return self.space.sum((functions * self.space.local_weights) @ f)

    def at(self, f: Array, layer: OutputLayer | None) -> _OutputPoint:
        """The loss at the terminal states, through the output layer."""
        if layer is None:
            raise ValueError("this loss needs an output layer")
        z = self.project(layer.functions, f) + layer.offsets[:, None]
        values, gradient, hessian = self.pointwise(z, self.targets)
        return _OutputPoint(
            self, layer, f, self.weight * values, self.weight * gradient, hessian, z
        )

    def of_samples(self, some: slice, weights: Array) -> OutputLoss:
        """Those of some samples, with their weights w_s."""
        return replace(self, targets=self.targets[:, some], sample_weights=weights)
