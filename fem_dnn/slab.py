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

MAX_ITERATIONS = 60
MEMORY = 6


class SlabFailure(FemDnnError):
    """An implicit slab has not been solved.

    Attributes:
        start, end: The slab's depths.
        residual: Relative residual reached.
    """

    def __init__(self, start: float, end: float, residual: float) -> None:
        self.start, self.end, self.residual = start, end, residual
        super().__init__(
            f"the implicit slab from depth {start:.6g} to {end:.6g} did not converge (relative "
            f"residual {residual:.1e} after {MAX_ITERATIONS} iterations): the kernel is too large "
            "for this step; use more layers (mesh.depth.cells) or a stronger regularization.kernel"
        )


def solve_stages(
    tableau: Array, interval: tuple[float, float], start: Array, slopes: Slopes, guess: Array,
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
    if not tableau.any():
        return start, slopes(start)

    def image(z: Array) -> Array:
        return start + tau * np.tensordot(tableau, z, axes=1)

    mixing = _AndersonMixing(start.shape, sum_over_ranks)
    Y = image(guess)
    best, stalled, relative = np.inf, 0, np.inf
    for _ in range(MAX_ITERATIONS):
        z = slopes(Y)
        G = image(z)
        R = G - Y
        squares = sum_over_ranks(np.stack([_squares(R), _squares(G), _squares(start)]))
        scale = np.sqrt(np.maximum(squares[1], squares[2]))
        relative = float(np.max(np.sqrt(squares[0]) / np.where(scale > 0, scale, 1), initial=0))
        stalled = stalled + 1 if relative > 0.5 * best else 0
        best = min(best, relative)
        if relative <= TOLERANCE or (stalled >= 2 and relative <= STALLED):
            return Y, z
        if not np.isfinite(relative):
            break
        Y = mixing.next(R, G)
    raise SlabFailure(*interval, relative)


def _squares(f: Array) -> Array:
    """Sum of squares per sample: (levels, nodes, samples) -> (samples,)."""
    return _dots(f, f)


def _dots(f: Array, g: Array) -> Array:
    flat = (-1, f.shape[-1])
    return np.einsum("is,is->s", f.reshape(flat), g.reshape(flat))


class _AndersonMixing:
    """Next iterate G - sum_k gamma_k dG_k, gamma minimising |R - sum_k gamma_k dR_k| per sample."""

    def __init__(self, shape: tuple[int, ...], sum_over_ranks: Sum) -> None:
        self.sum = sum_over_ranks
        self.dR = np.zeros((MEMORY, *shape))
        self.dG = np.zeros((MEMORY, *shape))
        self.gram = np.zeros((shape[-1], MEMORY, MEMORY))
        self.count = 0
        self.R: Array | None = None
        self.G: Array | None = None

    def next(self, R: Array, G: Array) -> Array:
        if self.R is None or self.G is None:
            self.R, self.G = R, G
            return G
        k = self.count % MEMORY
        self.count += 1
        m = min(self.count, MEMORY)
        np.subtract(R, self.R, out=self.dR[k])
        np.subtract(G, self.G, out=self.dG[k])
        self.R, self.G = R, G
        products = self.sum(
            np.stack(
                [_dots(self.dR[j], self.dR[k]) for j in range(m)]
                + [_dots(self.dR[j], R) for j in range(m)]
            )
        )
        self.gram[:, k, :m] = self.gram[:, :m, k] = products[:m].T
        gram = self.gram[:, :m, :m]
        # Columns shrink by orders of magnitude as the iteration converges: normalise them, and
        # add a ridge at round-off for columns that have become parallel.
        norm = np.sqrt(np.einsum("skk->sk", gram))
        inverse = np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0)
        scaled = gram * inverse[:, :, None] * inverse[:, None, :] + 1e-13 * np.eye(m)
        gamma = inverse * np.linalg.solve(scaled, (products[m:].T * inverse)[..., None])[..., 0]
        return G - np.einsum("sk,klns->lns", gamma, self.dG[:m], optimize=True)
