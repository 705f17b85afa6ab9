"""Integration in depth, f = f_I + int_0^t z, and its adjoint, with the depth scheme's tableau.

A state that solves no equation yet is known by its slopes z at the control levels:

    F_i = f_n + tau sum_j A_ij z_j,    f_{n+1} = f_n + tau sum_j w_j z_j.

The adjoint, in the inner product sum_k omega_k int_Y . . dx of the levels, takes slopes y at the
levels, a terminal value and residuals r at the tracking points to

    P_i = p_{n+1} + tau sum_k A*_ik y_k + tau sum_k B*_ik r_k,
    p_n = p_{n+1} + tau sum_k w_k y_k + tau sum_k omega_k r_k.

Nothing here is collective: nodes do not meet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fem_dnn.depth import DepthLevels

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Integral:
    """A function of depth, given by its slopes.

    Attributes:
        ends: At the slab ends, shape (layers + 1, n_local, samples).
        stages: At the control levels, shape (levels, n_local, samples).
        tracked: At the tracking points, shape (points, n_local, samples).
    """

    ends: Array
    stages: Array
    tracked: Array


def integrate(levels: DepthLevels, start: Array, slopes: Array, *, tracked: bool) -> Integral:
    """Integrate from 0 to T.

    Args:
        levels: Depth levels.
        start: Value at 0, shape (n_local, samples).
        slopes: z at the control levels, shape (levels, n_local, samples).
        tracked: Whether the values at the tracking points are wanted.
    """
    scheme = levels.scheme
    z = _by_slabs(levels, slopes)
    ends = np.empty((levels.layers + 1, *start.shape))
    ends[0] = start
    np.cumsum(_combined(levels, scheme.weights[None], z)[:, 0], axis=0, out=ends[1:])
    ends[1:] += start
    stages = ends[:-1, None] + _combined(levels, scheme.stages, z)
    inside = stages[:0]
    if tracked:
        inside = ends[:-1, None] + _combined(levels, scheme.tracking_stages, z)
    return Integral(ends, _flat(stages), _flat(inside))


def integrate_back(
    levels: DepthLevels, terminal: Array, slopes: Array, residuals: Array
) -> tuple[Array, Array]:
    """The adjoint of `integrate` (but for the start's part, which is the first of the ends).

    Args:
        levels: Depth levels.
        terminal: Shape (n_local, samples).
        slopes: y at the control levels, shape (levels, n_local, samples).
        residuals: r at the tracking points, shape (points, n_local, samples) or empty.

    Returns:
        p at the slab ends and P at the control levels.
    """
    scheme = levels.scheme
    y = _by_slabs(levels, slopes)
    increments = _combined(levels, scheme.weights[None], y)[:, 0]
    stages = _combined(levels, scheme.adjoint_stages, y)
    if len(residuals):
        r = _by_slabs(levels, residuals)
        increments = increments + _combined(levels, scheme.tracking_weights[None], r)[:, 0]
        stages = stages + _combined(levels, scheme.adjoint_tracking, r)
    ends = np.empty((levels.layers + 1, *terminal.shape))
    ends[-1] = terminal
    ends[:-1] = np.cumsum(increments[::-1], axis=0)[::-1] + terminal
    return ends, _flat(ends[1:, None] + stages)


def _by_slabs(levels: DepthLevels, values: Array) -> Array:
    return values.reshape(levels.layers, -1, *values.shape[1:])


def _flat(values: Array) -> Array:
    return values.reshape(-1, *values.shape[2:])


def _combined(levels: DepthLevels, coefficients: Array, values: Array) -> Array:
    """tau_n sum_j coefficients_ij values_nj, shape (layers, rows, n_local, samples)."""
    flat = values.reshape(*values.shape[:2], -1)
    combined: Array = (levels.steps[:, None, None] * coefficients) @ flat
    return combined.reshape(levels.layers, len(coefficients), *values.shape[2:])
