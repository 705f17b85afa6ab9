"""Mixtures of controls that attain the convex envelope: their atoms touch one supporting plane.

    z_i = M'(p sigma'(u_i)),  |z_i|^2 / 2 - p.v_i = c,  sum alpha_i v_i = v,  sum alpha_i = 1.

These are as many equations as unknowns; near a solution Newton's method has all digits in a few
steps, where linear programmes over more and more atoms gain them slowly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from fem_dnn.existence.velocity_set import VelocitySet

Array = NDArray[np.float64]

_NEAR = 0.05
"""Relative distance below which atoms are taken for one."""

_STEPS = 30
_TOUCHES = 1e-11
"""Largest residual, relative to the atoms."""


@dataclass(frozen=True, eq=False)
class Envelope:
    """r** at a point.

    Attributes:
        point: v, shape (S,).
        lower: Certified lower bound of r**(v).
        upper: Upper bound: the cost of the mixture.
        atoms: z_i of the mixture, shape (atoms, rank).
        velocities: v_i = sigma(u_i), shape (atoms, S).
        shares: alpha_i, positive, of sum 1.
        slope: p, a (sub)gradient of r** at v to the accuracy of the bounds, shape (S,).
    """

    point: Array
    lower: float
    upper: float
    atoms: Array
    velocities: Array
    shares: Array
    slope: Array

    @property
    def explanation(self) -> str:
        """What the numbers say."""
        count = len(self.shares)
        how = (
            "r** is attained by one control: nothing is gained by switching"
            if count == 1
            else f"r** is attained in the limit of ever faster switching between {count} controls"
        )
        return f"{self.lower:.12g} <= r** <= {self.upper:.12g}; {how}"


def touching_plane(
    velocities: VelocitySet, point: Array, atoms: Array, shares: Array, slope: Array
) -> Envelope | None:
    """The mixture near a guess whose atoms touch one plane; None where there is none.

    Its upper bound is its cost; that the plane lies below r everywhere is for others to show, so
    its lower bound is minus infinity.

    Args:
        velocities: The velocity set.
        point: v, shape (S,).
        atoms, shares, slope: The guess; atoms near each other become one.
    """
    z, alpha = grouped(atoms, shares, _NEAR)
    p, M, activation = slope, velocities.factor, velocities.activation
    c = float(np.mean(velocities.cost(z) - velocities.velocity(z) @ p))
    count, rank, S = len(z), velocities.rank, velocities.samples
    ends, size = np.cumsum([count * rank, count, S]), np.inf
    for _ in range(_STEPS):
        sigma, first, second = activation.evaluate(velocities.u(z), 2)
        force = z - (p * first) @ M
        height = velocities.cost(z) - sigma @ p - c
        residual = np.concatenate([force.ravel(), height, alpha @ sigma - point, [alpha.sum() - 1]])
        before, size = size, float(np.max(np.abs(residual)))
        if not size < before:
            break
        bends = np.eye(rank) - np.einsum("sr,ns,sq->nrq", M, p * second, M)
        turned = np.einsum("n,ns,sr->snr", alpha, first, M).reshape(S, -1)
        pulled = np.einsum("sr,ns->nrs", M, first).reshape(-1, S)
        none, one = np.zeros, np.ones
        jacobian = np.block(
            [
                [block_diag(*bends), none((ends[0], count)), -pulled, none((ends[0], 1))],
                [block_diag(*force), none((count, count)), -sigma, -one((count, 1))],
                [turned, sigma.T, none((S, S + 1))],
                [none((1, ends[0])), one((1, count)), none((1, S + 1))],
            ]
        )
        # Where r has kinks p may be undetermined: the nearest solution.
        step = np.linalg.lstsq(jacobian, residual, rcond=1e-13)[0]
        dz, dalpha, dp, dc = np.split(step, ends)
        z, alpha, p, c = z - dz.reshape(z.shape), alpha - dalpha, p - dp, c - float(dc[0])
    scale = 1 + float(np.max(np.abs(z), initial=0.0))
    if not size <= _TOUCHES * scale or np.min(alpha) <= 0:
        return None
    z, alpha = grouped(z, alpha, 1e-9)
    cost = float(alpha @ velocities.cost(z))
    return Envelope(point, -np.inf, cost, z, velocities.velocity(z), alpha, p)


def grouped(atoms: Array, shares: Array, distance: float) -> tuple[Array, Array]:
    """Atoms nearer than a relative distance to each other become their mean."""
    groups: list[list[int]] = []
    reach = distance * (1 + float(np.max(np.abs(atoms), initial=0.0)))
    for i, z in enumerate(atoms):
        near = [g for g in groups if np.max(np.abs(atoms[g[0]] - z), initial=0.0) < reach]
        if near:
            near[0].append(i)
        else:
            groups.append([i])
    weights = np.array([shares[g].sum() for g in groups])
    means = [shares[g] @ atoms[g] / w for g, w in zip(groups, weights, strict=True)]
    return np.array(means), weights
