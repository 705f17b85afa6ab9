"""Kernel rows and biases along a few features Psi, and a matrix M at every node: a metric's parts.

At a level Psi has a row for every node y that a kernel acts on, and one for the bias. Arrays are:
kernel [level, y, x], bias [level, x], Psi [level, row, feature], coordinates [level, x, feature],
M [level, x, feature, feature], with x this rank's nodes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fem_dnn.native import CompiledFeatures, compiled_features

Array = NDArray[np.float64]


class Features:
    """The products with Psi and M, in NumPy.

    Args:
        psi: Psi.
        matrices: M.
        inverse_gram: N of other features Psi N' at every node, shaped as M; None: Psi itself.
    """

    def __init__(self, psi: Array, matrices: Array, inverse_gram: Array | None) -> None:
        self.psi, self.matrices, self.inverse_gram = psi, matrices, inverse_gram

    def along(self, kernel: Array | None, bias: Array | None) -> Array:
        """The coordinates Psi' c of c = (kernel, bias)."""
        y: Array | None = None
        if kernel is not None:
            y = kernel.swapaxes(1, 2) @ self.psi[:, : kernel.shape[1]]
        if bias is not None:
            last = bias[:, :, None] * self.psi[:, -1:]
            y = last if y is None else np.add(y, last, out=y)
        assert y is not None, "a metric of neither kernel nor bias"
        return y if self.inverse_gram is None else _times(self.inverse_gram, y)

    def reduced(self, y: Array) -> Array:
        """M y."""
        return _times(self.matrices, y)

    def move(
        self, kernel: Array | None, bias: Array | None, z: Array, y: Array, *, reduced: bool
    ) -> None:
        """Add Psi (z - y) to a kernel and a bias; of reduced z, Psi (M' z - y)."""
        change = (_times(self.matrices.swapaxes(2, 3), z) if reduced else z) - y
        if self.inverse_gram is not None:
            change = _times(self.inverse_gram.swapaxes(2, 3), change)
        if kernel is not None:
            kernel += self.psi[:, : kernel.shape[1]] @ change.swapaxes(1, 2)
        if bias is not None:
            bias += (change @ self.psi[:, -1, :, None])[..., 0]


def _times(matrices: Array, y: Array) -> Array:
    product: Array = (matrices @ y[..., None])[..., 0]
    return product


def features(
    psi: Array, matrices: Array, inverse_gram: Array | None
) -> Features | CompiledFeatures:
    """The products in C, where they serve; arguments as in `Features`."""
    compiled = None if inverse_gram is not None else compiled_features(psi, matrices)
    return compiled or Features(psi, matrices, inverse_gram)
