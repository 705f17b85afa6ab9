"""Z with (I + B_D B_D' + B sigma B')^{-1} = Z Z', of a Gauss-Newton term in curvature coordinates.

At a level and node with the features F and the Cholesky factor L of the pointwise term (see
`curvature_metric`), B = L^{-1} F A has a column for every sample and part of the outputs; A are the
parts of `gauss_newton.OutputSlopes`, sigma their signs, and B_D belongs to the nodewise slopes.
These are inverted exactly, node by node. Of the rest, seen from there, the eigenvectors U with the
largest eigenvalues theta count:

    Z = (I + B_D B_D')^{-1/2} (I - U (1 - (1 + theta)^{-1/2}) U').

They are found among the columns of B, without a sweep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fem_dnn.collective import on_root
from fem_dnn.gauss_newton import OutputSlopes
from fem_dnn.native import compiled_inverse_factors
from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]
Numbers = NDArray[np.floating]

DIRECTIONS = 48
"""Eigenvectors that are looked for where there are more than a few columns."""

ITERATIONS = 1
"""Of the subspace iteration that finds them."""

COARSE = 8
"""Levels, at least, on which it is done: slopes and features are smooth in depth."""

DEPENDENT = 1e-8
"""Squares of lengths, relative to the largest, of directions that cannot be told from others."""

LEAST = -0.99
"""Least eigenvalue, above -1 by more than round-off."""


@dataclass(frozen=True, eq=False)
class InverseRoot:
    """Z; vectors have the shape (levels, n_local, rank).

    Attributes:
        nodewise: (I + B_D B_D')^{-1/2}; None: there is no B_D.
        without: What of the rest counts.
    """

    nodewise: NodewiseRoot | None
    without: Without

    @classmethod
    def of(
        cls, space: WidthSpace, slopes: OutputSlopes, features: Array, inverse: Array, seen: float
    ) -> InverseRoot:
        """Z of slopes (collective).

        Args:
            space: The width space.
            slopes: The slopes of the outputs.
            features: F, shape (levels, 1 or n_local, rank, samples).
            inverse: L^{-1}, shape (levels, n_local, rank, rank).
            seen: Eigenvalues below this are left out.
        """
        fine = _Factor(space, slopes, features, inverse)
        if not fine.columns:
            nothing = np.zeros((inverse[..., 0].size, 0)), np.zeros(0)
            return cls(fine.nodewise, Without(space, *nothing))
        block = None
        if not slopes.few:
            stride = max(1, len(inverse) // COARSE)
            some = fine if stride == 1 else _Factor(space, slopes, features, inverse, stride)
            block = leading_columns(some)
        return cls(fine.nodewise, Without(space, *eigenvectors(space, fine, block, seen)))

    def single(self) -> InverseRoot:
        """The same for vectors in single precision."""
        nodewise = None if self.nodewise is None else self.nodewise.single()
        return InverseRoot(nodewise, self.without.single())

    def apply(self, y: Numbers) -> Any:
        """Z y (collective)."""
        y = self.without(y)
        return y if self.nodewise is None else self.nodewise.apply(y[..., None])[..., 0]

    def apply_transpose(self, y: Numbers) -> Any:
        """Z' y (collective)."""
        if self.nodewise is not None:
            y = self.nodewise.apply_transpose(y[..., None])[..., 0]
        return self.without(y)

    def inverse(self, y: Numbers) -> Any:
        """Z Z' y (collective)."""
        if self.nodewise is None:
            return self.without.twice(y)
        y = self.without.twice(self.nodewise.apply_transpose(y[..., None])[..., 0])
        return self.nodewise.apply(y[..., None])[..., 0]


class Without:
    """I - U (1 - (1 + theta)^{-1/2}) U', the inverse root of I + U theta U'.

    Args:
        space: The width space.
        directions: U, orthonormal columns whose rows are dealt out over ranks.
        theta: Shape (count,), the same count on every rank.
    """

    def __init__(self, space: WidthSpace, directions: Numbers, theta: Array) -> None:
        self._space, self._directions, self._theta = space, directions, theta
        self._left = 1 / np.sqrt(1 + np.maximum(theta, LEAST))

    def single(self) -> Without:
        """The same for vectors in single precision."""
        return Without(self._space, self._directions.astype(np.float32), self._theta)

    def __call__(self, y: Numbers) -> Any:
        """Its product with y, of any shape (collective)."""
        return self._shrunk(y, self._left)

    def twice(self, y: Numbers) -> Any:
        """Its square's: that of the inverse (collective)."""
        return self._shrunk(y, self._left**2)

    def _shrunk(self, y: Numbers, left: Array) -> Any:
        if not len(left):
            return y
        along = self._space.sum((y.reshape(-1) @ self._directions).astype(np.float64))
        taken = ((1 - left) * along).astype(self._directions.dtype)
        return y - (self._directions @ taken).reshape(y.shape)


class NodewiseRoot:
    """Z with (I + B B')^{-1} = Z Z' for a B that is block diagonal by nodes.

    With I + B' B = C C', Z = I - B C^{-T} (C + I)^{-1} B' (Andrews, AIAA J. 6, 1968). Columns have
    the shape (levels, n_local, rank, count).

    Args:
        factor: B, shape (n_local, levels rank, samples).
        middle: C^{-T} (C + I)^{-1}, shape (n_local, samples, samples).
    """

    def __init__(self, factor: Numbers, middle: Numbers) -> None:
        self._factor, self._middle = factor, middle

    @classmethod
    def of(cls, factor: Array) -> NodewiseRoot:
        """Z of the blocks of B, shape (levels, n_local, rank, samples)."""
        levels, nodes, rank, samples = factor.shape
        factor = factor.swapaxes(0, 1).reshape(nodes, levels * rank, samples)
        unit = np.eye(samples)
        lower = cholesky_or_unit(unit + factor.swapaxes(1, 2) @ factor)
        return cls(factor, np.linalg.inv(lower).swapaxes(1, 2) @ np.linalg.inv(lower + unit))

    def single(self) -> NodewiseRoot:
        """The same for columns in single precision."""
        return NodewiseRoot(self._factor.astype(np.float32), self._middle.astype(np.float32))

    def apply(self, columns: Numbers) -> Any:
        """Z times columns."""
        return self._changed(columns, self._middle)

    def apply_transpose(self, columns: Numbers) -> Any:
        """Z' times columns."""
        return self._changed(columns, self._middle.swapaxes(1, 2))

    def _changed(self, columns: Numbers, middle: Numbers) -> Any:
        levels, nodes, rank, count = columns.shape
        rows = columns.swapaxes(0, 1).reshape(nodes, levels * rank, count)
        change = self._factor @ (middle @ (self._factor.swapaxes(1, 2) @ rows))
        return columns - change.reshape(nodes, levels, rank, count).swapaxes(0, 1)


class _Factor:
    """Z_D' B with Z_D the nodewise root, if there is one; it is applied and never formed.

    Args:
        space, slopes, features, inverse: As in `InverseRoot.of`.
        stride: Only one in so many levels is taken, for all of them.
    """

    def __init__(
        self,
        space: WidthSpace,
        slopes: OutputSlopes,
        features: Array,
        inverse: Array,
        stride: int = 1,
    ) -> None:
        self._space, self._parts = space, slopes.parts[::stride]
        self._features, self._inverse = np.sqrt(stride) * features[::stride], inverse[::stride]
        _, self._samples, self._count, _ = slopes.parts.shape
        self.signs = np.tile(slopes.signs, self._samples)[:, None]
        self.nodewise: NodewiseRoot | None = None
        if slopes.nodewise is not None:
            nodewise = slopes.nodewise[::stride]
            levels, nodes, rank, _ = self._inverse.shape
            # As the root holds it, node by node: of this array there is room for one.
            blocks = np.empty((nodes, levels, rank, self._samples)).swapaxes(0, 1)
            for level in range(levels):
                blocks[level] = self._reached(level) * nodewise[level, :, None]
            self.nodewise = NodewiseRoot.of(blocks)

    @property
    def columns(self) -> int:
        """Samples times parts."""
        return len(self.signs)

    def whole(self) -> Array:
        """All columns, shape (levels, n_local, rank, columns)."""
        result = np.empty((*self._inverse.shape[:3], self._samples, self._count))
        for level in range(len(result)):
            parts = self._parts[level].transpose(2, 0, 1)[:, None]
            np.multiply(self._reached(level)[..., None], parts, out=result[level])
        columns = result.reshape(*result.shape[:3], -1)
        return columns if self.nodewise is None else self.nodewise.apply_transpose(columns)

    def times(self, vectors: Array) -> Array:
        """Its products with vectors, (columns, count): (levels, n_local, rank, count)."""
        mixed = vectors.reshape(self._samples, self._count, -1)
        result = np.empty((*self._inverse.shape[:3], mixed.shape[2]))
        for level in range(len(result)):
            driven: Array = np.matmul(self._parts[level].swapaxes(1, 2), mixed)
            np.matmul(self._reached(level), driven.swapaxes(0, 1), out=result[level])
        return result if self.nodewise is None else self.nodewise.apply_transpose(result)

    def transposed(self, y: Array) -> Array:
        """Its transpose's products, shapes as those of `times` (collective)."""
        if self.nodewise is not None:
            y = self.nodewise.apply(y)
        result = np.zeros((self._samples, self._count, y.shape[3]))
        for level in range(len(y)):
            driven: Array = np.matmul(self._reached(level).swapaxes(1, 2), y[level])
            result += self._parts[level] @ driven.swapaxes(0, 1)
        return self._space.sum(result.reshape(self.columns, -1))

    def _reached(self, level: int) -> Array:
        """L^{-1} F at a level, shape (n_local, rank, samples); of all of them it would be large."""
        result: Array = np.matmul(self._inverse[level], self._features[level])
        return result


def leading_columns(factor: _Factor) -> Array:
    """Orthonormal combinations of B's columns that B sigma B' is largest on (collective).

    A subspace iteration (Halko, Martinsson & Tropp, SIAM Rev. 53, 2011). Shape (columns,
    `DIRECTIONS`).
    """
    block = np.random.default_rng(0).standard_normal((factor.columns, DIRECTIONS))
    for _ in range(ITERATIONS):
        block, _ = np.linalg.qr(factor.signs * factor.transposed(factor.times(block)))
    return block


def eigenvectors(
    space: WidthSpace, factor: _Factor, block: Array | None, seen: float
) -> tuple[Array, Array]:
    """Ritz vectors of B sigma B' in the range of B V, and values beyond `seen` (collective).

    Args:
        space: The width space.
        factor: B.
        block: V, orthonormal columns; None: I.
        seen: The least absolute value.

    Returns:
        U, orthonormal columns of shape (rows of B, count), and theta, shape (count,).
    """
    image = factor.whole() if block is None else factor.times(block)
    rows = image.reshape(-1, image.shape[3])
    if np.all(factor.signs > 0):
        return left_vectors(space, rows, seen)
    back = factor.transposed(image)

    def eigenpairs() -> tuple[Array, Array]:
        squares, turn = np.linalg.eigh(back if block is None else block.T @ back)
        told = squares > DEPENDENT * squares[-1]
        turn = turn[:, told] / np.sqrt(squares[told])
        theta, vectors = np.linalg.eigh(turn.T @ (back.T @ (factor.signs * back)) @ turn)
        large = np.abs(theta) > seen
        return turn @ vectors[:, large], theta[large]

    turn, theta = on_root(space.comm, eigenpairs)
    return rows @ turn, theta


def left_vectors(space: WidthSpace, rows: Array, seen: float) -> tuple[Array, Array]:
    """U and theta, orthonormal, of B B' = U theta U' beyond `seen` (collective).

    Args:
        space: The width space.
        rows: This rank's rows of B; its columns are few.
        seen: The least value.

    Returns:
        U, shape (rows, count), and theta, shape (count,).
    """
    gram = space.sum(rows.T @ rows)

    def eigenpairs() -> tuple[Array, Array]:
        theta, turn = np.linalg.eigh(gram)
        large = theta > seen
        return turn[:, large] / np.sqrt(theta[large]), theta[large]

    # Near `seen` unlike processors would count differently, and wait for each other in sums.
    turn, theta = on_root(space.comm, eigenpairs)
    return rows @ turn, theta


def inverse_factors(matrices: Array) -> Array:
    """L^{-1} with L L' = I + M of symmetric matrices M, (..., n, n); I where there is no L."""
    compiled = compiled_inverse_factors(matrices)
    if compiled is not None:
        return compiled
    lower = cholesky_or_unit(np.eye(matrices.shape[-1]) + matrices)
    return np.asarray(np.linalg.inv(lower), dtype=np.float64)


def cholesky_or_unit(matrices: Array) -> Array:
    """Lower Cholesky factors of matrices, (..., n, n); I where round-off leaves none.

    An error here would leave other ranks waiting, and any factor will do: it only measures.
    """
    try:
        lower = np.asarray(np.linalg.cholesky(matrices), dtype=np.float64)
    except np.linalg.LinAlgError:
        lower = np.empty_like(matrices)
        for index in np.ndindex(matrices.shape[:-2]):
            try:
                lower[index] = np.linalg.cholesky(matrices[index])
            except np.linalg.LinAlgError:
                lower[index] = np.eye(matrices.shape[-1])
    return lower
