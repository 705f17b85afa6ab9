"""The convex envelope r** of the cost density in velocity space: the cost of relaxed controls.

A relaxed control mixes velocities, v = sum_i alpha_i v_i at the cost sum_i alpha_i r(v_i): what
controls that switch ever faster in depth between the v_i attain in the limit. At a point v

    r**(v) = min over alpha, z_i of sum_i alpha_i |z_i|^2 / 2 = max over p of p.v + D(-p)

(D of `support`). Columns are generated until both sides meet: a linear programme over the atoms
found so far gives alpha, an upper bound and p; the global minimum D(-p) a lower bound and an atom.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from fem_dnn.existence.mixture import Envelope, touching_plane
from fem_dnn.existence.support import descend, lowest
from fem_dnn.existence.velocity_set import VelocitySet

Array = NDArray[np.float64]

_ROUNDS = 200
_STEEPEST = 1e8
_PRESENT = 1e-9
"""Share of a mixture below which an atom counts as absent."""

_CLOSE = 0.05
"""Relative distance of the bounds below which the supporting plane is sought by Newton's method."""

_MISSING = 1e-9
"""What a mixture may miss of v."""


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
            touching = touching_plane(velocities, point, atoms[kept], shares[kept], slope)
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
