"""The S x S matrices in which all nodes meet, and the blocks of nodes in which they are taken.

With G = <f_s, f_s'>, K = G / lambda_a + 1 / lambda_b and u = K q (see `problem`). States, adjoints
and their changes are held in L2-orthonormal coordinates, as controls are: sqrt(h_x) f at the nodes,
so that inner products are plain matrix products and node weights enter at the activation alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fem_dnn.network import Network

Array = NDArray[np.float64]

BLOCK_BYTES = 2**17
"""Size of a block of one array: the dozen that a march has in hand stay in the processor's cache.

Of whole arrays a Hessian product takes twice as long, of an eighth of this 1.7 times (Python).
"""


@dataclass(frozen=True, eq=False)
class GramForm:
    """What K is made of, on all of the depth or on a part of it.

    Attributes:
        network: Width space, depth levels, activation.
        kernel: 1 / lambda_a.
        bias: 1 / lambda_b; 0 where the bias is no control.
        rows: How many nodes are taken at a time.
    """

    network: Network
    kernel: float
    bias: float
    rows: int

    def on(self, slabs: range) -> GramForm:
        """The same on some neighbouring slabs."""
        levels = self.network.levels
        points = levels.points[slabs.start : slabs.stop + 1]
        network = replace(self.network, levels=replace(levels, points=points))
        return replace(self, network=network)

    @cached_property
    def blocks(self) -> list[slice]:
        """This rank's nodes, a few at a time; one block at least."""
        n = self.network.space.n_local
        starts = range(0, max(n, 1), self.rows)
        return [slice(start, min(start + self.rows, n)) for start in starts]

    def slabs(self) -> Iterator[slice]:
        """The control levels, slab by slab."""
        levels = self.network.levels
        for n in range(levels.layers):
            slab = levels.of_slab(n)
            yield slice(slab.start, slab.stop)

    @cached_property
    def root(self) -> Array:
        """sqrt(h) at this rank's nodes, shape (n_local, 1): coordinates are this times values."""
        space = self.network.space
        return space.sqrt_weights[space.owned, None]

    @cached_property
    def root_omega(self) -> Array:
        """sqrt(omega) of the levels: q's coordinates are this times sqrt(h) q."""
        return np.sqrt(self.network.levels.weights)[:, None, None]

    def K(self, gram: Array) -> Array:
        """K of Gram matrices."""
        return self.kernel * gram + self.bias

    def metric(self, gram: Array) -> Array:
        """<., .> of the kernels and biases that q stands for: sum_ss' metric_ss' <q_s, q_s'>."""
        return self.kernel**2 * gram + self.bias**2

    def inner(self, f: Array, g: Array) -> Array:
        """f_s . g_s' at every level, (levels, n_local, S) twice -> (levels, S, S) (collective)."""
        local = sum(products(f[:, rows], g[:, rows]) for rows in self.blocks)
        return self.network.space.sum(np.asarray(local))


def rows_of(samples: int) -> int:
    """Nodes in a block of `BLOCK_BYTES`."""
    return max(1, BLOCK_BYTES // (8 * samples))


def products(f: Array, g: Array) -> Array:
    """f_s . g_s' over the nodes in hand, (..., nodes, S) twice -> (..., S, S)."""
    return np.matmul(transposed(f), g)


def transposed(A: Array) -> Array:
    """A' of a stack of matrices."""
    return A.swapaxes(-1, -2)


def symmetric(A: Array) -> Array:
    """A + A'."""
    return A + transposed(A)
