"""Coordinates in which the reduced Hessian is nearly a multiple of the identity.

With Phi_s = (f_s, 1) the functions that kernel rows and biases act on at a level, du_s = Phi_s' dc
at every node x, and z_k the outputs, the reduced Hessian is

    H = R'' + Phi D Phi' + J' W J + coupling,     D = w_s sigma''(u_s) p_s at every level and node,

the second term pointwise in depth and width, the third that of Gauss and Newton (J = dz/dc, W the
loss's second derivative by the outputs), the last what the levels do to each other through df. The
coupling is small against lambda but for few directions; the other two spread the spectrum over
orders of magnitude in hundreds of them, and are cheap to invert:

    P = R'' + Phi D Phi' + J' W J = s T^{-T} T^{-1},        c = c_0 + T z,      T' H T = s I + few.

The states at a level are nearly dependent, so Phi Phi' has few eigenvalues that matter. In these
coordinates of R''^{1/2} c the pointwise term is a small matrix C for every level and node; with
I + C = L L' and Z Z' = (I + L^{-1} J' W J L^{-T})^{-1} (`gauss_newton`, `inverse_root`),

    T = sqrt(s) R''^{-1/2} (I + Psi (L^{-T} Z - I) Psi').

D has negative parts where the pointwise Hamiltonian is not convex; they are shortened where they
would make I + C indefinite. T is exact for no Hessian and right for every one: it only measures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.controls import ControlParts, ControlSpace
from fem_dnn.coordinates import CurvatureCoordinates, Metric
from fem_dnn.features import Features, features
from fem_dnn.gauss_newton import MAX_RANK, finite, output_slopes
from fem_dnn.inverse_root import InverseRoot, inverse_factors
from fem_dnn.native import CompiledFeatures
from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.smooth_curvature_metric import NEGATIVE, SmoothCurvatureMetric

Array = NDArray[np.float64]
Numbers = NDArray[np.floating]
Map = Callable[[Any], Any]

SEEN = 0.1
"""Directions in which the pointwise and the Gauss-Newton term are below this part of R'' are left
out."""

FEW_CONTROLS = 500
"""Controls from which on the coordinates are worth their making."""

ROUND_OFF = 1e-12
"""Added to what may be singular, relative to 1."""


def why_not(problem: LearningProblem) -> str | None:
    """Why a problem has no such coordinates; None if it has."""
    controls, regularization = problem.controls, problem.regularization
    if any(weights.width > 0 for weights in regularization.smooth.values()):
        return "derivatives of the controls in width are penalised: R'' couples nodes"
    if regularization.smooth and controls.mask is not None:
        return "derivatives of a masked kernel are penalised: R'' couples levels"
    if controls.bounded:
        return "the controls have bounds"
    if problem.groups.count > 1 and problem.typical is None:
        return "the samples are dealt out over groups of ranks, and all of them meet in Phi"
    if not controls.has_kernel and not controls.has_bias:
        return "neither kernel nor bias is a control"
    if regularization.least_weight is None:
        return "no control is penalised"
    if controls.n_global < FEW_CONTROLS:
        return "controls are so few that conjugate gradients cost less"
    return None


class CurvatureMetric(CurvatureCoordinates):
    """T at one point.

    Args:
        at: The point, of a problem that has such coordinates (`why_not`).
    """

    def __init__(self, at: Linearisation) -> None:
        problem = at.problem
        self.controls = problem.controls
        tikhonov = problem.regularization.tikhonov
        weight = problem.regularization.least_weight
        assert weight is not None, "a problem where no control is penalised has no such coordinates"
        self.weight = weight
        """s: the Hessian in z is about this times the identity."""
        # What R leaves free is measured as if by the smallest weight.
        self._roots = {
            name: float(np.sqrt(self.weight / (tikhonov[name] or self.weight)))
            for name in self.controls.blocks
        }
        pointwise = finite(problem.sample_weights * at.curvature)
        slopes, space = output_slopes(at), self.controls.space
        strength = space.comm.allreduce(np.max(np.abs(pointwise), initial=0.0), op=MPI.MAX)
        if slopes is not None:
            strength = max(strength, slopes.strength(space.comm))
        psi, phi = _reduce(self._phi(at), strength)
        matrices, phi = _node_matrices(phi, pointwise), phi[:, None]
        # Where the kernel is masked, the masked Psi is Q N' with Q orthonormal at every node.
        inverse_gram: Array | None = None
        if self.controls.mask is not None:
            gram = np.linalg.cholesky(self._masked_squares(psi, self.controls.mask))
            inverse_gram = np.linalg.inv(gram)
            transposed = gram.swapaxes(2, 3)
            matrices, phi = transposed @ matrices @ gram, transposed @ phi
        inverse = inverse_factors(matrices)
        root = None
        if slopes is not None:
            root = InverseRoot.of(space, slopes, phi, inverse, SEEN)
        self._term = _Term(features(psi, inverse, inverse_gram), root)

    def _phi(self, at: Linearisation) -> Array:
        """R''^{-1/2} Phi times sqrt(s), by what they belong to: (levels, nodes + 1, samples)."""
        levels, _, samples = at.state.slope.shape
        rows = []
        root = np.sqrt(self.weight)
        if self.controls.has_kernel and at.state.gathered is not None:
            rows.append(self._roots["kernel"] / root * at.state.gathered)
        if self.controls.has_bias:
            rows.append(np.full((levels, 1, samples), self._roots["bias"] / root))
        return np.concatenate(rows, axis=1)

    def _masked_squares(self, psi: Array, mask: NDArray[np.bool_]) -> Array:
        """Psi' Psi over what a node's mask leaves, shape (levels, n_local, rank, rank)."""
        levels, _, rank = psi.shape
        whole = np.vstack([mask, np.ones((int(self.controls.has_bias), mask.shape[1]), dtype=bool)])
        squares = (psi[:, :, :, None] * psi[:, :, None]).reshape(levels, -1, rank**2)
        gram = whole.T.astype(float) @ squares
        return gram.reshape(levels, -1, rank, rank) + ROUND_OFF * np.eye(rank)

    @cached_property
    def _single_term(self) -> _Term:
        return self._term.single()

    def apply(self, z: Array) -> Array:
        """T z (collective)."""
        root = self._term.root

        def mapped(y: Array) -> Array:
            return y if root is None else root.apply(y)

        return self._scaled(self._along_psi(self._term, z.copy(), mapped, reduced=True))

    def apply_transpose(self, g: Array) -> Array:
        """T' g: a gradient by z (collective)."""
        root, products = self._term.root, self._term.products

        def mapped(y: Numbers) -> Numbers:
            z = products.reduced(y)
            return z if root is None else root.apply_transpose(z)

        return self._along_psi(self._term, self._scaled(g.copy()), mapped, reduced=False)

    def inverse(self, g: Numbers) -> Numbers:
        """T T' g / s: R''^{-1} g, and what Psi sees of it, in g's precision (collective)."""
        term = self._term if g.dtype == np.float64 else self._single_term

        def mapped(y: Numbers) -> Numbers:
            z = term.products.reduced(y)
            return z if term.root is None else term.root.inverse(z)

        scaled = self._scaled(g / g.dtype.type(self.weight))
        return self._scaled(self._along_psi(term, scaled, mapped, reduced=True))

    def _along_psi(self, term: _Term, vector: Numbers, mapped: Map, *, reduced: bool) -> Any:
        """A vector, in its place, whose coordinates y by Psi are replaced by `mapped`'s.

        By L^{-T} times these, where they are `reduced` ones (`Features.move`).
        """
        parts, products = self.controls.split(vector), term.products
        y = products.along(parts.kernel, parts.bias)
        products.move(parts.kernel, parts.bias, mapped(y), y, reduced=reduced)
        return self._joined(parts, vector)

    def _scaled(self, vector: Numbers) -> Any:
        """sqrt(s) R''^{-1/2} times a vector, in its place."""
        for name, block in self.controls.blocks.items():
            if self._roots[name] != 1:
                vector[block] *= self._roots[name]
        return vector

    def _joined(self, parts: ControlParts, vector: Numbers) -> Numbers:
        """The vector whose parts have been changed; of a masked kernel they are no views."""
        if parts.kernel is not None and self.controls.mask is not None:
            vector[self.controls.blocks["kernel"]] = self.controls.entries(parts.kernel)
        return vector


@dataclass(frozen=True, eq=False)
class _Term:
    """What is added to R''^{-1/2}: Psi (L^{-T} Z - I) Psi'.

    Attributes:
        products: With Psi and L^{-1}.
        root: Z; None: I.
    """

    products: Features | CompiledFeatures
    root: InverseRoot | None

    def single(self) -> _Term:
        """The same for vectors in single precision."""
        return _Term(self.products.single(), None if self.root is None else self.root.single())


class GroupCoordinates(CurvatureCoordinates):
    """Coordinates that every group of ranks has made of the same samples, for vectors in pieces.

    Args:
        controls: Control space of the process grid.
        whole: The coordinates, by all numbers of this rank's rows.
    """

    def __init__(self, controls: ControlSpace, whole: CurvatureCoordinates) -> None:
        self.controls, self.weight, self._whole = controls, whole.weight, whole

    def apply(self, z: Array) -> Array:
        """T z (collective)."""
        return self._of_piece(self._whole.apply, z)

    def apply_transpose(self, g: Array) -> Array:
        """T' g: a gradient by z (collective)."""
        return self._of_piece(self._whole.apply_transpose, g)

    def inverse(self, g: Numbers) -> Numbers:
        """T T' g / s, in g's precision (collective)."""
        return self._of_piece(self._whole.inverse, g)

    def _of_piece(self, mapped: Map, piece: Numbers) -> Any:
        groups = self.controls.groups
        return groups.piece(mapped(groups.gather(piece, self.controls.n_rows)))


def _reduce(features: Array, strength: float) -> tuple[Array, Array]:
    """An orthonormal basis of what matters of the features, and their coordinates by it.

    Args:
        features: Shape (levels, n, samples).
        strength: The largest weight of a square of a change of pre-activation.

    Returns:
        Psi, (levels, n, rank), and Psi' features, (levels, rank, samples).
    """
    if min(features.shape[1:]) > 2 * MAX_RANK:
        # A subspace iteration finds the leading directions of many samples.
        rng = np.random.default_rng(0)
        block = features @ rng.standard_normal((features.shape[2], MAX_RANK))
        for _ in range(2):
            block, _ = np.linalg.qr(block)
            block = features @ (features.swapaxes(1, 2) @ block)
        basis, _ = np.linalg.qr(block)
        features = basis.swapaxes(1, 2) @ features
    else:
        basis = None
    left, values, right = np.linalg.svd(features, full_matrices=False)
    rank = int(np.max(np.sum(values**2 * strength > SEEN, axis=1)))
    rank = min(max(rank, 1), MAX_RANK)
    left = left[:, :, :rank] if basis is None else basis @ left[:, :, :rank]
    return left, values[:, :rank, None] * right[:, :rank]


def _node_matrices(features: Array, pointwise: Array) -> Array:
    """C at every level and node, I + C positive definite, shape (levels, n_local, rank, rank)."""
    levels, rank, samples = features.shape
    squares = (features[:, :, None] * features[:, None]).reshape(levels, -1, samples)

    def weighted(weights: Array) -> Array:
        product = weights @ squares.swapaxes(1, 2)
        return product.reshape(levels, weights.shape[1], rank, rank)

    negative = weighted(np.maximum(-pointwise, 0.0))
    largest = np.max(np.sum(np.abs(negative), axis=-1), axis=-1)[..., None, None]
    negative *= NEGATIVE / np.maximum(largest, NEGATIVE)
    return weighted(np.maximum(pointwise, 0.0)) - negative


def curvature_metric(at: Linearisation) -> Metric | None:
    """The metric of a point; None: L2, or what derivatives penalised make of it (collective).

    A problem with a metric of its own is measured by that.
    """
    own = at.problem.metric(at)
    return curvature_coordinates(at) if own is None and why_not(at.problem) is None else own


def curvature_coordinates(at: Linearisation) -> CurvatureCoordinates:
    """The coordinates of a point of a problem that has some (`why_not`; collective)."""
    controls = at.problem.controls
    made = at.of_typical(
        SmoothCurvatureMetric if at.problem.regularization.smooth else CurvatureMetric
    )
    return made if controls.groups.count == 1 else GroupCoordinates(controls, made)
