"""Data sets that are made: points in the plane with labels, curves, motions.

Each generator takes the number of samples, the standard deviation of the noise and a seed, and
returns features (samples, d) and targets: class numbers (samples,), or values (samples, outputs).
The same arguments give the same arrays. Two classes differ by at most one sample, except where
chance draws them (`squares`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Generator = Callable[[int, float, int], tuple[Array, NDArray]]
"""(samples, noise, seed) -> features, targets."""


def circles(samples: int, noise: float, seed: int) -> tuple[Array, NDArray]:
    """Two concentric circles: outer, radius 1 (class 0), and inner, radius 1/2 (class 1)."""
    # scikit-learn takes about a second to import: pay only when data are made.
    from sklearn.datasets import make_circles

    return make_circles(samples, noise=noise, factor=0.5, random_state=seed)


def moons(samples: int, noise: float, seed: int) -> tuple[Array, NDArray]:
    """Two interleaved half circles of radius 1, centred at (0, 0) and (1, 1/2)."""
    from sklearn.datasets import make_moons  # late, as in `circles`

    return make_moons(samples, noise=noise, random_state=seed)


def spiral(samples: int, noise: float, seed: int) -> tuple[Array, NDArray]:
    """Two arms r(cos θ, sin θ), r from 0.1 to 1 over one turn; class 1 is class 0 turned by π."""
    rng, labels = _labels(samples, seed)
    along = np.empty(samples)
    for label in (0, 1):
        arm = labels == label
        along[arm] = np.linspace(0, 1, arm.sum())
    radius, angle = 0.1 + 0.9 * along, 2 * np.pi * along + np.pi * labels
    return _noisy(_polar(radius, angle), noise, rng), labels


def donut(samples: int, noise: float, seed: int) -> tuple[Array, NDArray]:
    """A ring of radius 1/2 (class 0) around a blob at the origin (class 1).

    The distance from ring or origin is normally distributed, standard deviation 0.1.
    """
    rng, labels = _labels(samples, seed)
    blob = 0.1 * rng.standard_normal((samples, 2))
    radius = 0.5 + 0.1 * rng.standard_normal(samples)
    ring = _polar(radius, rng.uniform(0, 2 * np.pi, samples))
    return _noisy(np.where(labels[:, None] == 1, blob, ring), noise, rng), labels


def squares(samples: int, noise: float, seed: int) -> tuple[Array, NDArray]:
    """A 2 x 2 chequerboard on (-0.7, 0.7)^2: class 1 where z_0 z_1 > 0 before the noise."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-0.7, 0.7, (samples, 2))
    labels = (points[:, 0] * points[:, 1] > 0).astype(np.int64)
    return _noisy(points, noise, rng), labels


def sine(samples: int, noise: float, seed: int) -> tuple[Array, NDArray]:
    """The values sin(2πz) + noise at z uniform in (-1, 1)."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(-1, 1, (samples, 1))
    return z, _noisy(np.sin(2 * np.pi * z), noise, rng)


def rotation(samples: int, noise: float, seed: int) -> tuple[Array, NDArray]:
    """Points of a standard normal cloud in the plane, to be carried a quarter turn anticlockwise.

    The noise is added to the goals.
    """
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((samples, 2))
    return z, _noisy(np.stack([-z[:, 1], z[:, 0]], axis=1), noise, rng)


def _labels(samples: int, seed: int) -> tuple[np.random.Generator, NDArray[np.int64]]:
    """A generator, and balanced labels 0, 1 in random order."""
    rng = np.random.default_rng(seed)
    return rng, rng.permutation(np.arange(samples) % 2)


def _polar(radius: Array, angle: Array) -> Array:
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _noisy(values: Array, noise: float, rng: np.random.Generator) -> Array:
    return values + noise * rng.standard_normal(values.shape)
