"""Kernel rows and biases along a few features Psi, and a matrix M at every node: a metric's parts.

At a level Psi has a row for every node y that a kernel acts on, and one for the bias. Arrays are:
kernel [level, y, x], bias [level, x], Psi [level, row, feature], coordinates [level, x, feature],
M [level, x, feature, feature], with x this rank's nodes; all in double or all in single precision.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fem_dnn.native import CompiledFeatures, compiled_features

Array = NDArray[np.float64]
Numbers = NDArray[np.floating]


class Features:
    """The products with Psi and M, in NumPy.

    Args:
        psi: Psi.
        matrices: M.
        inverse_gram: N of other features Psi N' at every node, shaped as M; None: Psi itself.
    """

    def __init__(self, psi: Numbers, matrices: Numbers, inverse_gram: Numbers | None) -> None:
        self.psi, self.matrices, self.inverse_gram = psi, matrices, inverse_gram

    def single(self) -> Features:
        """The same in single precision."""
        gram = None if self.inverse_gram is None else self.inverse_gram.astype(np.float32)
        return Features(self.psi.astype(np.float32), self.matrices.astype(np.float32), gram)

    def along(self, kernel: Numbers | None, bias: Numbers | None) -> Numbers:
        """The coordinates Psi' c of c = (kernel, bias)."""
        y: Any = None
        if kernel is not None:
            y = kernel.swapaxes(1, 2) @ self.psi[:, : kernel.shape[1]]
        if bias is not None:
            last = bias[:, :, None] * self.psi[:, -1:]
            y = last if y is None else np.add(y, last, out=y)
        assert y is not None, "a metric of neither kernel nor bias"
        return y if self.inverse_gram is None else _times(self.inverse_gram, y)

    def reduced(self, y: Numbers) -> Numbers:
        """M y."""
        return _times(self.matrices, y)

    def move(
        self, kernel: Numbers | None, bias: Numbers | None, z: Numbers, y: Numbers, *, reduced: bool
    ) -> None:
        """Add Psi (z - y) to a kernel and a bias; of reduced z, Psi (M' z - y)."""
        change: Any = (_times(self.matrices.swapaxes(2, 3), z) if reduced else z) - y
        if self.inverse_gram is not None:
            change = _times(self.inverse_gram.swapaxes(2, 3), change)
        if kernel is not None:
            kernel += self.psi[:, : kernel.shape[1]] @ change.swapaxes(1, 2)
        if bias is not None:
            bias += (change @ self.psi[:, -1, :, None])[..., 0]


def _times(matrices: Numbers, y: Numbers) -> Numbers:
    product: Numbers = (matrices @ y[..., None])[..., 0]
    return product


def features(
    psi: Numbers, matrices: Numbers, inverse_gram: Numbers | None
) -> Features | CompiledFeatures:
    """The products in C, where they serve; arguments as in `Features`."""
    compiled = None if inverse_gram is not None else compiled_features(psi, matrices)
    return compiled or Features(psi, matrices, inverse_gram)
