"""Certified global minima over the velocity set: its support function, and Pontryagin's minimum.

    D(c) = min over z of phi(z) = sum_s c_s sigma(u_given + M z)_s + |z|^2 / 2

is concave in c; -D(-p) is the convex conjugate r*(p) of the cost density, and at c = w p(t) it is
the Hamiltonian of one neuron. Minimisers obey z = -M'(c sigma'(u)), so |z| <= L |M| |c|.

Smooth activations: branch and bound over cubes of z. With Lambda the largest eigenvalue of
M' diag(|c| sup|sigma''|) M, a cube of half width h about z holds nothing below

    phi(z) - h |phi'(z)|_1 - (Lambda - 1)_+ rank h^2 / 2,

nor below the sum of the separate minima of its terms. ReLU: phi is a quadratic function on each
of the sets where the signs of u are fixed, and its minimiser is that of one of their faces.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fem_dnn.existence.velocity_set import VelocitySet

Array = NDArray[np.float64]

MOST_CUBES = 2**17
"""Cubes of one size at the most; beyond them the search ends with the bound it has."""

_FIRST = 64
"""Cubes of one size whose best centres are followed downhill whatever their values."""

_POLISHED = 8
_STEPS, _HALVINGS = 60, 12
_SMALLEST = 1e-12


@dataclass(frozen=True, eq=False)
class Minimum:
    """A global minimum of phi.

    Attributes:
        z: Where it is attained, shape (rank,).
        value: phi there: an upper bound of the minimum.
        lower: A certified lower bound.
    """

    z: Array
    value: float
    lower: float


def lowest(velocities: VelocitySet, c: Array, tolerance: float = 1e-12) -> Minimum:
    """The global minimum of sum_s c_s sigma(u_s) + |z|^2 / 2.

    Args:
        velocities: The velocity set.
        c: Shape (S,).
        tolerance: Absolute distance of the bounds that is asked for.

    Raises:
        ValueError: The activation has a kink and is not ReLU.
    """
    activation = velocities.activation
    if not np.isfinite(activation.curvature):
        if activation.name != "relu":
            raise ValueError(f"{activation.name}: no bound of its second derivative is known")
        return _lowest_of_relu(velocities, c)
    return _branch_and_bound(velocities, c, tolerance)


def descend(velocities: VelocitySet, c: Array, z: Array) -> Array:
    """Local minimisers of phi near some points, (points, rank) -> (points, rank).

    Newton's method with the eigenvalues of phi'' replaced by their moduli: it leaves saddles. Of
    ReLU the minimisers with the points' own signs of u, where phi need not be lower.
    """
    M, activation = velocities.factor, velocities.activation
    if not activation.smooth:
        signs = np.sign(velocities.u(z))
        return np.array([_on_face(velocities, c, own) for own in signs]).reshape(z.shape)
    value = _phi(velocities, c, z)
    for _ in range(_STEPS):
        _, first, second = activation.evaluate(velocities.u(z), 2)
        gradient = z + (c * first) @ M
        hessian = np.eye(velocities.rank) + np.einsum("sr,ps,sq->prq", M, c * second, M)
        size, basis = np.linalg.eigh(hessian)
        along = np.einsum("prk,pr->pk", basis, gradient) / np.maximum(np.abs(size), 1e-3)
        step = np.einsum("prk,pk->pr", basis, along)
        better = np.zeros(len(z), bool)
        for _ in range(_HALVINGS):
            there = _phi(velocities, c, z - step)
            lower = there < value
            z, value = np.where(lower[:, None], z - step, z), np.where(lower, there, value)
            better |= lower
            step = np.where(better[:, None], 0.0, step / 4)
            if np.all(better):
                break
        if not np.any(better):
            break
    return z


def _phi(velocities: VelocitySet, c: Array, z: Array) -> Array:
    value: Array = velocities.velocity(z) @ c + velocities.cost(z)
    return value


def _largest_curvature(velocities: VelocitySet, c: Array) -> float:
    """Lambda: phi'' lies between 1 - Lambda and 1 + Lambda."""
    M = velocities.factor
    if velocities.rank == 0 or not np.isfinite(velocities.activation.curvature):
        return 0.0
    bound = (M.T * (np.abs(c) * velocities.activation.curvature)) @ M
    return float(np.linalg.eigvalsh(bound)[-1])


def _branch_and_bound(velocities: VelocitySet, c: Array, tolerance: float) -> Minimum:
    M, activation, rank = velocities.factor, velocities.activation, velocities.rank
    best = descend(velocities, c, np.zeros((1, rank)))[0]
    value = float(_phi(velocities, c, best))
    size = float(np.linalg.norm(M, 2)) if rank else 0.0
    half = activation.lipschitz * size * float(np.linalg.norm(c))
    if half == 0:
        return Minimum(best, value, value)
    concave = max(0.0, _largest_curvature(velocities, c) - 1)
    corners = np.array(list(itertools.product((-0.5, 0.5), repeat=rank)))
    centres = np.zeros((1, rank))
    while True:
        u = velocities.u(centres)
        sigma, slope = activation.evaluate(u, 1)
        values = sigma @ c + velocities.cost(centres)
        promising = np.argsort(values)[:_POLISHED]
        if len(centres) == _FIRST or values[promising[0]] < value:
            ends = descend(velocities, c, centres[promising])
            found = _phi(velocities, c, ends)
            if np.min(found) < value:
                best, value = ends[np.argmin(found)], float(np.min(found))
        gradient = centres + (c * slope) @ M
        bounds = values - half * np.sum(np.abs(gradient), axis=1) - concave * rank * half**2 / 2
        bounds = np.maximum(bounds, _separate(velocities, c, centres, u, half))
        kept = bounds < value - tolerance
        if not np.any(kept):
            return Minimum(best, value, value - tolerance)
        if np.count_nonzero(kept) * len(corners) > MOST_CUBES or half < _SMALLEST:
            return Minimum(best, value, float(np.min(bounds[kept])))
        centres = (centres[kept][:, None] + half * corners).reshape(-1, rank)
        half /= 2


def _separate(velocities: VelocitySet, c: Array, centres: Array, u: Array, half: float) -> Array:
    """The sum of the least values of |z|^2 / 2 and of every c_s sigma(u_s) on the cubes."""
    nearest = np.maximum(np.abs(centres) - half, 0.0)
    reach = half * np.sum(np.abs(velocities.factor), axis=1)
    activation = velocities.activation
    if activation.increasing:
        terms = c * activation(u - np.sign(c) * reach)
    else:
        terms = c * activation(u) - np.abs(c) * activation.lipschitz * reach
    bound: Array = 0.5 * np.sum(nearest**2, axis=1) + np.sum(terms, axis=1)
    return bound


def _lowest_of_relu(velocities: VelocitySet, c: Array) -> Minimum:
    """The best of the minimisers over all faces {u_s > 0, u_s < 0 or u_s = 0}."""
    faces = itertools.product((1, 0, -1), repeat=velocities.samples)
    points = np.array([_on_face(velocities, c, np.array(signs)) for signs in faces])
    values = _phi(velocities, c, points)
    where = int(np.argmin(values))
    return Minimum(points[where], float(values[where]), float(values[where]))


def _on_face(velocities: VelocitySet, c: Array, signs: Array) -> Array:
    """The minimiser of |z|^2 / 2 + the sum of c_s u_s where signs_s > 0, u_s = 0 where it is 0."""
    M, on, kink = velocities.factor, signs > 0, signs == 0
    z: Array = -M[on].T @ c[on]
    if np.any(kink):
        z = z - np.linalg.pinv(M[kink]) @ (M[kink] @ z + velocities.given[kink])
    return z
