"""Scaling of features: statistics of the training samples, kept with the trained network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scaling:
    """The affine map z -> (z - shift) / scale, feature by feature.

    Attributes:
        shift: Shape (features,).
        scale: Shape (features,), positive.
    """

    shift: Array
    scale: Array

    @classmethod
    def identity(cls, count: int) -> Self:
        """No scaling of `count` features."""
        return cls(np.zeros(count), np.ones(count))

    @classmethod
    def standard(cls, features: Array, *, pooled: bool = False) -> Self:
        """To mean 0 and standard deviation 1 over these samples; constant features stay untouched.

        Args:
            features: Training features, shape (samples, features).
            pooled: All features are pixels of one picture and share one mean and one deviation:
                pixel by pixel, the rarely used border would be blown up to the size of the figure.
        """
        count = features.shape[1]
        if pooled:
            features = features.reshape(-1, 1)
        shift, scale = features.mean(axis=0), features.std(axis=0)
        # Round-off makes the deviation of equal numbers tiny rather than zero.
        constant = scale <= 1e-12 * np.abs(features).max(axis=0)
        shift, scale = np.where(constant, 0.0, shift), np.where(constant, 1.0, scale)
        return cls(*(np.broadcast_to(a, count).copy() for a in (shift, scale)))

    @property
    def count(self) -> int:
        """Number of features."""
        return len(self.shift)

    def __call__(self, features: Array) -> Array:
        """Scaled features, shape as given: (samples, features)."""
        return (features - self.shift) / self.scale

    def to_arrays(self) -> dict[str, Array]:
        """Arrays for an npz file, which `from_arrays` reads back."""
        return {"feature_shift": self.shift, "feature_scale": self.scale}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Self:
        """The scaling that `to_arrays` wrote.

        Raises:
            KeyError: It is not among the arrays.
        """
        return cls(np.asarray(arrays["feature_shift"]), np.asarray(arrays["feature_scale"]))
