"""The equations that a gradient, a Hessian product and a step need, on one stretch of the depth.

They are written in `problem`; arrays are in L2-orthonormal coordinates, sqrt(h) f and so on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fem_dnn.gram.form import products, symmetric
from fem_dnn.gram.march import march, march_back
from fem_dnn.gram.stretch import Blockwise, Stretch

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Direction:
    """sqrt(omega h) dq = z T on a stretch.

    Attributes:
        z: Shape (levels, n_local, S).
        T: Shape (levels, S, S), symmetric; None: 1.
    """

    z: Array
    T: Array | None

    def at(self, part: slice, rows: slice) -> Array:
        """It at some levels and nodes."""
        z = self.z[part, rows]
        return z if self.T is None else np.asarray(z @ self.T[part])

    def before(self, part: slice, A: Array) -> Array:
        """T A: z T A is the product of `at` with A."""
        return A if self.T is None else np.asarray(self.T[part] @ A)

    def after(self, part: slice, A: Array) -> Array:
        """A T: with it products with A become those by z."""
        return A if self.T is None else np.asarray(A @ self.T[part])


@dataclass(eq=False)
class Tangent:
    """The derivative of the state on a stretch.

    Attributes:
        ends: sqrt(h) df at the slab ends.
        stages: The same at the levels.
        u: sqrt(h) du there.
        cross: <df_s, f_s'> there, shape (levels, S, S).
    """

    ends: Array
    stages: Array
    u: Array
    cross: Array


def solve_tangent(
    stretch: Stretch,
    direction: Direction,
    start: Array,
    tracked: Array,
    cross: Array | None = None,
) -> Tangent:
    """Solve d_t df = sigma'(u)(K dq + dK q), dK = (<df, f> + <f, df>) / lambda_a.

    Args:
        stretch: The stretch of the depth.
        direction: dq.
        start: sqrt(h) df where it starts.
        tracked: Filled with sqrt(h) df at the tracking points, or empty.
        cross: <df_s, f_s'> where it is known.
    """
    flow = _TangentFlow(stretch, direction, stretch.room("du"))
    ends, stages = stretch.room_for_ends("tangent")
    ends[0] = start
    return Tangent(ends, stages, flow.du, march(stretch.form, flow, ends, stages, tracked, cross))


class _TangentFlow:
    keeps = False

    def __init__(self, stretch: Stretch, direction: Direction, du: Array) -> None:
        self.stretch, self.direction, self.du, self.state = stretch, direction, du, stretch.state

    def meet(self, part: slice, *, solved: bool) -> Callable[[slice, Array], Array]:
        f = self.state.stages
        return lambda rows, dF: products(dF, f[part, rows])

    def slopes(self, part: slice, M: Array) -> Blockwise:
        stretch, form, direction = self.stretch, self.stretch.form, self.direction
        K = direction.before(part, form.K(stretch.gram[part]) / form.root_omega[part])
        dK = form.kernel * symmetric(M) / form.root_omega[part]
        q, du, slope = stretch.coordinates, self.du, self.state.slope

        def at(rows: slice) -> Array:
            change = direction.z[part, rows] @ K
            change += q[part, rows] @ dK
            du[part, rows] = change
            change *= slope[part, rows]
            return np.asarray(change)

        return at


def gradient_back(stretch: Stretch, p: Array, residuals: Array, out: Array) -> None:
    """The derivative of J by q's coordinates, K e, with p adjoint to the equation for q.

    Args:
        stretch: The stretch of the depth.
        p: sqrt(h) w p where it ends; overwritten by that where it starts.
        residuals: sqrt(h) w mu (f - g) at the tracking points, or empty.
        out: Filled with the gradient, shape (levels, n_local, S).
    """
    march_back(stretch.form, _GradientFlow(stretch, out), p, residuals)


class _GradientFlow:
    keeps = True

    def __init__(self, stretch: Stretch, out: Array) -> None:
        self.stretch, self.out, self.state = stretch, out, stretch.state

    def meet(self, part: slice, *, solved: bool) -> Callable[[slice, Array], Array]:
        stretch, form = self.stretch, self.stretch.form
        K = form.root_omega[part] * form.K(stretch.gram[part])

        def at(rows: slice, P: Array) -> Array:
            q, r = stretch.q(part, rows), self.state.slope[part, rows] * P
            met = products(q, r)
            if solved:
                q += r
                np.matmul(q, K, out=self.out[part, rows])
            return met

        return at

    def slopes(self, part: slice, M: Array) -> Blockwise:
        C = self.stretch.form.kernel * (self.stretch.qq[part] + symmetric(M))
        return lambda rows: np.asarray(self.state.stages[part, rows] @ C)


def hessian_back(
    stretch: Stretch,
    direction: Direction,
    tangent: Tangent,
    theta: Array,
    residuals: Array,
    out: Array,
) -> None:
    """The Hessian product by z, T' D' H D T z; equations in `problem`.

    Args:
        stretch: The stretch of the depth.
        direction: z and T.
        tangent: Of the state, along the direction.
        theta: sqrt(h) theta where the stretch ends; overwritten by that where it starts.
        residuals: sqrt(h) w mu df at the tracking points, or empty.
        out: Filled with the product, shape (levels, n_local, S); may be `direction.z`.
    """
    flow = _SecondAdjointFlow(stretch, direction, tangent, out)
    march_back(stretch.form, flow, theta, residuals)


class _SecondAdjointFlow:
    keeps = True

    def __init__(
        self, stretch: Stretch, direction: Direction, tangent: Tangent, out: Array
    ) -> None:
        self.stretch, self.direction, self.tangent, self.out = stretch, direction, tangent, out
        self.state, self.costate = stretch.state, stretch.costate

    def meet(self, part: slice, *, solved: bool) -> Callable[[slice, Array], Array]:
        stretch, form, direction = self.stretch, self.stretch.form, self.direction
        slope, bend, costate = self.state.slope, self.state.bend, self.costate
        root = form.root_omega[part]
        on_left = direction.after(part, root * form.K(stretch.gram[part]))
        on_e = direction.after(part, root * form.kernel * self.tangent.cross[part])

        def at(rows: slice, theta: Array) -> Array:
            q, dq = stretch.q(part, rows), direction.at(part, rows) * (1 / root)
            rho = bend[part, rows] * costate[part, rows]
            rho *= self.tangent.u[part, rows]
            rho += slope[part, rows] * theta
            met = symmetric(products(q, rho))
            e = np.add(q, slope[part, rows] * costate[part, rows], out=q)
            met += products(dq, e)
            if solved:
                dq += rho
                left = dq @ on_left
                left += e @ on_e
                self.out[part, rows] = left
            return np.asarray(met)

        return at

    def slopes(self, part: slice, M: Array) -> Blockwise:
        stretch, kernel = self.stretch, self.stretch.form.kernel
        qr = stretch.qr[part]
        on_f, on_df = kernel * M, kernel * (stretch.qq[part] + symmetric(qr))
        f, df = self.state.stages, self.tangent.stages

        def at(rows: slice) -> Array:
            slope = f[part, rows] @ on_f
            slope += df[part, rows] @ on_df
            return np.asarray(slope)

        return at
