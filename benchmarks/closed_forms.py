"""The exact cases of theory.md section 9 as references for any measure on Y, and any domain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm

from benchmarks.measure import Quadrature
from fem_dnn.activations import ACTIVATIONS
from fem_dnn.controls import ControlSpace, ControlValues
from fem_dnn.depth import DepthLevels
from fem_dnn.losses import L2Loss
from fem_dnn.network import Network
from fem_dnn.problem import LearningProblem
from fem_dnn.regularization import Regularization
from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]

DEPTH = 1.0


def local(space: WidthSpace, values: Array) -> Array:
    """(samples, nodes) in file order -> (n_local, samples)."""
    return np.ascontiguousarray(space.from_file_order(values).T)


def _problem(
    space: WidthSpace,
    levels: DepthLevels,
    activation: str,
    data: tuple[Array, Array, Array],
    controls: ControlSpace,
    weights: tuple[float, float],
) -> LearningProblem:
    """The l2 problem; `data` are inputs and targets, (samples, nodes), and sample weights."""
    inputs, targets, sample_weights = data
    return LearningProblem(
        Network(space, levels, ACTIVATIONS[activation]),
        controls,
        local(space, inputs),
        sample_weights,
        L2Loss(space, local(space, targets)),
        Regularization(controls, *weights),
    )


@dataclass(frozen=True, eq=False)
class RankOneFields:
    """Case 1 at one depth; functions at points, shape (samples, points)."""

    f: Array
    p: Array
    slope: Array
    psi: Array
    sample_weights: Array
    case: RankOne

    @property
    def bias(self) -> Array:
        """b, shape (points,)."""
        return np.full(self.f.shape[1], self.case.b)

    def kernel(self) -> Array:
        """a(x, y) = alpha psi(y)."""
        return self.case.alpha * np.tile(self.psi, (len(self.psi), 1))

    @property
    def bias_gradient(self) -> Array:
        """lambda_b b + sum_s w_s sigma'(u_s) p_s."""
        return self.case.lambda_b * self.bias + self.sample_weights @ (self.slope * self.p)

    @property
    def kernel_gradient(self) -> Array:
        """lambda_a a + sum_s w_s sigma'(u_s) p_s (x) f_s."""
        q = self.sample_weights[:, None] * self.slope * self.p
        return self.case.lambda_a * self.kernel() + q.T @ self.f


@dataclass(frozen=True, eq=False)
class RankOne:
    """Case 1, tanh: a = alpha psi(y), constant bias; state, adjoint and gradient in closed form.

    With alpha = strength / |Y|, m = (psi, f), c = (psi, 1), u = alpha m + b and n = (1, p):

        u(t) = asinh(sinh(u_0) e^(alpha c t)),       f = f_I + (m - m_0) / c,
        n(t) = n(T) tanh u(T) / tanh u(t),           p = p(T) + psi (n - n(T)) / c,

    as n' = -alpha c sigma'(u) n and u' = alpha c tanh u, so that (u')' = alpha c sigma'(u) u'.

    Attributes:
        measure: The quadrature that stands for the integral over Y.
    """

    measure: Quadrature
    strength: float = 1.3
    b: float = -0.2
    lambda_a: float = 0.2
    lambda_b: float = 0.3
    linear: bool = False

    sample_weights = np.array([0.7, 0.4])

    @property
    def alpha(self) -> float:
        """strength / |Y|."""
        return self.strength / float(self.measure.weights.sum())

    def _data(self, x: Array) -> tuple[Array, Array, Array]:
        """f_I, g and psi."""
        first, last = x[:, 0], x[:, -1]
        inputs = np.stack([0.8 + first / 2, 1.2 + np.sin(2 * last)])
        targets = np.stack([0.3 * np.cos(first), 1 - last])
        return inputs, targets, np.exp(-first / 3) * (1 + last / 4)

    def at(self, t: float, x: Array) -> RankOneFields:
        """The exact solution at depth t and points x."""
        inputs, targets, psi = self._data(x)
        weights = self.measure.weights
        y_inputs, y_targets, y_psi = self._data(self.measure.points)
        c = float(y_psi @ weights)
        u_0 = self.alpha * y_inputs @ (weights * y_psi) + self.b

        def u(t: float) -> Array:
            return np.arcsinh(np.sinh(u_0) * np.exp(self.alpha * c * t))

        def moved(t: float) -> Array:
            return (u(t) - u_0)[:, None] / (self.alpha * c)

        last = (y_inputs + moved(DEPTH) - y_targets) @ weights
        n = last * np.tanh(u(DEPTH)) / np.tanh(u(t))
        p = inputs + moved(DEPTH) - targets + np.outer((n - last) / c, psi)
        slope = np.broadcast_to(1 - np.tanh(u(t))[:, None] ** 2, p.shape)
        return RankOneFields(inputs + moved(t), p, slope, psi, self.sample_weights, self)

    def objective(self, levels: DepthLevels) -> float:
        """J: the controls are constant in depth, so their cost is, too."""
        weights, at = self.measure.weights, self.at(DEPTH, self.measure.points)
        kernel = self.alpha**2 * weights.sum() * (at.psi**2 @ weights)
        cost = self.lambda_a * kernel + self.lambda_b * self.b**2 * weights.sum()
        return float(0.5 * self.sample_weights @ at.p**2 @ weights + 0.5 * DEPTH * cost)

    def problem(self, space: WidthSpace, levels: DepthLevels) -> LearningProblem:
        """The discrete problem."""
        inputs, targets, _ = self._data(space.nodes)
        data = inputs, targets, self.sample_weights
        controls = ControlSpace(space, levels)
        return _problem(space, levels, "tanh", data, controls, (self.lambda_a, self.lambda_b))

    def control(self, problem: LearningProblem) -> Array:
        """The given kernel and bias."""
        space, levels = problem.network.space, problem.network.levels
        at = self.at(0.0, space.nodes)
        kernel = np.broadcast_to(at.kernel(), (levels.count, space.n_nodes, space.n_nodes))
        bias = np.broadcast_to(at.bias, (levels.count, space.n_nodes))
        return problem.controls.coordinates(ControlValues(kernel, bias))


class ConstantOperator:
    """Case 4: linear activation, a(t) = e^{tW} a_0 e^{-tW}, W = a_0 - a_0'.

    Args:
        measure: The quadrature that stands for the integral over Y; a_0 is a random matrix in
            coordinates orthonormal in it.
    """

    def __init__(self, measure: Quadrature) -> None:
        rng = np.random.default_rng(7)
        self.root = np.sqrt(measure.weights)
        N = len(self.root)
        self.a_0 = 1.4 * rng.standard_normal((N, N)) / np.sqrt(N)
        self.inputs = rng.standard_normal((2, N))

    def kernel(self, t: float) -> Array:
        """a(x, y, t)."""
        Q = expm(t * (self.a_0 - self.a_0.T))
        return Q @ self.a_0 @ Q.T / np.outer(self.root, self.root)

    def state(self, t: float) -> Array:
        """f(t) = e^{tW} e^{t a_0'} f_I, shape (samples, points)."""
        carry = expm(t * (self.a_0 - self.a_0.T)) @ expm(t * self.a_0.T)
        return (self.inputs * self.root) @ carry.T / self.root


@dataclass(frozen=True, eq=False)
class BiasOnly:
    """Cases 2 and 3, tanh: all samples move by the same shift T tanh(B), B constant in depth.

    With d = sum_s w_s (g_s - f_{I,s}), sum_s w_s = 1, the optimal B solves, point by point,
    (T tanh B - d) / cosh^2 B + lambda_b B = 0, and

        J = int (T tanh B - d)^2 / 2 + lambda_b T B^2 / 2 + (weighted variance of d_s) / 2 dx.
    """

    lambda_b: float = 0.1
    depth: float = 1.5

    sample_weights = np.array([0.5, 0.2, 0.3])

    def differences(self, x: Array) -> Array:
        """d_s, shape (samples, points)."""
        first, last = x[:, 0], x[:, -1]
        return np.stack(
            [0.9 + 0.2 * np.sin(3 * first), 0.3 * np.exp(last), 0.6 - first / 2 + last**2 / 4]
        )

    def inputs(self, x: Array) -> Array:
        """f_{I,s}."""
        return np.stack([np.cos(x[:, 0]), x[:, -1], x[:, 0] ** 2])

    def bias(self, x: Array) -> Array:
        """B, by Newton's method from a start on the right side of the root."""
        d = self.sample_weights @ self.differences(x)
        B = np.zeros_like(d)
        for _ in range(60):
            s = np.tanh(B)
            slope = 1 - s**2
            value = (self.depth * s - d) * slope + self.lambda_b * B
            derivative = self.depth * slope**2 - 2 * (self.depth * s - d) * s * slope
            B = B - value / (derivative + self.lambda_b)
        return B

    def objective(self, measure: Quadrature) -> float:
        """J."""
        each, B = self.differences(measure.points), self.bias(measure.points)
        d = self.sample_weights @ each
        variance = self.sample_weights @ (each - d) ** 2
        misfit = (self.depth * np.tanh(B) - d) ** 2
        density = misfit + self.lambda_b * self.depth * B**2 + variance
        return float(0.5 * density @ measure.weights)

    def problem(self, space: WidthSpace, levels: DepthLevels) -> LearningProblem:
        """The discrete problem, with a bias and no kernel."""
        x = space.nodes
        data = self.inputs(x), self.inputs(x) + self.differences(x), self.sample_weights
        controls = ControlSpace(space, levels, kernel=False)
        return _problem(space, levels, "tanh", data, controls, (0.0, self.lambda_b))
