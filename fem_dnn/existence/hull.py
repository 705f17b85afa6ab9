"""The convex envelope of sampled costs, by the convex hull of the samples (S = 2, 3).

Independent of `convex_envelope`, and from above: hulls of samples lie above r**. For many points at
once, and for pictures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, Delaunay

Array = NDArray[np.float64]


def lower_hull(points: Array, values: Array, at: Array) -> Array:
    """The convex envelope of sampled values, by their convex hull: an upper bound of r**.

    Args:
        points: Where the values are, shape (samples, S), S = 2 or 3.
        values: Shape (samples,).
        at: Where the envelope is wanted, shape (places, S).

    Returns:
        Shape (places,); infinite outside the hull of the points.
    """
    hull = ConvexHull(np.column_stack([points, values]))
    normals = hull.equations
    below = normals[normals[:, -2] < -1e-12 * np.abs(normals[:, :-1]).max(axis=1)]
    # n.(v, r) + d = 0 on a facet: r = -(n_v.v + d) / n_r.
    slopes, heights = -below[:, :-2] / below[:, -2:-1], -below[:, -1] / below[:, -2]
    envelope: Array = np.max(at @ slopes.T + heights, axis=1)
    inside = Delaunay(points).find_simplex(at) >= 0
    return np.where(inside, envelope, np.inf)


def above_hull(points: Array, values: Array) -> NDArray[np.bool_]:
    """Which sampled values lie above their convex envelope: where mixing pays, seen on a grid.

    Args:
        points, values: As in `lower_hull`.
    """
    above = np.ones(len(points), bool)
    above[ConvexHull(np.column_stack([points, values])).vertices] = False
    return above
