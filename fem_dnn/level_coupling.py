"""What couples the levels of a control, entry by entry: out += M c and <c, M c> without copies.

M is the same for all entries, so how a vector holds a level, masked or not, does not matter. It is
banded: of large arrays the few levels that a row needs are taken as many entries at a time as stay
in the cache.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from fem_dnn.native.blas import add_multiple
from fem_dnn.team import several, share

Array = NDArray[np.float64]


FEW_BYTES = 4e6
"""Size of an array up to which one sparse product and its copy stay in the cache: at 64 nodes and
32 layers that takes a third of the time of going level by level, at 256 nodes 1.7 times as much."""


class LevelCoupling:
    """M on arrays of coordinates [level, ...].

    Args:
        matrix: M, shape (levels, levels), symmetric.
    """

    def __init__(self, matrix: sparse.csr_array) -> None:
        self._matrix = matrix
        bounds = zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
        self._rows = [
            [(int(j), float(m)) for j, m in zip(matrix.indices[a:b], matrix.data[a:b], strict=True)]
            for a, b in bounds
        ]

    def add(self, c: Array, out: Array) -> None:
        """out += M c.

        Args:
            c: Coordinates [level, ...], in any shape of that order.
            out: Likewise, contiguous.
        """
        given, target = self._by_levels(c), self._by_levels(out)
        if given.nbytes <= FEW_BYTES:
            target += self._matrix @ given
            return

        def work(entries: slice) -> None:
            for part in several(entries, 1):
                for level in range(len(target)):
                    self._add_row(level, given[:, part], target[level, part])

        share(work, target.shape[1])

    def square(self, c: Array) -> float:
        """<c, M c> over this rank's entries.

        M c is summed at every entry before products are: what is left of differences there is small
        against their terms, and so is its round-off.
        """
        given, total = self._by_levels(c), 0.0
        if given.nbytes <= FEW_BYTES:
            return float(np.dot(given.reshape(-1), (self._matrix @ given).reshape(-1)))
        for part in several(slice(0, given.shape[1]), 1):
            rows = given[:, part]
            row = np.empty(rows.shape[1])
            for level in range(len(rows)):
                row[:] = 0.0
                self._add_row(level, rows, row)
                total += float(np.dot(rows[level], row))
        return total

    def _add_row(self, level: int, given: Array, out: Array) -> None:
        for other, factor in self._rows[level]:
            add_multiple(factor, given[other], out)

    def _by_levels(self, c: Array) -> Array:
        return c.reshape(len(self._rows), -1)
