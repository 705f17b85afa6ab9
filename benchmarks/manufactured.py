"""A learning problem with a known optimum: nonlinear, any number of samples, any domain.

Choose trajectories f_s(x, t) with |d_t f_s| < 1. With u_s = atanh(d_t f_s), the Gram matrix
K_ss' = (f_s, f_s') / lambda_a + 1 / lambda_b and q = K^-1 u (theory.md sections 3 and 6), the
controls

    a = sum_s q_s(x) f_s(y) / lambda_a,     b = sum_s q_s / lambda_b

carry every f_s along, for sigma = tanh. They are stationary where q_s + w_s sigma'(u_s) p_s = 0:
that chooses the adjoint p_s, and the adjoint equation then chooses the data: the terminal target
f_s(T) - p_s(T) of the `l2` loss and the tracking targets f_s - r_s / mu with

    r_s = -d_t p_s - K'(sigma'(u_s) p_s).

With a detour delta_s added to p_s the same controls are not stationary; their gradient is
sum_s w_s sigma'(u_s) delta_s (x) f_s in the kernel and sum_s w_s sigma'(u_s) delta_s in the bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Quadrature
from fem_dnn.activations import ACTIVATIONS
from fem_dnn.controls import ControlSpace, ControlValues
from fem_dnn.depth import SCHEMES, DepthLevels
from fem_dnn.losses import L2Loss
from fem_dnn.network import Network
from fem_dnn.problem import LearningProblem
from fem_dnn.regularization import Regularization
from fem_dnn.tracking import Tracking
from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]

DEPTH = 1.0
LAMBDA_A, LAMBDA_B, MU = 0.2, 0.2, 1.0
SAMPLE_WEIGHTS = np.array([0.7, 0.4])


@dataclass(frozen=True, eq=False)
class Fields:
    """The exact solution at one depth: functions at points, shape (samples, points).

    Attributes:
        f, p: State and adjoint.
        q: Gram coordinates of the controls.
        slope: sigma'(u).
        transposed: K'(sigma'(u) p).
        residual: r = mu (f - g), from the continuous adjoint equation.
        detour: delta.
    """

    f: Array
    p: Array
    q: Array
    slope: Array
    transposed: Array
    residual: Array
    detour: Array

    @property
    def bias(self) -> Array:
        """b, shape (points,)."""
        return self.q.sum(axis=0) / LAMBDA_B

    def kernel(self, y: Fields | None = None) -> Array:
        """a(x, y), shape (points of x, points of y)."""
        return self.q.T @ (y or self).f / LAMBDA_A

    @property
    def bias_gradient(self) -> Array:
        """sum_s w_s sigma'(u_s) delta_s, shape (points,)."""
        return SAMPLE_WEIGHTS @ (self.slope * self.detour)

    @property
    def kernel_gradient(self) -> Array:
        """sum_s w_s sigma'(u_s) delta_s (x) f_s, shape (points, points)."""
        return (SAMPLE_WEIGHTS[:, None] * self.slope * self.detour).T @ self.f


@dataclass(frozen=True, eq=False)
class Manufactured:
    """The exact solution.

    Attributes:
        measure: The quadrature that stands for the integral over Y.
        linear: Whether the trajectories are straight: then dg1 and dg2 follow them exactly.
        detour: Size of delta; 0: the controls are optimal.
    """

    measure: Quadrature
    linear: bool
    detour: float = 0.0

    def _motion(self, t: float) -> tuple[float, float, float]:
        """zeta, zeta', zeta'' of f = phi + zeta(t) chi."""
        if self.linear:
            return t, 1.0, 0.0
        r = 1.3
        return np.sin(r * t), r * np.cos(r * t), -r * r * np.sin(r * t)

    def at(self, t: float, x: Array) -> Fields:
        """The exact solution at depth t and points x, shape (points, d)."""
        zeta, d_zeta, dd_zeta = self._motion(t)

        def trajectories(x: Array) -> tuple[Array, Array, Array]:
            phi, chi = _shapes(x)
            return phi + zeta * chi, d_zeta * chi, dd_zeta * chi

        def gram(f: Array, g: Array) -> Array:
            return (f * self.measure.weights) @ g.T

        w = SAMPLE_WEIGHTS[:, None]
        f_y, df_y, _ = trajectories(self.measure.points)
        K = gram(f_y, f_y) / LAMBDA_A + 1 / LAMBDA_B
        d_K = (gram(df_y, f_y) + gram(f_y, df_y)) / LAMBDA_A

        def adjoint(x: Array) -> tuple[Array, ...]:
            f, df, ddf = trajectories(x)
            slope, d_slope = 1 - df**2, -2 * df * ddf
            q = np.linalg.solve(K, np.arctanh(df))
            d_q = np.linalg.solve(K, ddf / slope - d_K @ q)
            delta, d_delta = self._detour(t, x)
            p = delta - q / (w * slope)
            d_p = d_delta - d_q / (w * slope) + q * d_slope / (w * slope**2)
            return f, q, slope, p, d_p, delta

        _, q_y, slope_y, p_y, *_ = adjoint(self.measure.points)
        products = gram(slope_y * p_y, q_y) / LAMBDA_A
        f, q, slope, p, d_p, delta = adjoint(x)
        transposed = products @ f
        return Fields(f, p, q, slope, transposed, -d_p - transposed, delta)

    def _detour(self, t: float, x: Array) -> tuple[Array, Array]:
        """delta and its derivative in t; straight where the trajectories are."""
        first, last = x[:, 0], x[:, -1]
        shape = self.detour * np.stack([np.exp(first - last / 2), np.sin(2 * last + first)])
        growth, rate = (1 + t, 1.0) if self.linear else (np.exp(-t), -np.exp(-t))
        return growth * shape, rate * shape

    def residuals(self, levels: DepthLevels, x: Array) -> Array:
        """r at the tracking points, shape (points in depth, samples, points).

        For straight trajectories: those with which the depth scheme's own adjoint is p at the
        levels, so that nothing is left but the error in width. On a slab the scheme says

            P = p_{n+1} + tau A* (K'q + r),   p_n = the trace at t_n of the polynomial through P.
        """
        if not self.linear:
            return np.stack([self.at(t, x).residual for t in levels.tracking_t])
        scheme = levels.scheme
        to_start = np.linalg.solve(scheme.adjoint_stages.T, scheme.weights)
        end = self.at(levels.points[-1], x).p
        result = np.empty((levels.count, *end.shape))
        for n in reversed(range(levels.layers)):
            fields = [self.at(levels.t[k], x) for k in levels.of_slab(n)]
            change = np.stack([at.p - end for at in fields])
            for k, at in zip(levels.of_slab(n), fields, strict=True):
                result[k] = -at.transposed
            rates = np.einsum("ki,i...->k...", np.linalg.inv(scheme.adjoint_stages), change)
            result[levels.of_slab(n)] += rates / levels.steps[n]
            end = end + np.einsum("i,i...->...", to_start, change)
        return result

    def objective(self, levels: DepthLevels) -> float:
        """J; for straight trajectories by the levels' quadrature in depth, else by a far finer."""
        measure = self.measure
        if self.linear:
            fine, r = levels, self.residuals(levels, measure.points)
        else:
            fine = DepthLevels(SCHEMES["dg2"], DEPTH * np.linspace(0, 1, 41))
            r = self.residuals(fine, measure.points)
        J = 0.5 * SAMPLE_WEIGHTS @ self.at(DEPTH, measure.points).p ** 2 @ measure.weights
        for t, omega, r_t in zip(fine.t, fine.weights, r, strict=True):
            at = self.at(t, measure.points)
            cost = 0.5 / MU * SAMPLE_WEIGHTS @ r_t**2 @ measure.weights
            cost += 0.5 * LAMBDA_B * at.bias**2 @ measure.weights
            products = [(g * measure.weights) @ g.T for g in (at.q, at.f)]
            cost += 0.5 / LAMBDA_A * np.sum(products[0] * products[1])
            J += omega * cost
        return float(J)

    def problem(self, space: WidthSpace, levels: DepthLevels) -> LearningProblem:
        """The discrete learning problem with the data that belong to the exact solution."""
        x = space.nodes
        last = self.at(DEPTH, x)
        followed = np.stack([self.at(t, x).f for t in levels.tracking_t])
        targets = followed - self.residuals(levels, x) / MU
        controls = ControlSpace(space, levels)

        def local(values: Array) -> Array:
            return np.ascontiguousarray(np.swapaxes(space.from_file_order(values), -1, -2))

        return LearningProblem(
            Network(space, levels, ACTIVATIONS["tanh"]),
            controls,
            local(self.at(0.0, x).f),
            SAMPLE_WEIGHTS,
            L2Loss(space, local(last.f - last.p)),
            Regularization(controls, LAMBDA_A, LAMBDA_B),
            Tracking(MU, local(targets)),
        )

    def control(self, problem: LearningProblem) -> Array:
        """The exact controls at the levels and nodes, as the problem's vector."""
        space, levels = problem.network.space, problem.network.levels
        at = [self.at(t, space.nodes) for t in levels.t]
        values = ControlValues(np.stack([a.kernel() for a in at]), np.stack([a.bias for a in at]))
        return problem.controls.coordinates(values)


def _shapes(x: Array) -> tuple[Array, Array]:
    """phi_s and chi_s of f_s = phi_s + zeta(t) chi_s, shape (samples, points)."""
    first, last = x[:, 0], x[:, -1]
    phi = np.stack([1 + 0.4 * np.sin(2 * first + last), 1.1 * np.cos(3 * first - last)])
    chi = np.stack([0.5 * np.cos(first + last), 0.3 * np.sin(2 * first - last) - 0.2])
    return phi, chi


def direction(t: float, x: Array) -> tuple[Array, Array, Array]:
    """A smooth direction: kernel left(x) right(y), bias left(x); left, right and that bias."""
    first, last = x[:, 0], x[:, -1]
    left = (1 + t) * np.cos(2 * first + last)
    return left, np.exp(-first) + last, left
