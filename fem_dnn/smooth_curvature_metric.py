"""`curvature_metric`'s coordinates where derivatives of the controls in depth are penalised.

There R'' couples the levels, by one matrix M for all entries of the kernel and one for the bias,
M = lambda I + gamma A_t. In the coordinates y of the Riesz map, c = M^{-1/2} y sqrt(s), it is s I
again, and the rest of

    P = R'' + Phi D Phi' + J' W J = s T^{-T} T^{-1},        c = c_0 + T z,      T' H T = s I + few,

acts at every node on the same few directions: those of A = M^{-1/2} Theta, with Theta the functions
f_s and 1 that kernel rows and biases act on, on all levels together. They are fewer than levels
times samples, because the samples at a level and the smoothed functions of neighbouring levels are
nearly dependent: A = Q S with Q orthonormal, by a pivoted Cholesky factor of A'A (Harbrecht, Peters
& Schneider, Appl. Numer. Math. 62, 2012). With D's blocks C at the levels and the Cholesky factor L
of I + S C S' at every node, and U, theta as in `inverse_root`,

    T = sqrt(s) M^{-1/2} (I + Q (L^{-T} (I - U (1 - (1 + theta)^{-1/2}) U') - I) Q').

Where D's negative parts would make I + S C S' nearly indefinite at a node, they are shortened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg as linalg
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.coordinates import CurvatureCoordinates
from fem_dnn.gauss_newton import few_output_slopes, finite
from fem_dnn.inverse_root import Without, left_vectors
from fem_dnn.problem import Linearisation
from fem_dnn.regularization import Regularization
from fem_dnn.riesz import BandedFactor, RieszMap

Array = NDArray[np.float64]
Numbers = NDArray[np.floating]

SEEN = 0.3
"""Directions in which the pointwise and the Gauss-Newton term are below this part of R'' are left
out."""

MAX_RANK = 8
"""Directions kept at a level, at most."""

MAX_DIRECTIONS = 100
"""Directions kept of all levels together, at most."""

NEGATIVE = 0.8
"""Part of R'' that negative curvature may take away at a node."""

NUMBERS_AT_ONCE = 2**22
"""Numbers made at once of the nodes' matrices."""

ROUND_OFF = 1e-14
"""Added to what may be singular, relative to 1."""


class SmoothCurvatureMetric(CurvatureCoordinates):
    """T at one point.

    Args:
        at: The point, of a problem that has such coordinates (`curvature_metric.why_not`).
    """

    def __init__(self, at: Linearisation) -> None:
        problem = at.problem
        self.controls = problem.controls
        weight = problem.regularization.least_weight
        assert weight is not None, "a problem where no control is penalised has no such coordinates"
        self.weight = weight
        """s: the Hessian in z is about this times the identity."""
        self._roots = _roots(problem.regularization, self.weight)
        inverses = {name: root @ root.T for name, root in self._roots.items()}
        tikhonov = problem.regularization.tikhonov
        self._scales = {
            name: float(np.sqrt(self.weight / (tikhonov[name] or self.weight)))
            for name in ("outputs", "offsets")
        }
        pointwise = finite(problem.sample_weights * at.curvature)
        slopes = few_output_slopes(at)
        outputs = None if slopes is None else slopes.parts
        strength = np.max(np.abs(pointwise), axis=(1, 2), initial=0.0)
        if outputs is not None:
            strength = np.maximum(strength, np.max(outputs**2, axis=(1, 2, 3), initial=0.0))
        self.controls.space.comm.Allreduce(MPI.IN_PLACE, strength, op=MPI.MAX)
        basis, features = self._reduced(at, strength, inverses)
        weights, spread = _joined(basis, inverses, strength)
        inverse = _inverse_factors(spread, features, pointwise)
        without = self._by_outputs(inverse, spread @ features, outputs)
        self._term = _Term(inverses, basis, weights, inverse, without)

    @cached_property
    def _single_term(self) -> _Term:
        return self._term.single()

    def _reduced(
        self, at: Linearisation, strength: Array, inverses: Mapping[str, Array]
    ) -> tuple[Mapping[str, Array], Array]:
        """Theta F with orthonormal rows F: what matters of f_s and 1 at every level, by 1/sqrt(s).

        Returns:
            Theta of the kernel, (levels, n_nodes, rank), and of the bias, (levels, 1, rank), and F,
            (levels, rank, samples).
        """
        levels, _, samples = at.state.slope.shape
        features: dict[str, Array] = {}
        if self.controls.has_kernel and at.state.gathered is not None:
            features["kernel"] = at.state.gathered / np.sqrt(self.weight)
        if self.controls.has_bias:
            features["bias"] = np.full((levels, 1, samples), 1 / np.sqrt(self.weight))
        scales = {name: np.sqrt(np.diag(inverses[name]))[:, None, None] for name in features}
        alone = np.concatenate([scales[name] * part for name, part in features.items()], axis=1)
        wide = alone.shape[1] < samples
        gram = alone @ alone.swapaxes(1, 2) if wide else alone.swapaxes(1, 2) @ alone
        squares, vectors = np.linalg.eigh(gram)
        rank = int(np.max(np.sum(squares * strength[:, None] > SEEN, axis=1)))
        vectors = vectors[:, :, : -min(max(rank, 1), MAX_RANK) - 1 : -1]
        if wide:
            rows = vectors.swapaxes(1, 2) @ alone
            lengths = np.maximum(np.linalg.norm(rows, axis=2, keepdims=True), ROUND_OFF)
            rows, columns = rows / lengths, vectors * lengths.swapaxes(1, 2)
        else:
            rows, columns = vectors.swapaxes(1, 2), alone @ vectors
        widths = np.cumsum([part.shape[1] for part in features.values()])[:-1]
        parts = zip(scales.items(), np.split(columns, widths, axis=1), strict=True)
        return {name: part / scale for (name, scale), part in parts}, np.ascontiguousarray(rows)

    def _by_outputs(self, inverse: Array, features: Array, outputs: Array | None) -> Without:
        """I - U (1 - (1 + theta)^{-1/2}) U' (collective).

        Args:
            inverse: L^{-1}.
            features: S F, shape (levels, directions, samples).
            outputs: `gauss_newton.OutputSlopes.parts`.
        """
        space, (nodes, directions, _) = self.controls.space, inverse.shape
        if outputs is None:
            return Without(space, np.zeros((nodes * directions, 0)), np.zeros(0))
        levels, _, samples = features.shape
        # Sample by sample, and contiguous: of others NumPy makes no fast products.
        slopes = outputs.transpose(1, 0, 3, 2).reshape(samples, levels, -1)
        jacobian = np.ascontiguousarray(features.transpose(2, 1, 0)) @ slopes
        jacobian = jacobian.reshape(samples, directions, nodes, -1).transpose(2, 1, 3, 0)
        jacobian = np.ascontiguousarray(jacobian).reshape(nodes, directions, -1)
        root = (inverse @ jacobian).reshape(nodes * directions, -1)
        return Without(space, *left_vectors(space, root, SEEN))

    def apply(self, z: Array) -> Array:
        """T z (collective)."""
        result, term = self._scaled(z.copy()), self._term
        blocks = self._blocks(result)
        for name, rows in blocks.items():
            _multiply_along_depth(self._roots[name], rows, transposed=False)
        y = term.coordinates(blocks)
        term.add((term.inverse.swapaxes(1, 2) @ term.without(y)[..., None])[..., 0] - y, blocks)
        return result

    def apply_transpose(self, g: Array) -> Array:
        """T' g: a gradient by z (collective)."""
        result, term = self._scaled(g.copy()), self._term
        blocks = self._blocks(result)
        y = term.coordinates(
            {name: _along_depth(term.inverses[name], rows) for name, rows in blocks.items()}
        )
        moved = term.moved(term.without((term.inverse @ y[..., None])[..., 0]) - y)
        for name, rows in blocks.items():
            rows += term.bases[name] @ moved
            _multiply_along_depth(self._roots[name], rows, transposed=True)
        return result

    def inverse(self, g: Numbers) -> Numbers:
        """T T' g / s, in g's precision (collective)."""
        term = self._term if g.dtype == np.float64 else self._single_term
        result = self._scaled(self._scaled(g / g.dtype.type(self.weight)))
        blocks = self._blocks(result)
        for name, rows in blocks.items():
            rows[...] = _along_depth(term.inverses[name], rows)
        y = term.coordinates(blocks)
        z = term.without.twice((term.inverse @ y[..., None])[..., 0])
        term.add((term.inverse.swapaxes(1, 2) @ z[..., None])[..., 0] - y, blocks)
        return result

    def _blocks(self, vector: Numbers) -> dict[str, Any]:
        """Views of kernel, (levels, n_nodes, n_local), and bias, (levels, 1, n_local)."""
        return {
            name: vector[self.controls.blocks[name]].reshape(*basis.shape[:2], -1)
            for name, basis in self._term.bases.items()
        }

    def _scaled(self, vector: Numbers) -> Any:
        """A vector, in its place, with the learned outputs in units of their own weight."""
        for name, scale in self._scales.items():
            vector[self.controls.blocks[name]] *= scale
        return vector


@dataclass(frozen=True, eq=False)
class _Term:
    """What is added to sqrt(s) M^{-1/2}, with Q = M^{-1/2} Theta S^+.

    Attributes:
        inverses: s M^{-1} of kernel and bias.
        bases: Theta, (levels, rows, rank) of the kernel, (levels, 1, rank) of the bias.
        weights: S^+, shape (levels rank, directions).
        inverse: L^{-1}, shape (n_local, directions, directions).
        without: I - U (1 - (1 + theta)^{-1/2}) U'.
    """

    inverses: Mapping[str, Numbers]
    bases: Mapping[str, Numbers]
    weights: Numbers
    inverse: Numbers
    without: Without

    def single(self) -> _Term:
        """The same for vectors in single precision."""
        inverses, bases = (
            {name: array.astype(np.float32) for name, array in arrays.items()}
            for arrays in (self.inverses, self.bases)
        )
        weights, inverse = (array.astype(np.float32) for array in (self.weights, self.inverse))
        return _Term(inverses, bases, weights, inverse, self.without.single())

    def coordinates(self, blocks: Mapping[str, Any]) -> Any:
        """(Theta S^+)' of kernel rows and biases, shape (n_local, directions)."""
        along = sum(basis.swapaxes(1, 2) @ blocks[name] for name, basis in self.bases.items())
        assert isinstance(along, np.ndarray), "kernel or bias is a control"
        return (self.weights.T @ along.reshape(len(self.weights), -1)).T

    def moved(self, change: Numbers) -> Any:
        """S^+ change, shape (levels, rank, n_local)."""
        levels, _, rank = next(iter(self.bases.values())).shape
        return (self.weights @ change.T).reshape(levels, rank, -1)

    def add(self, change: Numbers, blocks: Mapping[str, Any]) -> None:
        """Add s M^{-1} Theta S^+ change to kernel rows and biases."""
        moved = self.moved(change)
        for name, rows in blocks.items():
            rows += _along_depth(self.inverses[name], self.bases[name] @ moved)


def _roots(regularization: Regularization, weight: float) -> Mapping[str, Array]:
    """sqrt(s) M^{-1/2} of kernel and bias, upper triangles: with their transpose they are s M^{-1}.

    What R leaves free is measured as if by the smallest weight.
    """
    scales = RieszMap(regularization).scales
    roots = {}
    for name, weights in regularization.terms.items():
        scale = scales[name] or weight
        lower = BandedFactor(regularization.forms.depth, weights.depth / scale).factor
        inverse = linalg.solve_triangular(lower, np.eye(len(lower)), lower=True)
        roots[name] = np.asfortranarray(np.sqrt(weight / scale) * inverse.T)
    return roots


def _joined(
    bases: Mapping[str, Array], inverses: Mapping[str, Array], strength: Array
) -> tuple[Array, Array]:
    """S^+, (levels rank, directions), and S by levels, (levels, directions, rank).

    Args:
        bases: Theta of kernel and bias, (levels, rows, rank).
        inverses: s M^{-1} of both.
        strength: The largest weight at each level.
    """
    levels, _, rank = next(iter(bases.values())).shape
    gram = np.zeros((levels * rank, levels * rank))
    for name, basis in bases.items():
        columns = basis.swapaxes(1, 2).reshape(levels * rank, -1)
        products = (columns @ columns.T).reshape(levels, rank, levels, rank)
        products *= inverses[name][:, None, :, None]
        gram += products.reshape(gram.shape)
    scale = np.sqrt(np.repeat(np.maximum(strength, ROUND_OFF), rank))
    gram *= scale[:, None] * scale
    gram += ROUND_OFF * np.eye(len(gram))
    triangle, pivots, count, _ = linalg.lapack.dpstrf(gram, tol=SEEN)
    count, pivots = min(int(count), MAX_DIRECTIONS), pivots - 1
    triangle = np.triu(triangle)[:count]
    spread = np.empty((count, levels * rank))
    spread[:, pivots] = triangle
    weights = np.zeros((levels * rank, count))
    weights[pivots[:count]] = linalg.solve_triangular(triangle[:, :count], np.eye(count))
    spread = (spread / scale).reshape(count, levels, rank)
    return scale[:, None] * weights, np.ascontiguousarray(spread.swapaxes(0, 1))


def _along_depth(matrix: Numbers, rows: Numbers) -> Any:
    """A matrix by the levels of an array [level, ...]."""
    return (matrix @ rows.reshape(len(rows), -1)).reshape(rows.shape)


def _multiply_along_depth(triangle: Array, rows: Array, *, transposed: bool) -> None:
    """The same, in place, by an upper triangle, in Fortran's order, or by its transpose."""
    across = rows.reshape(len(rows), -1).T
    linalg.blas.dtrmm(1.0, triangle, across, side=1, trans_a=not transposed, overwrite_b=1)


def _inverse_factors(spread: Array, features: Array, pointwise: Array) -> Array:
    """L^{-1} with L L' = I + S C S' at every node, shape (n_local, directions, directions).

    Args:
        spread: S, shape (levels, directions, rank).
        features: F, shape (levels, rank, samples).
        pointwise: D, shape (levels, n_local, samples).
    """
    (levels, directions, rank), nodes = spread.shape, pointwise.shape[1]
    squares = (features[:, :, None] * features[:, None]).reshape(levels, rank**2, -1)
    whole = spread.transpose(1, 0, 2).reshape(directions, levels * rank)
    transposed = spread.swapaxes(1, 2)
    result = np.empty((nodes, directions, directions))

    def matrices(weights: Array) -> Array:
        blocks = (weights @ squares.swapaxes(1, 2)).reshape(levels, -1, rank, rank).swapaxes(0, 1)
        products = (blocks @ transposed).reshape(len(blocks), levels * rank, directions)
        return whole @ products

    block = max(1, NUMBERS_AT_ONCE // (levels * rank * directions))
    for start in range(0, nodes, block):
        part = slice(start, min(start + block, nodes))
        added, inverses = matrices(pointwise[:, part]), result[part]
        least = 1 - NEGATIVE
        bad = [k for k in range(len(added)) if not _invert_factor(added[k], inverses[k], least)]
        if bad:
            negative = matrices(np.maximum(-pointwise[:, part][:, bad], 0.0))
            largest = np.linalg.norm(negative, axis=(1, 2))
            shortening = 1 - NEGATIVE / np.maximum(largest, NEGATIVE)
            added[bad] += shortening[:, None, None] * negative
            for k in bad:
                # What is shortened may lie on the bound itself.
                if not _invert_factor(added[k], inverses[k], least / 2):
                    inverses[k] = np.eye(directions)
    return result


def _invert_factor(matrix: Array, out: Array, least: float) -> bool:
    """L^{-1} of L L' = I + matrix if L's squared diagonal is at least so large; whether it is."""
    shifted = matrix + np.eye(len(matrix))
    lower, failed = linalg.lapack.dpotrf(shifted.T, lower=1, clean=1, overwrite_a=1)
    if failed or not np.min(np.diag(lower)) ** 2 >= least:  # it may be NaN
        return False
    out[...], _ = linalg.lapack.dtrtri(lower, lower=1, overwrite_c=1)
    return True
