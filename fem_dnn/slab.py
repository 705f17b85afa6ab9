"""The implicit stages of one slab: Y_i = start_i + tau sum_j A_ij slope_j(Y).

The same equation, with other slopes, is the state's, its tangent's and the discrete adjoint's. It
is solved to round-off by a fixed-point iteration with Anderson mixing, sample by sample: every
iteration costs one application of the nonlocal operator per level for all samples at once, and on
linear slopes it converges like GMRES (Walker & Ni, SIAM J. Numer. Anal. 49, 2011).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fem_dnn.errors import FemDnnError

Array = NDArray[np.float64]
Slopes = Callable[[Array], Array]
Sum = Callable[[Array], Array]

TOLERANCE = 2e-15
"""Relative residual at which a slab counts as solved to round-off."""

STALLED = 1e-12
"""Relative residual below which an iteration that no longer improves is at round-off."""

MAX_ITERATIONS = 80
MEMORY = 10
RIDGE = 1e-13 * np.eye(MEMORY)


def combine(coefficients: Array, levels: Array, out: Array | None = None) -> Array:
    """Linear combinations of what stands at a slab's levels.

    Args:
        coefficients: Shape (levels,) or (results, levels).
        levels: Shape (levels, n_local, samples).
        out: Where a single combination is wanted, shape (n_local, samples), contiguous.
    """
    if coefficients.size == 1:
        return np.multiply(levels[0] if coefficients.ndim == 1 else levels, coefficients, out=out)
    room = None if out is None else out.reshape(-1)
    flat: Array = np.matmul(coefficients, levels.reshape(len(levels), -1), out=room)
    return flat.reshape(*coefficients.shape[:-1], *levels.shape[1:])


class SlabFailure(FemDnnError):
    """An implicit slab has not been solved.

    Attributes:
        start, end: The slab's depths.
        residual: Relative residual reached.
        iterations: Iterations taken.
    """

    def __init__(self, start: float, end: float, residual: float, iterations: int) -> None:
        # All go to the base class: errors are pickled to travel between MPI ranks.
        super().__init__(start, end, residual, iterations)
        self.start, self.end, self.residual, self.iterations = start, end, residual, iterations

    def __str__(self) -> str:
        return (
            f"the implicit slab from depth {self.start:.6g} to {self.end:.6g} did not converge "
            f"(relative residual {self.residual:.1e} after {self.iterations} iterations): the "
            "kernel is too large for this step; use more layers (mesh.depth.cells) or a stronger "
            "regularization.kernel"
        )


def solve_stages(
    tableau: Array,
    interval: tuple[float, float],
    start: Array,
    slopes: Slopes,
    guess: Array,
    sum_over_ranks: Sum,
) -> tuple[Array, Array]:
    """Solve Y = start + tau A slopes(Y) on one slab.

    Args:
        tableau: A, shape (levels, levels).
        interval: Depths (t_n, t_{n+1}); tau is their difference.
        start: Shape (levels, n_local, samples).
        slopes: Y -> slopes at every level, same shape as Y. Called last at the returned stages.
        guess: First guess of the slopes, same shape.
        sum_over_ranks: Sums a small array over ranks.

    Returns:
        Stages Y and slopes(Y), each of shape (levels, n_local, samples).

    Raises:
        SlabFailure: No convergence; raised on all ranks alike.
    """
    step = (interval[1] - interval[0]) * tableau
    mixing = _AndersonMixing(start.shape, sum_over_ranks)
    Y = start + combine(step, guess)
    scale = np.zeros(start.shape[-1])
    best, stalled, relative = np.inf, 0, np.inf
    for iteration in range(MAX_ITERATIONS):
        z = slopes(Y)
        G = start + combine(step, z)
        R = G - Y
        if iteration == 0:
            square, *others = sum_over_ranks(np.array([_dots(f, f) for f in (R, G, start)]))
            scale = np.sqrt(np.maximum(*others))
            scale[scale == 0] = 1.0
            mixing.begin(R, G)
        else:
            square = mixing.add(R, G)
        relative = float((np.sqrt(square) / scale).max(initial=0))
        stalled = stalled + 1 if relative > 0.9 * best else 0
        best = min(best, relative)
        if relative <= TOLERANCE or (stalled >= 2 and relative <= STALLED):
            return Y, z
        if not np.isfinite(relative):
            break
        Y = mixing.next()
    raise SlabFailure(*interval, relative, iteration + 1)


def _dots(f: Array, g: Array) -> Array:
    """Products per sample of (levels, nodes, samples)."""
    samples = f.shape[-1]
    return np.einsum("is,is->s", f.reshape(-1, samples), g.reshape(-1, samples))


class _AndersonMixing:
    """Next iterate G - sum_k gamma_k dG_k, gamma minimising |R - sum_k gamma_k dR_k| per sample.

    All products that an iterate brings are summed over ranks at once: in a slab of few nodes the
    exchanges, not the arithmetic, take the time.
    """

    def __init__(self, shape: tuple[int, ...], sum_over_ranks: Sum) -> None:
        self.sum = sum_over_ranks
        samples = shape[-1]
        self.residuals = np.empty((1 + MEMORY, math.prod(shape[:-1]), samples))
        """R, and after it the differences dR."""
        self.dG = np.empty((MEMORY, *shape))
        self.gram = np.zeros((samples, MEMORY, MEMORY))
        self.right: Array = np.empty((samples, 0))
        self.count = 0

    def begin(self, R: Array, G: Array) -> None:
        """The first iterate has image G and residual R."""
        self.residuals[0] = R.reshape(self.residuals[0].shape)
        self.G = G

    def add(self, R: Array, G: Array) -> Array:
        """Take the iterate with image G and residual R; |R|^2 per sample (collective)."""
        k = self.count % MEMORY
        self.count += 1
        m = min(self.count, MEMORY)
        known, R = self.residuals[: 1 + m], R.reshape(self.residuals[0].shape)
        np.subtract(R, known[0], out=known[1 + k])
        known[0] = R
        np.subtract(G, self.G, out=self.dG[k])
        self.G = G
        products = self.sum(np.einsum("mis,kis->kms", known, known[:: 1 + k]))
        self.gram[:, k, :m] = self.gram[:, :m, k] = products[1, 1:].T
        self.right = products[0, 1:].T
        square: Array = products[0, 0]
        return square

    def next(self) -> Array:
        """The iterate after the last one."""
        m = min(self.count, MEMORY)
        if m == 0:
            return self.G
        gram = self.gram[:, :m, :m]
        # Columns shrink by orders of magnitude as the iteration converges: normalise them, and
        # add a ridge at round-off for columns that have become parallel.
        norm: Array = np.sqrt(gram.diagonal(axis1=1, axis2=2))
        norm[norm == 0] = np.inf
        inverse = 1.0 / norm
        scaled = gram * inverse[:, :, None]
        scaled *= inverse[:, None, :]
        scaled += RIDGE[:m, :m]
        gamma = inverse * np.linalg.solve(scaled, (self.right * inverse)[..., None])[..., 0]
        return self.G - np.einsum("sk,klns->lns", gamma, self.dG[:m])
