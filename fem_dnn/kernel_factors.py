"""A kernel that is held as a sum of products, not as matrices: that of a result in Gram form.

    a(x, y, t_k) = sum_r left_r(x) right_r(y),    b apart

costs O(nodes R) where the matrices cost O(nodes^2): they need not be formed to project the kernel
onto another network, to look at some of its entries, or to take its norm.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fem_dnn.width import WidthSpace  # pictures need these factors without dolfinx

Array = NDArray[np.float64]

STORED = ("q", "control_state", "made_by")
"""The arrays of a `solution.npz` in Gram form that the factors are made of."""


@dataclass(frozen=True, eq=False)
class KernelFactors:
    """The factors in file order.

    Attributes:
        left, right: Nodal values, shape (levels, R, n_nodes).
    """

    left: Array
    right: Array

    @classmethod
    def of_result(cls, q: Array, control_state: Array, made_by: object) -> KernelFactors:
        """Those of a result in Gram form, a = sum_s q_s(x) f_s(y) / lambda_a.

        Args:
            q, control_state: q_s and f_s at the control levels, shape (levels, samples, n_nodes).
            made_by: The text that says by which case: lambda_a is that case's.
        """
        weight = json.loads(str(made_by))["case"]["regularization"]["kernel"]
        return cls(q / weight, control_state)

    def arrays(self, weight: float) -> dict[str, Array]:
        """What a result of a case with this lambda_a holds, for `of_result`."""
        return dict(zip(STORED, (self.left * weight, self.right), strict=False))

    def on(self, space: WidthSpace) -> tuple[Array, Array]:
        """Both factors at this rank's nodes, shape (levels, n_local, R) twice."""
        left, right = (space.from_file_order(f) for f in (self.left, self.right))
        return left.swapaxes(1, 2).copy(), right.swapaxes(1, 2).copy()

    def coefficients(self, space: WidthSpace, level_weights: Array) -> Array:
        """This rank's dense coefficients, as `nonlocal_operator.kernel_coefficients` makes them."""
        left = space.from_file_order(self.left) * space.sqrt_weights[space.owned]
        left *= np.sqrt(level_weights)[:, None, None]
        right = self.right[..., space.file_position] * space.sqrt_weights
        return np.matmul(right.swapaxes(1, 2), left)

    def block(self, level: int, x: NDArray[np.intp], y: NDArray[np.intp]) -> Array:
        """Values a(x, y) at some nodes of one level, shape (len(x), len(y))."""
        return np.asarray(self.left[level][:, x].T @ self.right[level][:, y])

    def values(self) -> Array:
        """All values a(x, y), shape (levels, n_nodes, n_nodes)."""
        return np.matmul(self.left.swapaxes(1, 2), self.right)

    def squares(self, weights: Array) -> Array:
        """|a(t)|^2 over Y x Y at every level by nodal quadrature, shape (levels,).

        Args:
            weights: Node weights h.
        """
        of_left, of_right = (
            np.matmul(f * weights, f.swapaxes(1, 2)) for f in (self.left, self.right)
        )
        return np.maximum(np.sum(of_left * of_right, axis=(1, 2)), 0.0)

    def projected(self, width: sparse.csr_array, depth: Array) -> KernelFactors:
        """sum_l D_kl P a_l P', a sum of R products for every source level that counts.

        Args:
            width: P, shape (target nodes, nodes).
            depth: D, shape (target levels, levels).
        """
        count, terms, nodes = self.left.shape
        left, right = (
            (width @ f.reshape(-1, nodes).T).T.reshape(count, terms, -1)
            for f in (self.left, self.right)
        )
        most = int(np.max(np.count_nonzero(depth, axis=1)))
        shape = (len(depth), most * terms, width.shape[0])
        made_left, made_right = np.zeros(shape), np.zeros(shape)
        for k in range(len(depth)):
            for place, level in enumerate(np.flatnonzero(depth[k])):
                part = slice(place * terms, (place + 1) * terms)
                made_left[k, part] = depth[k, level] * left[level]
                made_right[k, part] = right[level]
        return KernelFactors(made_left, made_right)
