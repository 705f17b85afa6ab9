"""What oscillation would save along a computed solution: the pointwise relaxed cost.

At every depth and neuron the controls move the samples at velocities v = sigma(u) for the cost
r >= r**(v). A mixture that attains r**(v) keeps the mean velocities, hence all states, and with
them every K: controls that switch ever faster between its atoms have in the limit the same loss and

    R - int_0^T int_Y (r - r**(v)) dx dt.

So inf J <= J - savings, and a minimiser saves nothing. Where the controls attain Pontryagin's
pointwise minimum, r**(v) = r: one global minimum shows that (`support`); elsewhere r** is computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fem_dnn.checks.features import pointwise, why_not_pointwise
from fem_dnn.checks.subject import Subject
from fem_dnn.existence.convex_envelope import envelope_at
from fem_dnn.existence.support import lowest
from fem_dnn.existence.velocity_set import MOST_SAMPLES, VelocitySet

Array = NDArray[np.float64]

_VISIBLE = 1e-9
"""Savings below this part of the largest cost density are round-off."""


@dataclass(frozen=True, eq=False)
class Savings:
    """What oscillation would save, per depth and neuron and in all.

    Attributes:
        density: r - r**(v) from below, at this rank's nodes, shape (levels, n_local).
        cost: r, same shape.
        total: int int (r - r**) dx dt, from below.
        at_most: The same from above: certified.
        objective: J of the computed solution.
        share: Part of depth and width in which something is saved.
    """

    density: Array
    cost: Array
    total: float
    at_most: float
    objective: float
    share: float

    @property
    def relaxed_objective(self) -> float:
        """An upper bound of inf J, approached by controls that oscillate about these."""
        return self.objective - self.total

    @property
    def explanation(self) -> str:
        """What the numbers say."""
        if self.total == 0:
            return (
                "no oscillation about the computed controls saves anything, at any depth and "
                f"neuron (at most {self.at_most:.2g} of J = {self.objective:.6g})"
            )
        return (
            f"inf J <= {self.relaxed_objective:.9g} < J = {self.objective:.9g}: controls that "
            "switch ever faster in depth, with the same states in the limit, save "
            f"{self.total:.6g} (at most {self.at_most:.6g}), in {self.share:.0%} of depth and "
            "width; the computed controls are no minimiser"
        )


def why_no_savings(subject: Subject) -> str | None:
    """Why savings are not defined, or not computed, for a subject."""
    why = why_not_pointwise(subject)
    if why is not None:
        return why
    assert subject.at is not None
    if subject.at.problem.regularization.smooth:
        return "derivatives of the controls are penalised: oscillation is not free"
    samples, activation = subject.inputs.shape[1], subject.network.activation
    if samples > MOST_SAMPLES:
        return f"{samples} samples: the velocity set is treated up to {MOST_SAMPLES}"
    if not np.isfinite(activation.curvature) and activation.name != "relu":
        return f"no bound of the second derivative of {activation.name} is known"
    return None


def savings(subject: Subject, tolerance: float = 1e-8) -> Savings:
    """What oscillation would save along a computed solution (collective).

    Args:
        subject: A solution with up to `MOST_SAMPLES` samples.
        tolerance: Of the envelope, relative to max(1, r**).

    Raises:
        ValueError: The controls' cost is not pointwise, or there are more samples; says which.
    """
    why = why_no_savings(subject)
    if why is not None:
        raise ValueError(why)
    assert subject.at is not None
    space, states, activation = (
        subject.network.space,
        subject.level_states(),
        subject.network.activation,
    )
    shape = (subject.levels.count, space.n_local)
    saved, above, cost = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for level in range(subject.levels.count):
        point = pointwise(subject, level, states)
        sigma = activation(point.u)
        cost[level] = point.cost - np.sum(point.c * sigma, axis=1)
        for x in range(space.n_local):
            M = point.factor[x if len(point.factor) > 1 else 0]
            velocities = VelocitySet.of_factor(activation, M, point.u_given[x])
            saved[level, x], above[level, x] = _saved(
                velocities, sigma[x], point.u[x], point.c[x], float(cost[level, x]), tolerance
            )
    floor = _VISIBLE * max(float(np.max(cost, initial=0.0)), 1e-300)
    saved[saved < floor] = 0.0
    measure = subject.levels.weights[:, None] * space.local_weights
    sums = space.sum(np.array([np.sum(measure * a) for a in (saved, above, saved > 0)]))
    area = float(np.sum(subject.levels.weights) * np.sum(space.node_weights))
    return Savings(
        saved, cost, float(sums[0]), float(sums[1]), subject.at.objective, float(sums[2]) / area
    )


def _saved(
    velocities: VelocitySet, v: Array, u: Array, c: Array, cost: float, tolerance: float
) -> tuple[float, float]:
    """r - r**(v) from below and from above."""
    wanted = tolerance * max(1.0, cost)
    minimum = lowest(velocities, c, wanted)
    above = cost + float(c @ v) - minimum.lower
    if above <= 2 * wanted:
        return 0.0, max(above, 0.0)
    envelope = envelope_at(velocities, v, velocities.controls(u)[None], tolerance)
    return max(cost - envelope.upper, 0.0), max(cost - envelope.lower, 0.0)
