"""The nonlocal operator (Kf)(x) = int_Y a(x, y) f(y) dy, one dense matrix per depth level.

The kernel is held in L2-orthonormal coordinates: at a level with quadrature weight omega in depth

    coefficients(x, y) = sqrt(omega h_x h_y) a(x, y),

so that the Euclidean inner product of coefficients is the L2 inner product of kernels, and the
coefficients can be the solver's own vector, without a copy. Rows x are distributed by the width
space's ownership; one all-gather of the argument and one matrix product serve all samples.

Each level is stored column by column, as PETSc stores dense matrices: `as_petsc` shares memory.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from petsc4py import PETSc

from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]
Levels = int | slice


class NonlocalOperator:
    """Dense kernels on a width space, one per depth level.

    Args:
        space: The width space.
        level_weights: Quadrature weights omega of the depth levels, shape (levels,).
        coefficients: This rank's rows of the scaled kernel, shape (levels, n_nodes, n_local):
            [level, y, x] with y in mesh order. Kept, not copied.
    """

    dense = True
    """Whether the coefficients are what the kernel is held by."""

    def __init__(self, space: WidthSpace, level_weights: Array, coefficients: Array) -> None:
        self.space = space
        self.level_weights = level_weights
        self.coefficients = coefficients

    @cached_property
    def _equal(self) -> bool:
        """Whether node weights are one number: quicker to multiply by, and it cancels in K."""
        return bool(np.all(self.space.sqrt_weights == self.space.sqrt_weights[0]))

    @cached_property
    def _cancel(self) -> bool:
        return self._equal and self.space.comm.size == 1

    @cached_property
    def _sqrt_hx(self) -> Array:
        return self.space.sqrt_weights[self.space.owned, None][: 1 if self._equal else None]

    @cached_property
    def _scale(self) -> Array:
        return np.sqrt(self.level_weights)[:, None, None] * self._sqrt_hx

    @cached_property
    def _inverse(self) -> Array:
        return 1 / self._scale

    @cached_property
    def _inverse_omega(self) -> Array:
        return 1 / np.sqrt(self.level_weights)[:, None, None]

    @property
    def rows(self) -> Array:
        """Read as matrices [level, x, y], shape (levels, n_local, n_nodes); a view."""
        return self.coefficients.transpose(0, 2, 1)

    @property
    def gathered_rows(self) -> int:
        """Rows of `gather`'s result: all nodes."""
        return self.space.n_nodes

    def gather(self, f: Array, out: Array | None = None) -> Array:
        """sqrt(h_y) f(y) for all nodes: (n_local, samples) -> (n_nodes, samples), collective.

        Where there is one rank, f may also be [level, node, sample]. Here and below the result
        is put into `out` where it is given.
        """
        if self.space.comm.size == 1:
            return np.multiply(self._sqrt_hx, f, out=out)
        return self.space.gather(self._sqrt_hx * f, out=out)

    def apply(self, levels: Levels, gathered: Array, out: Array | None = None) -> Array:
        """(Kf)(x) at this rank's nodes, from `gather(f)`; shape (n_local, samples).

        Here and below `levels` is one level, or a slice of levels for arrays [level, node, sample].
        """
        result = np.matmul(self.coefficients[levels].swapaxes(-1, -2), gathered, out=out)
        result *= self._inverse[levels]
        return result

    def image(
        self, level: int, f: Array, room: Array | None = None, out: Array | None = None
    ) -> Array:
        """Kf at one level from f at this rank's nodes (collective).

        Args:
            level: The level.
            f: Shape (n_local, samples).
            room: Where `gather(f)` is wanted too, if at all.
            out: As in `apply`.
        """
        if room is not None or not self._cancel:
            return self.apply(level, self.gather(f, out=room), out=out)
        result = np.matmul(self.coefficients[level].T, f, out=out)
        result *= self._inverse_omega[level]
        return result

    def apply_transpose(self, levels: Levels, g: Array, out: Array | None = None) -> Array:
        """(K'g)(y) = int_Y a(x, y) g(x) dx at this rank's nodes (collective)."""
        scaled = g if self._equal else g * self._sqrt_hx
        if self.space.comm.size == 1:
            result = np.matmul(self.coefficients[levels], scaled, out=out)
        else:
            result = np.empty_like(g) if out is None else out
            products = np.matmul(self.coefficients[levels], scaled)
            each, here = (a[None] if a.ndim == 2 else a for a in (products, result))
            for level, product in enumerate(each):
                here[level] = self.space.scatter_sum(product)
        result *= (self._inverse_omega if self._equal else self._inverse)[levels]
        return result

    def outer(self, levels: Levels, q: Array, gathered: Array, out: Array | None = None) -> Array:
        """Coefficients of the kernel (x, y) -> sum_s q_s(x) f_s(y), shape (n_nodes, n_local)."""
        return np.matmul(gathered, (self._scale[levels] * q).swapaxes(-1, -2), out=out)

    def as_petsc(self, level: int) -> PETSc.Mat:
        """The level as a PETSc dense matrix that shares the coefficients' memory.

        It acts on L2-orthonormal coordinates: with f^ = sqrt(h) f, it maps f^ to
        sqrt(omega) (Kf)^. The caller destroys it.
        """
        n, N = self.space.n_local, self.space.n_nodes
        return PETSc.Mat().createDense(
            ((n, N), (n, N)), array=self.coefficients[level].reshape(-1), comm=self.space.comm
        )


def kernel_coefficients(space: WidthSpace, level_weights: Array, kernel: Array) -> Array:
    """This rank's coefficients of a kernel given by its values.

    Args:
        space: The width space.
        level_weights: Quadrature weights of the levels, shape (levels,).
        kernel: Values a(x, y) in file order, shape (levels, n_nodes, n_nodes).

    Returns:
        Shape (levels, n_nodes, n_local): [level, y, x].
    """
    rows = space.from_file_order(kernel, axis=1)[:, :, space.file_position]
    rows = rows * space.sqrt_weights[space.owned, None] * space.sqrt_weights
    return np.ascontiguousarray((rows * np.sqrt(level_weights)[:, None, None]).transpose(0, 2, 1))


def kernel_values(space: WidthSpace, level_weights: Array, coefficients: Array) -> Array:
    """Values a(x, y) in file order, shape (levels, n_nodes, n_nodes); inverse of the above."""
    scale = np.sqrt(level_weights)[:, None, None] * space.sqrt_weights[:, None]
    values = coefficients / (scale * space.sqrt_weights[space.owned])
    return space.to_file_order(values, axis=2)[:, space.file_order].transpose(0, 2, 1)
