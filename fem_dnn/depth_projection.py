"""L2 projection in depth, from the control levels of one scheme and mesh to another's.

On every slab a control is the polynomial through its levels: of degree q for dg q (its levels are
Gauss points), a constant for resnet and dg0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fem_dnn.depth import DepthLevels, gauss_legendre, lagrange_basis

Array = NDArray[np.float64]


def depth_projection(source: DepthLevels, target: DepthLevels) -> Array:
    """The matrix of the L2(0, T) projection, exact: quadrature between all slab ends of the two.

    Args:
        source: Levels that values are given at.
        target: Levels that they go to.

    Returns:
        Shape (target.count, source.count); rows sum to 1.

    Raises:
        ValueError: The depths T differ. Rescaling would change the flow: unless the activation is
            positively homogeneous no kernel at another T gives the same one.
    """
    T = float(target.points[-1])
    if not np.isclose(source.points[-1], T, rtol=1e-10, atol=0):
        raise ValueError(f"the depths differ: {source.points[-1]:g} and {T:g}")
    merged = np.union1d(source.points, target.points)
    # Slab ends that agree up to round-off are the same.
    merged = merged[np.concatenate([[True], np.diff(merged) > 1e-12 * T])]
    z, w = gauss_legendre((source.scheme.levels + target.scheme.levels) // 2)
    steps = np.diff(merged)
    t = (merged[:-1, None] + steps[:, None] * z).ravel()
    weights = (steps[:, None] * w).ravel()
    coupling = _values(target, t).T @ (weights[:, None] * _values(source, t))
    return coupling / target.weights[:, None]


def _values(levels: DepthLevels, t: Array) -> Array:
    """The basis functions of the levels at depths inside slabs, shape (depths, levels.count)."""
    slab = np.clip(np.searchsorted(levels.points, t, side="right") - 1, 0, levels.layers - 1)
    theta = (t - levels.points[slab]) / levels.steps[slab]
    values = np.zeros((len(t), levels.count))
    per_slab = levels.scheme.levels
    for i, phi in enumerate(lagrange_basis(levels.scheme.points)):
        values[np.arange(len(t)), slab * per_slab + i] = phi(theta)
    return values
