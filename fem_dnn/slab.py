"""The implicit stages of one slab: Y_i = start_i + tau sum_j A_ij slope_j(Y).

The same equation, with other slopes, is the state's, its tangent's and the discrete adjoint's. It
is solved to round-off by a fixed-point iteration with Anderson mixing, sample by sample: every
iteration costs one application of the nonlocal operator per level for all samples at once, and on
linear slopes it converges like GMRES (Walker & Ni, SIAM J. Numer. Anal. 49, 2011).
"""

from __future__ import annotations

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
    tau = interval[1] - interval[0]

    def image(z: Array) -> Array:
        return start + combine(tau * tableau, z)

    mixing = _AndersonMixing(start.shape, sum_over_ranks)
    Y = image(guess)
    scale = np.zeros(start.shape[-1])
    best, stalled, relative = np.inf, 0, np.inf
    for iteration in range(MAX_ITERATIONS):
        z = slopes(Y)
        G = image(z)
        R = G - Y
        if iteration == 0:
            squares = sum_over_ranks(np.stack([_dots(f, f) for f in (R, G, start)]))
            scale = np.sqrt(np.maximum(squares[1], squares[2]))
            scale[scale == 0] = 1.0
            square = squares[0]
        else:
            square = sum_over_ranks(_dots(R, R))
        relative = float(np.max(np.sqrt(square) / scale, initial=0))
        stalled = stalled + 1 if relative > 0.9 * best else 0
        best = min(best, relative)
        if relative <= TOLERANCE or (stalled >= 2 and relative <= STALLED):
            return Y, z
        if not np.isfinite(relative):
            break
        Y = mixing.next(R, G)
    raise SlabFailure(*interval, relative, iteration + 1)


def _dots(f: Array, g: Array) -> Array:
    """Products per sample: (levels, nodes, samples) with itself or a stack of such."""
    samples = f.shape[-1]
    return np.einsum(
        "...is,is->...s", f.reshape(*f.shape[:-3], -1, samples), g.reshape(-1, samples)
    )


class _AndersonMixing:
    """Next iterate G - sum_k gamma_k dG_k, gamma minimising |R - sum_k gamma_k dR_k| per sample."""

    def __init__(self, shape: tuple[int, ...], sum_over_ranks: Sum) -> None:
        self.sum = sum_over_ranks
        self.dR = np.empty((MEMORY, *shape))
        self.dG = np.empty((MEMORY, *shape))
        self.gram = np.zeros((shape[-1], MEMORY, MEMORY))
        self.count = 0
        self.last: tuple[Array, Array] | None = None

    def next(self, R: Array, G: Array) -> Array:
        """The next iterate after one with image G and residual R."""
        if self.last is None:
            self.last = R, G
            return G
        k = self.count % MEMORY
        self.count += 1
        m = min(self.count, MEMORY)
        np.subtract(R, self.last[0], out=self.dR[k])
        np.subtract(G, self.last[1], out=self.dG[k])
        self.last = R, G
        known = self.dR[:m]
        products = self.sum(np.stack([_dots(known, self.dR[k]), _dots(known, R)]))
        self.gram[:, k, :m] = self.gram[:, :m, k] = products[0].T
        gram = self.gram[:, :m, :m]
        # Columns shrink by orders of magnitude as the iteration converges: normalise them, and
        # add a ridge at round-off for columns that have become parallel.
        norm = np.sqrt(gram[:, range(m), range(m)])
        inverse = np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0)
        scaled = gram * inverse[:, :, None] * inverse[:, None, :] + 1e-13 * np.eye(m)
        gamma = inverse * np.linalg.solve(scaled, (products[1].T * inverse)[..., None])[..., 0]
        return G - np.einsum("sk,klns->lns", gamma, self.dG[:m])
