"""The extended velocity set at one depth and one neuron (theory.md section 5; Filippov, Roxin).

The controls of a neuron act on S samples by u = u_given + M z and cost |z|^2 / 2, M M' = K
(`checks.features`), so velocities v = sigma(u) cost

    r(v) = min { |z|^2 / 2 : sigma(u_given + M z) = v },   1/2 u'K^{-1}u where sigma is one to one
                                                          and u_given = 0.

With z as coordinate nothing is asked of K: where its rank is below S, u stays in its range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fem_dnn.activations import Activation

Array = NDArray[np.float64]

MOST_SAMPLES = 3
"""Samples up to which minima over the set are certified: the work grows with 2^S per bit."""

_RANK = 1e-12
"""Singular values below this, relative to the largest, are none."""


@dataclass(frozen=True, eq=False)
class VelocitySet:
    """{(sigma(u), |z|^2 / 2) : u = u_given + M z}, the costs from below being admitted as well.

    Attributes:
        activation: sigma.
        factor: M, shape (S, rank), of full column rank.
        given: u_given, what is not trained contributes to u, shape (S,).
    """

    activation: Activation
    factor: Array
    given: Array

    @classmethod
    def of_factor(
        cls, activation: Activation, factor: Array, given: Array | None = None
    ) -> VelocitySet:
        """The set of any M, shape (S, anything), brought to full column rank.

        Raises:
            ValueError: More samples than `MOST_SAMPLES`.
        """
        if len(factor) > MOST_SAMPLES:
            raise ValueError(
                f"{len(factor)} samples: velocity sets are treated up to {MOST_SAMPLES}; choose "
                "as many of the samples"
            )
        left, values, _ = np.linalg.svd(factor, full_matrices=False)
        kept = values > _RANK * max(float(values.max(initial=0.0)), 1e-300)
        if given is None:
            given = np.zeros(len(factor))
        return cls(activation, left[:, kept] * values[kept], given)

    @classmethod
    def of_gram(cls, activation: Activation, K: Array) -> VelocitySet:
        """The set of a Gram matrix K, symmetric positive semi-definite, shape (S, S)."""
        values, vectors = np.linalg.eigh(np.asarray(K, np.float64))
        return cls.of_factor(activation, vectors * np.sqrt(np.maximum(values, 0.0)))

    @property
    def samples(self) -> int:
        """S."""
        return len(self.factor)

    @property
    def rank(self) -> int:
        """Rank of K."""
        return self.factor.shape[1]

    def u(self, z: Array) -> Array:
        """Pre-activations, (..., rank) -> (..., S)."""
        product: Array = z @ self.factor.T
        return self.given + product

    def velocity(self, z: Array) -> Array:
        """sigma(u), (..., rank) -> (..., S)."""
        return self.activation(self.u(z))

    def cost(self, z: Array) -> Array:
        """|z|^2 / 2, (..., rank) -> (...)."""
        cost: Array = 0.5 * np.sum(z * z, axis=-1)
        return cost

    def controls(self, u: Array) -> Array:
        """The z of pre-activations in u_given + range M, (..., S) -> (..., rank)."""
        z: Array = (u - self.given) @ np.linalg.pinv(self.factor).T
        return z
