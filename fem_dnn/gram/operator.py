"""The nonlocal operator of a kernel that is a sum over samples, a = c sum_s q_s(x) f_s(y).

    (Kf)(x) = c sum_s q_s(x) <f_s, f>,     (K'g)(y) = c sum_s f_s(y) <q_s, g>

cost O(nodes S) per function. All nodes meet in inner products, which is all that ranks exchange.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fem_dnn.controls import ControlValues
from fem_dnn.network import LayerWeights, Network
from fem_dnn.nonlocal_operator import Levels, NonlocalOperator, kernel_coefficients
from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]


class GramOperator(NonlocalOperator):
    """Kernels of rank S on a width space, one per depth level.

    Args:
        space: The width space.
        level_weights: Quadrature weights omega of the depth levels, shape (levels,).
        left: Values of c q_s at this rank's nodes, shape (levels, n_local, S).
        right: Values of f_s, same shape. Both are kept, not copied.
    """

    dense = False

    def __init__(self, space: WidthSpace, level_weights: Array, left: Array, right: Array) -> None:
        self.space = space
        self.left, self.right = left, right
        self._sqrt_hx = space.sqrt_weights[space.owned, None]
        self._scale = np.sqrt(level_weights)[:, None, None] * self._sqrt_hx

    @property
    def gathered_rows(self) -> int:
        """Rows of `gather`'s result: this rank's nodes."""
        return self.space.n_local

    def gather(self, f: Array, out: Array | None = None) -> Array:
        """sqrt(h) f at this rank's nodes: nothing needs to be gathered."""
        return np.multiply(self._sqrt_hx, f, out=out)

    def apply(self, levels: Levels, gathered: Array, out: Array | None = None) -> Array:
        """(Kf)(x) at this rank's nodes, from `gather(f)`; shape (n_local, samples) (collective)."""
        right = self.right[levels]
        local = right.swapaxes(-1, -2) @ (self._sqrt_hx * gathered)
        return np.matmul(self.left[levels], self.space.sum(local), out=out)

    def image(
        self, level: int, f: Array, room: Array | None = None, out: Array | None = None
    ) -> Array:
        """Kf at one level from f at this rank's nodes (collective)."""
        return self.apply(level, self.gather(f, out=room), out=out)

    def apply_transpose(self, levels: Levels, g: Array, out: Array | None = None) -> Array:
        """(K'g)(y) at this rank's nodes (collective)."""
        local = self.left[levels].swapaxes(-1, -2) @ (self._sqrt_hx**2 * g)
        return np.matmul(self.right[levels], self.space.sum(local), out=out)

    @cached_property
    def coefficients(self) -> Array:  # type: ignore[override]
        """The kernel's dense coefficients, O(nodes^2): for small widths (collective)."""
        space = self.space
        dense = np.empty((len(self.left), space.n_nodes, space.n_local))
        for level, (q, f) in enumerate(zip(self.left, self.right, strict=True)):
            everywhere = space.gather(np.ascontiguousarray(self._sqrt_hx * f))
            np.matmul(everywhere, (self._scale[level] * q).T, out=dense[level])
        return dense

    def values(self) -> Array:
        """a(x, y) in file order, shape (levels, n_nodes, n_nodes), on every rank (collective)."""
        left, right = (self.space.to_file_order(f, axis=1) for f in (self.left, self.right))
        return np.matmul(left, right.swapaxes(1, 2))


def weights_of(network: Network, values: ControlValues) -> LayerWeights:
    """Kernel, by its factors or its matrices, and bias of nodal values; None where there is none.

    Args:
        network: The network.
        values: In file order, whole on every rank.
    """
    space, omega = network.space, network.levels.weights
    operator: NonlocalOperator | None = None
    if values.factors is not None:
        operator = GramOperator(space, omega, *values.factors.on(space))
    elif values.kernel is not None:
        coefficients = kernel_coefficients(space, omega, values.kernel)
        operator = NonlocalOperator(space, omega, coefficients)
    bias = None
    if values.bias is not None:
        bias = np.ascontiguousarray(space.from_file_order(values.bias))[:, :, None]
    return LayerWeights(operator, bias)
