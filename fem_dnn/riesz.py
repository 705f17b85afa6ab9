"""The Riesz map of the regulariser: coordinates in which R'' is a multiple of the identity.

Where derivatives of the controls are penalised, R'' is unbounded under refinement, and so would be
the iteration counts of Newton-CG in L2 coordinates. With a factor T of its inverse,

    R'' = s T^{-T} T^{-1}        (s the Tikhonov weight of each block),

a control c = c_0 + T z has in z the Hessian s I plus a compact operator, whatever the mesh; norms,
trust regions and conjugate gradients in z are those of the regulariser's own inner product.

The factors are made of the small one-dimensional ones. Depth alone: the banded Cholesky factor of
I + (gamma / s) A_t, T = L^{-T} by recursion over the levels. With width: the eigenvectors of A_t
and A_x, in which R'' is diagonal (Lynch, Rice & Thomas, Numer. Math. 6, 1964).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Protocol

import numpy as np
import scipy.linalg as linalg
import scipy.sparse as sparse
from numpy.typing import NDArray

from fem_dnn.controls import ControlParts
from fem_dnn.regularization import DerivativeForms, Regularization, Weights

Array = NDArray[np.float64]


class Factor(Protocol):
    """T of one control, acting on arrays of coordinates [level, ..., x]."""

    def apply(self, z: Array) -> Array:
        """T z."""

    def apply_transpose(self, g: Array) -> Array:
        """T' g."""


class BandedFactor:
    """T = L^{-T} with L L' = I + gamma A_t, along the levels.

    Args:
        form: A_t in L2-orthonormal coordinates, shape (levels, levels), banded.
        gamma: Its weight.
    """

    def __init__(self, form: sparse.csr_array, gamma: float) -> None:
        matrix = np.eye(form.shape[0]) + gamma * form.toarray()
        rows, columns = np.nonzero(matrix)
        self.width = int(np.max(np.abs(rows - columns), initial=0))
        self.factor = np.linalg.cholesky(matrix)

    def apply(self, z: Array) -> Array:
        """Solve L' c = z, from the last level to the first."""
        return self._substitute(z, range(len(z))[::-1], self.factor.T)

    def apply_transpose(self, g: Array) -> Array:
        """Solve L h = g, from the first level to the last."""
        return self._substitute(g, range(len(g)), self.factor)

    def _substitute(self, right: Array, order: range, triangle: Array) -> Array:
        flat = right.reshape(len(right), -1)
        solution = np.empty_like(flat)
        for step, level in enumerate(order):
            known = list(order[max(0, step - self.width) : step])
            row = flat[level] - triangle[level, known] @ solution[known]
            np.divide(row, triangle[level, level], out=solution[level])
        return solution.reshape(right.shape)


class DiagonalisedFactor:
    """T = V d^{-1/2} V' with I + gamma A_t + eta A_x [+ eta A_y] = V d V', symmetric.

    Args:
        forms: Forms of derivatives.
        gamma, eta: Their weights.
    """

    def __init__(self, forms: DerivativeForms, gamma: float, eta: float) -> None:
        self.space = forms.space
        self._depth, self._depth_vectors = np.linalg.eigh(forms.depth.toarray())
        self._width, self._width_vectors = linalg.eigh(forms.width.toarray())
        self._depth *= gamma
        self._width *= eta

    def apply(self, z: Array) -> Array:
        """T z (collective)."""
        depth, width = self._depth_vectors, self._width_vectors
        modes = self._transform(z, depth.T, width.T)
        eigenvalues = 1 + self._depth.reshape(-1, *(1,) * (z.ndim - 1))
        eigenvalues = eigenvalues + self._width[self.space.owned]
        if z.ndim == 3:
            eigenvalues = eigenvalues + self._width[:, None]
        modes /= np.sqrt(eigenvalues)
        return self._transform(modes, depth, width)

    apply_transpose = apply

    def _transform(self, c: Array, depth: Array, width: Array) -> Array:
        """depth along the levels, width along x and, in a kernel, along y."""
        c = (depth @ c.reshape(len(c), -1)).reshape(c.shape)
        mine = width[:, self.space.owned]
        if c.ndim == 2:
            return self.space.scatter_sum(mine @ c.T).T
        result = np.empty_like(c)
        for level, kernel in enumerate(c):
            result[level] = self.space.scatter_sum(mine @ (width @ kernel).T).T
        return result


class RieszMap:
    """T on control vectors; the identity where no derivative is penalised.

    Args:
        regularization: The regulariser.
    """

    def __init__(self, regularization: Regularization) -> None:
        self.regularization = regularization
        self.controls = regularization.controls

    @property
    def trivial(self) -> bool:
        """Whether T is the identity."""
        return not self.regularization.smooth

    @cached_property
    def scales(self) -> Mapping[str, float]:
        """s of each block: lambda, or where that is 0 the weight of the gravest mode."""
        scales = dict(self.regularization.tikhonov)
        for name, weights in self.regularization.smooth.items():
            if scales[name] == 0:
                scales[name] = _gravest(weights, self.regularization.forms)
        return scales

    @cached_property
    def _factors(self) -> Mapping[str, Factor]:
        forms = self.regularization.forms
        factors: dict[str, Factor] = {}
        for name, weights in self.regularization.smooth.items():
            gamma, eta = (w / self.scales[name] for w in (weights.depth, weights.width))
            factors[name] = (
                DiagonalisedFactor(forms, gamma, eta) if eta else BandedFactor(forms.depth, gamma)
            )
        return factors

    def apply(self, z: Array) -> Array:
        """T z: from the regulariser's coordinates to L2-orthonormal ones (collective)."""
        return self._each(z, lambda factor, part: factor.apply(part))

    def apply_transpose(self, g: Array) -> Array:
        """T' g: a gradient in the regulariser's coordinates (collective)."""
        return self._each(g, lambda factor, part: factor.apply_transpose(part))

    def solve(self, g: Array) -> Array:
        """R''^{-1} g = T T' g / s (collective). Blocks with s = 0 are left out: 0.

        With a mask and a width derivative this is the inverse without the mask, restricted.
        """
        solution = self.apply(self.apply_transpose(g))
        for name, part in self.controls.blocks.items():
            s = self.scales[name]
            solution[part] = solution[part] / s if s else 0.0
        return solution

    def _each(self, vector: Array, act: Callable[[Factor, Array], Array]) -> Array:
        if self.trivial:
            return vector.copy()
        parts = self.controls.split(vector)
        changed = {
            name: act(factor, getattr(parts, name)) for name, factor in self._factors.items()
        }
        packed = self.controls.join(
            ControlParts(changed.get("kernel"), changed.get("bias"), None, None)
        )
        result = vector.copy()
        for name in changed:
            block = self.controls.blocks[name]
            result[block] = packed[block]
        return result


def _gravest(weights: Weights, forms: DerivativeForms) -> float:
    """The smallest weight of a derivative's first mode, (pi / extent)^2 times its factor."""
    low, high = forms.space.bounds
    extents = {weights.depth: forms.levels.points[-1], weights.width: np.max(high - low)}
    return float(min(w * (np.pi / extent) ** 2 for w, extent in extents.items() if w > 0))
