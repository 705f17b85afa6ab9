"""The tracking term (theory.md section 2)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fem_dnn.network import Network

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Tracking:
    """The tracking term (mu / 2) sum_s w_s int_0^T |f_s - g_s|^2 dt.

    Attributes:
        weight: mu.
        targets: g_s at the tracking points, shape (points or 1, n_local, samples).
    """

    weight: float
    targets: Array

    def of_samples(self, some: slice) -> Tracking:
        """That of some samples."""
        return replace(self, targets=np.ascontiguousarray(self.targets[..., some]))

    def costs(self, network: Network, w: Array, misfit: Array) -> Array:
        """Its part of every slab, shape (layers,) (collective).

        Args:
            network: The network.
            w: Sample weights w_s.
            misfit: f - g at the tracking points, shape (points, n_local, samples).
        """
        levels, space = network.levels, network.space
        squares = np.einsum("n,kns,kns,s->k", space.local_weights, misfit, misfit, w, optimize=True)
        per_slab = space.sum(squares).reshape(levels.layers, -1) @ levels.scheme.tracking_weights
        return np.asarray(0.5 * self.weight * levels.steps * per_slab)
