"""Newton steps for a frozen neuron on N layers: the Hessian factorised, shifted where indefinite.

The loss couples all layers, so the Hessian in z is full. Where u -> v is invertible (K of full
rank, sigma' > 0) the states are as good an unknown: with

    dz_n = (diag(sigma'_n) M)^{-1} (dy_{n+1} - dy_n) / tau,   dz = T dy,

the congruent Hessian T'HT is banded, and a step costs O(N) in place of O(N^3).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve, cho_solve_banded, cholesky_banded

from fem_dnn.existence.frozen import FrozenNeuron

Array = NDArray[np.float64]

_STEEP = 1e-6
"""Least sigma' with which states are taken as unknowns."""


class Problem(Protocol):
    """What is needed of the layered problem."""

    @property
    def neuron(self) -> FrozenNeuron: ...
    @property
    def tau(self) -> float: ...
    @property
    def mass(self) -> sparse.csr_array: ...
    def gradient(self, z: Array) -> Array: ...
    def hessian(self, z: Array) -> Array: ...
    @property
    def stiffness(self) -> float: ...
    def local_blocks(self, z: Array) -> Array: ...


def newton_step(problem: Problem, z: Array) -> tuple[Array, float, bool]:
    """A step of descent at some controls z, shape (N, rank).

    Returns:
        The step, how much the quadratic model falls by it, and whether the Hessian is positive
        definite.
    """
    velocities = problem.neuron.velocities
    g = problem.gradient(z).ravel()
    slopes = velocities.activation.evaluate(velocities.u(z), 1)[1]
    invertible = velocities.rank == velocities.samples and float(np.min(slopes)) > _STEEP
    solve = _ByStates(problem, z, slopes) if invertible else _ByControls(problem, z)
    shift = 0.0
    while True:
        try:
            step = -solve(g, shift)
            break
        except LinAlgError:
            shift = max(4 * shift, 1e-3 * problem.tau)
    return step.reshape(z.shape), -0.5 * float(g @ step), shift == 0.0


class _ByControls:
    """Solves (H + shift) dz = g with the full Hessian."""

    def __init__(self, problem: Problem, z: Array) -> None:
        self.hessian = problem.hessian(z)

    def __call__(self, g: Array, shift: float) -> Array:
        shifted = self.hessian + shift * np.eye(len(g))
        solved: Array = cho_solve(cho_factor(shifted, lower=True), g)
        return solved


class _ByStates:
    """Solves it with T'HT, in blocks: D_k holds what couples y_{n+k} to y_n."""

    def __init__(self, problem: Problem, z: Array, slopes: Array) -> None:
        neuron, (N, S) = problem.neuron, slopes.shape
        self.problem = problem
        # dz_n = G_n (y_{n+1} - y_n)
        self.G = np.linalg.inv(neuron.velocities.factor) / slopes[:, None, :] / problem.tau
        self.D0, self.D1 = np.zeros((N, S, S)), np.zeros((max(N - 1, 0), S, S))
        self.D2 = np.zeros((max(N - 2, 0), S, S))
        self._couple(problem.local_blocks(z), problem.stiffness)
        mass, s = problem.mass, np.arange(S)
        self.D0[:, s, s] += mass.diagonal()[1:, None] * neuron.tracking
        self.D1[:, s, s] += mass.diagonal(1)[1:, None] * neuron.tracking
        self.D0[-1, s, s] += neuron.weights

    def _couple(self, blocks: Array, stiffness: float) -> None:
        """Add sum_n dz_n' blocks_n dz_n - 2 stiffness dz_n' dz_{n+1}."""
        own = self.G.transpose(0, 2, 1) @ blocks @ self.G
        self.D0 += own
        self.D0[:-1] += own[1:]
        self.D1 -= own[1:]
        if stiffness:
            # With w_n = y_{n+1} - y_n the coupling is w_n' B_n w_{n+1} and its transpose.
            B = -stiffness * self.G[:-1].transpose(0, 2, 1) @ self.G[1:]
            Bt = B.transpose(0, 2, 1)
            self.D0[:-1] -= B + Bt
            self.D1 += Bt
            self.D1[:-1] += Bt[1:]
            self.D2 -= Bt[1:]

    def __call__(self, g: Array, shift: float) -> Array:
        if shift:
            self._couple(np.broadcast_to(shift * np.eye(self.G.shape[1]), self.G.shape), 0.0)
        N, S = self.D0.shape[:2]
        band = np.zeros((3 * S, N * S))
        for k, blocks in enumerate((self.D0, self.D1, self.D2)):
            for i in range(S):
                for j in range(i + 1 if k == 0 else S):
                    band[k * S + i - j, j : j + len(blocks) * S : S] = blocks[:, i, j]
        pulled = np.einsum("nrs,nr->ns", self.G, g.reshape(N, -1))
        pulled[:-1] -= pulled[1:]
        factor = cholesky_banded(band, lower=True)
        y = cho_solve_banded((factor, True), pulled.ravel()).reshape(N, S)
        solved: Array = np.einsum("nrs,ns->nr", self.G, np.diff(y, axis=0, prepend=0.0)).ravel()
        return solved
