"""The convex envelope r** of the cost density in velocity space: the cost of relaxed controls.

A relaxed control mixes velocities, v = sum_i alpha_i v_i at the cost sum_i alpha_i r(v_i): what
controls that switch ever faster in depth between the v_i attain in the limit. At a point v

    r**(v) = min over alpha, z_i of sum_i alpha_i |z_i|^2 / 2 = max over p of p.v + D(-p)

(D of `support`). Columns are generated until both sides meet: a linear programme over the atoms
found so far gives alpha, an upper bound and p; the global minimum D(-p) a lower bound and an atom.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, linprog
from scipy.spatial import ConvexHull, Delaunay

from fem_dnn.existence.support import descend, lowest
from fem_dnn.existence.velocity_set import VelocitySet

Array = NDArray[np.float64]

_ROUNDS = 200
_STEEPEST = 1e8
_PRESENT = 1e-9
"""Share of a mixture below which an atom counts as absent."""

_CLOSE = 0.05
"""Relative distance of the bounds below which the supporting plane is sought by Newton's method."""

_NEAR = 0.05
"""Relative distance below which atoms are taken for one by that."""

_MISSING = 1e-9
"""What a mixture may miss of v."""


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


class OutsideHull(ValueError):
    """A velocity that no mixture has."""


def envelope_at(
    velocities: VelocitySet, point: Array, start: Array | None = None, tolerance: float = 1e-10
) -> Envelope:
    """r** at a point, between certified bounds.

    Args:
        velocities: The velocity set.
        point: v, shape (S,).
        start: Controls z to start from, shape (atoms, rank); v need not be in their hull.
        tolerance: Distance of the bounds that is asked for, relative to max(1, r**).

    Raises:
        OutsideHull: v is not in the convex hull of the velocities.
    """
    atoms: Array = np.zeros((1, velocities.rank))
    if start is not None:
        atoms = np.concatenate([atoms, start])
    steepest = 10.0 * max(1.0, float(np.max(velocities.cost(atoms))))
    while True:
        envelope, atoms, missing = _generate(velocities, point, atoms, steepest, tolerance)
        if missing <= _MISSING:
            return envelope
        steepest *= 8
        if steepest > _STEEPEST:
            raise OutsideHull(f"{point} is not in the convex hull of the velocities")


def _generate(
    velocities: VelocitySet, point: Array, atoms: Array, steepest: float, tolerance: float
) -> tuple[Envelope, Array, float]:
    """Column generation for min over alpha of sum alpha_i r_i + steepest |v - sum alpha_i v_i|_1.

    The penalty, the same as |p_s| <= steepest, keeps the programme feasible from the start.

    Returns:
        The mixture with its bounds, all atoms, and |v - sum alpha_i v_i|_1.
    """
    best: Array = np.zeros(velocities.samples)
    lower, gap = -np.inf, 1.0
    for _ in range(_ROUNDS):
        shares, slope, value, missing = _mix(velocities, atoms, point, steepest)
        wanted = tolerance * max(1.0, abs(value))
        # While the bounds are apart a rough minimum will do.
        found = lowest(velocities, -slope, max(wanted, gap / 20) / 4)
        bound = float(slope @ point) + found.lower
        if bound > lower:
            lower, best = bound, slope
        gap = value - lower
        kept = shares > _PRESENT
        touching = None
        if missing <= _MISSING and gap > wanted and gap < _CLOSE * max(1.0, abs(value)):
            touching = _touching(velocities, point, atoms[kept], shares[kept], slope)
        if touching is not None:
            there = lowest(velocities, -touching.slope, wanted / 4)
            bound = float(touching.slope @ point) + there.lower
            if touching.upper - bound <= wanted:
                return replace(touching, lower=bound), atoms, 0.0
        # The atoms of the mixture follow the new slope into their valleys: second-order progress.
        fresh = [found.z[None], descend(velocities, -slope, atoms[kept])]
        known = len(atoms)
        atoms = _merged(atoms, np.concatenate(fresh))
        if gap <= wanted or len(atoms) == known:
            break
    mixed = atoms[:known][kept]
    envelope = Envelope(point, lower, value, mixed, velocities.velocity(mixed), shares[kept], best)
    return envelope, atoms, missing


def _touching(
    velocities: VelocitySet, point: Array, atoms: Array, shares: Array, slope: Array
) -> Envelope | None:
    """The mixture whose atoms all touch one supporting plane, by Newton's method near a guess.

    z_i = M'(p sigma'(u_i)),  |z_i|^2 / 2 - p.v_i = c,  sum alpha_i v_i = v,  sum alpha_i = 1.
    Atoms near each other become one. None where there is no solution near the guess.
    """
    z, weights = grouped(atoms, shares, _NEAR)
    count, rank, S = len(z), velocities.rank, velocities.samples
    ends = np.cumsum([count * rank, count, S])

    def parts(x: Array) -> tuple[Array, Array, Array, float]:
        z, alpha, p, c = np.split(x, ends)
        return z.reshape(count, rank), alpha, p, c[0]

    def residual(x: Array) -> Array:
        z, alpha, p, c = parts(x)
        sigma, first = velocities.activation.evaluate(velocities.u(z), 1)
        force = z - (p * first) @ velocities.factor
        height = velocities.cost(z) - sigma @ p - c
        return np.concatenate([force.ravel(), height, alpha @ sigma - point, [alpha.sum() - 1]])

    height = float(np.mean(velocities.cost(z) - velocities.velocity(z) @ slope))
    guess = np.concatenate([z.ravel(), weights, slope, [height]])
    few = 40 * (len(guess) + 1)
    solved = least_squares(
        residual, guess, method="lm", xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=few
    )
    z, alpha, p, _ = parts(solved.x)
    scale = 1 + float(np.max(np.abs(z), initial=0.0))
    if np.max(np.abs(solved.fun)) > 1e-11 * scale or np.min(alpha) <= 0:
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


def _mix(
    velocities: VelocitySet, atoms: Array, point: Array, steepest: float
) -> tuple[Array, Array, float, float]:
    """The best mixture of given atoms: shares, slope p, value, and what is missing of v."""
    S, count = velocities.samples, len(atoms)
    v = velocities.velocity(atoms)
    costs = np.concatenate([velocities.cost(atoms), np.full(2 * S, steepest)])
    rows = np.zeros((S + 1, count + 2 * S))
    rows[:S, :count], rows[S, :count] = v.T, 1.0
    rows[:S, count:] = np.hstack([np.eye(S), -np.eye(S)])
    tight = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    solved = linprog(costs, A_eq=rows, b_eq=np.append(point, 1.0), method="highs-ds", options=tight)
    shares = solved.x[:count]
    missing = float(np.sum(solved.x[count:]))
    return shares, np.asarray(solved.eqlin.marginals[:S]), float(solved.fun), missing


def _merged(atoms: Array, fresh: Array) -> Array:
    """Atoms with those of the fresh ones that are new, to round-off."""
    for z in fresh:
        if np.min(np.max(np.abs(atoms - z), axis=1, initial=0.0)) > 1e-13 * (
            1 + np.max(np.abs(z), initial=0.0)
        ):
            atoms = np.vstack([atoms, z])
    return atoms


def lower_hull(points: Array, values: Array, at: Array) -> Array:
    """The convex envelope of sampled values, by their convex hull: an upper bound of r**.

    Args:
        points: Where the values are, shape (samples, S), S = 2 or 3.
        values: Shape (samples,).
        at: Where the envelope is wanted, shape (places, S).

    Returns:
        Shape (places,); infinite outside the hull of the points.
    """
    hull = ConvexHull(np.column_stack([points, values]))
    normals = hull.equations
    below = normals[normals[:, -2] < -1e-12 * np.abs(normals[:, :-1]).max(axis=1)]
    # n.(v, r) + d = 0 on a facet: r = -(n_v.v + d) / n_r.
    slopes, heights = -below[:, :-2] / below[:, -2:-1], -below[:, -1] / below[:, -2]
    envelope: Array = np.max(at @ slopes.T + heights, axis=1)
    inside = Delaunay(points).find_simplex(at) >= 0
    return np.where(inside, envelope, np.inf)


def above_hull(points: Array, values: Array) -> NDArray[np.bool_]:
    """Which sampled values lie above their convex envelope: where mixing pays, seen on a grid.

    Args:
        points, values: As in `lower_hull`.
    """
    above = np.ones(len(points), bool)
    above[ConvexHull(np.column_stack([points, values])).vertices] = False
    return above
