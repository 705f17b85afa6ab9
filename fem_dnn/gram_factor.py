"""The Gram form of kernel and bias at one depth (theory.md section 3).

At a neuron x the trained controls are a vector z of the row a(x, .) and b(x), scaled so that their
cost is |z|^2 / 2. They act on the pre-activations of all samples by u = M z, with

    M M' = K,    K_ss' = (int m(x, y) f_s f_s' dy) / lambda_a + 1 / lambda_b

(the term of a control that is not trained is dropped). Without a mask M is the same at every x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fem_dnn.controls import ControlSpace

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GramFactor:
    """M at one depth, for the trained controls.

    Attributes:
        matrix: M, shape (1 or n_local, samples, columns): the bias's column first, where it is
            trained, then the kernel's, y in mesh order.
        kernel, bias: lambda_a, lambda_b of the controls that are trained; None of the others.
    """

    matrix: Array
    kernel: float | None
    bias: float | None

    @classmethod
    def of(cls, controls: ControlSpace, kernel: float, bias: float, gathered: Array) -> GramFactor:
        """M at one depth.

        Args:
            controls: Which controls are trained, one of kernel and bias at least, and the mask.
            kernel, bias: lambda_a, lambda_b.
            gathered: sqrt(h) f on all nodes, shape (n_nodes, samples).
        """
        columns: list[Array] = []
        if controls.has_bias:
            columns.append(np.full((1, gathered.shape[1], 1), 1 / np.sqrt(bias)))
        if controls.has_kernel:
            rows = gathered.T[None] / np.sqrt(kernel)
            if controls.mask is not None:
                rows = rows * controls.mask.T[:, None, :]
            columns.append(rows)
        nodes = max(len(block) for block in columns)
        wide = [np.broadcast_to(block, (nodes, *block.shape[1:])) for block in columns]
        return cls(
            np.concatenate(wide, axis=2),
            kernel if controls.has_kernel else None,
            bias if controls.has_bias else None,
        )

    def controls_of(self, z: Array) -> tuple[Array | None, Array | None]:
        """sqrt(h_y) a(x, y), shape (n_local, n_nodes), and b(x), shape (n_local,), of z."""
        first = 0 if self.bias is None else 1
        kernel = None if self.kernel is None else z[:, first:] / np.sqrt(self.kernel)
        bias = None if self.bias is None else z[:, 0] / np.sqrt(self.bias)
        return kernel, bias
