"""Depth schemes: discontinuous Galerkin in depth, written as Runge-Kutta tableaus.

With a nodal basis at the q + 1 Gauss-Legendre points of a slab and the nonlinear term integrated
at these points, the weak form of theory.md section 1 reads on a slab of thickness tau

    G F = e f(t_n^-) + tau W sigma(U),   G_ij = (phi_i, phi_j') + e_i e_j,  e_i = phi_i(0).

As G 1 = e, this is the Runge-Kutta method with stages at the Gauss points

    F_i = f(t_n^-) + tau sum_j A_ij sigma(U_j),     A = G^{-1} W,
    f(t_{n+1}^-) = f(t_n^-) + tau sum_j w_j sigma(U_j)           (test with v = 1).

`resnet` is the explicit Euler method, A = 0. One sweep therefore serves every scheme; so does its
discrete adjoint, whose tableau is A*_ik = w_k A_ki / w_i (for dg the same method run backwards).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DepthScheme:
    """One-step scheme on the reference slab (0, 1).

    Attributes:
        name: resnet | dg0 | dg1 | dg2.
        points: Control levels c_i in the slab, shape (levels,).
        weights: Their quadrature weights w_i, shape (levels,).
        stages: A, shape (levels, levels).
        tracking_points: Where the tracking term is evaluated, shape (points,).
        tracking_weights: Their quadrature weights, shape (points,).
        tracking_stages: B, with f(tracking point k) = f(t_n^-) + tau sum_j B_kj sigma(U_j).
        order: Order at the slab ends.
    """

    name: str
    points: Array
    weights: Array
    stages: Array
    tracking_points: Array
    tracking_weights: Array
    tracking_stages: Array
    order: int

    @property
    def levels(self) -> int:
        """Control levels per slab."""
        return len(self.points)

    @cached_property
    def explicit(self) -> bool:
        """Whether the stages need no solve."""
        return not self.stages.any()

    @cached_property
    def adjoint_stages(self) -> Array:
        """Tableau of the discrete adjoint, A*_ik = w_k A_ki / w_i."""
        return self.stages.T * self.weights[None, :] / self.weights[:, None]

    @cached_property
    def adjoint_tracking(self) -> Array:
        """What the tracking points feed to the adjoint's levels, B*_ik = omega_k B_ki / w_i."""
        fed = (self.tracking_weights[:, None] * self.tracking_stages).T
        return np.asarray(fed / self.weights[:, None], np.float64)

    @cached_property
    def extrapolation(self) -> Array:
        """E_ij: values at the next slab's levels (of equal thickness) of the slab's polynomial."""
        return np.stack([phi(1 + self.points) for phi in lagrange_basis(self.points)], axis=1)


def gauss_legendre(n: int) -> tuple[Array, Array]:
    """Points and weights of the n-point Gauss-Legendre rule on (0, 1)."""
    x, w = np.polynomial.legendre.leggauss(n)
    return (1 + x) / 2, w / 2


def lagrange_basis(points: Array) -> list[Polynomial]:
    """Lagrange polynomials of the given points."""
    basis = []
    for i, point in enumerate(points):
        others = np.delete(points, i)
        numerator = Polynomial.fromroots(others) if len(others) else Polynomial([1.0])
        basis.append(numerator / numerator(point))
    return basis


def dg_time_matrix(degree: int) -> Array:
    """G_ij = int_0^1 phi_i phi_j' dt + phi_i(0) phi_j(0) for the nodal basis at Gauss points."""
    points, weights = gauss_legendre(degree + 1)
    basis = lagrange_basis(points)
    derivative: Array = np.stack([phi.deriv()(points) for phi in basis], axis=1)
    at_start: Array = np.array([phi(0.0) for phi in basis])
    return weights[:, None] * derivative + np.outer(at_start, at_start)


def _dg(degree: int) -> DepthScheme:
    points, weights = gauss_legendre(degree + 1)
    stages = np.asarray(np.linalg.solve(dg_time_matrix(degree), np.diag(weights)), np.float64)
    return DepthScheme(
        f"dg{degree}", points, weights, stages, points, weights, stages, 2 * degree + 1
    )


def _resnet() -> DepthScheme:
    midpoint, weight = gauss_legendre(1)
    start, no_stage = np.zeros(1), np.zeros((1, 1))
    # Tracking reads the piecewise-linear interpolant of the slab ends at the Gauss point.
    halfway = np.array([[midpoint[0]]])
    return DepthScheme("resnet", start, weight, no_stage, midpoint, weight, halfway, 1)


SCHEMES: dict[str, DepthScheme] = {
    scheme.name: scheme for scheme in (_resnet(), _dg(0), _dg(1), _dg(2))
}
"""The depth schemes by name."""


def richer(scheme: DepthScheme) -> DepthScheme:
    """The discontinuous Galerkin scheme of the next degree: what a scheme's error is seen with."""
    return _dg(scheme.levels)


@dataclass(frozen=True, eq=False)
class DepthLevels:
    """The scheme placed on the slabs of a depth mesh.

    Attributes:
        scheme: Scheme on the reference slab.
        points: Slab ends t_n, shape (layers + 1,).
    """

    scheme: DepthScheme
    points: Array

    @cached_property
    def steps(self) -> Array:
        """Slab thicknesses, shape (layers,)."""
        return np.diff(self.points)

    @property
    def layers(self) -> int:
        """Number of slabs."""
        return len(self.points) - 1

    @property
    def count(self) -> int:
        """Number of control levels."""
        return self.layers * self.scheme.levels

    @cached_property
    def t(self) -> Array:
        """Depths of the control levels, shape (count,)."""
        return (self.points[:-1, None] + self.steps[:, None] * self.scheme.points).ravel()

    @cached_property
    def weights(self) -> Array:
        """Quadrature weights tau_n w_i of the control levels, shape (count,)."""
        return (self.steps[:, None] * self.scheme.weights).ravel()

    @cached_property
    def tracking_t(self) -> Array:
        """Depths at which the tracking term is evaluated, shape (layers * points,)."""
        inside = self.steps[:, None] * self.scheme.tracking_points
        return (self.points[:-1, None] + inside).ravel()

    def of_slab(self, n: int) -> range:
        """The control levels of slab n."""
        return range(n * self.scheme.levels, (n + 1) * self.scheme.levels)
