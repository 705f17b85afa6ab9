"""Pontryagin's minimum principle: the controls minimise H globally, at every depth and neuron.

The pointwise problem (`features`) is min over z of

    phi(z) = sum_s c_s sigma(u_given + M z)_s + |z|^2 / 2      (theory.md section 7).

Its minimisers are fixed points of z = -M'(c sigma'(u)).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fem_dnn.activations import Activation
from fem_dnn.checks.check import Check, not_applicable
from fem_dnn.checks.features import Pointwise, pointwise, why_not_pointwise
from fem_dnn.checks.hamiltonian import hamiltonian
from fem_dnn.checks.subject import Subject

Array = NDArray[np.float64]

SOURCE = "theory.md section 7 (Pontryagin)"

STARTS = 8
"""Random starts of the search for several samples, besides 0."""

STEPS = 300
"""Steps of descent from each start."""

SCAN = 1001
"""Points of the scan for one sample."""

TOLERANCE = 1e-9
"""Relative gap that is put down to the solver's tolerance."""


def pontryagin_minimum(subject: Subject, *, seed: int = 0) -> Check:
    """Worst gap in depth of H to its minimum over the controls, relative to max |H| (collective).

    One sample: the minimum is certified by a scan with a bound on what lies between its points.
    Several: it is certified where lambda_max(K) max_s |c_s| sup|sigma''| < 1 makes phi strictly
    convex; elsewhere it is the best of a multistart search, so the gap is a lower bound.

    Args:
        subject: What is checked.
        seed: Seed of the random starts.
    """
    name, activation = "pontryagin_minimum", subject.network.activation
    why, samples = why_not_pointwise(subject), subject.inputs.shape[1]
    if why is None and not np.isfinite(activation.curvature) and samples > 1:
        why = f"{activation.name} has a kink: the search for several samples needs derivatives"
    if why is None and not np.isfinite(activation.curvature) and activation.name != "relu":
        why = f"no bound of the second derivative of {activation.name} is known"
    if why is not None:
        return not_applicable(name, why, SOURCE)
    space, states = subject.network.space, subject.level_states()
    gaps, unsure, certified, pairs = np.zeros(subject.levels.count), 0.0, 0, 0
    rng = np.random.default_rng(seed)
    for level in range(subject.levels.count):
        point = pointwise(subject, level, states)
        if samples == 1:
            minimum, error = _scan(activation, point)
            unsure = max(unsure, float(space.sum(space.local_weights @ error)))
        else:
            minimum = lowest_found(activation, point, rng)[0]
            certified += int(space.sum(np.array(np.count_nonzero(_convex(activation, point)))))
        pairs += space.n_nodes
        gap = np.maximum(point.cost - minimum, 0.0)
        gaps[level] = float(space.sum(space.local_weights @ gap))
    size = max(float(np.max(np.abs(hamiltonian(subject)))), 1e-14)
    worst = int(np.argmax(gaps))
    value, bound = float(gaps[worst]) / size, TOLERANCE + unsure / size
    holds = bool(value <= bound)
    text = (
        "worst gap between H at the computed controls and its minimum over all controls, at t = "
        f"{subject.levels.t[worst]:.6g}, relative to max |H| = {size:.6g}"
    )
    if samples == 1:
        text += f"; global by a scan, certified to {unsure / size:.1e}"
    else:
        share = "everywhere" if certified == pairs else f"at {certified} of {pairs} (depth, neuron)"
        text += f"; the minimiser is certified unique {share}"
        if certified < pairs:
            text += f", elsewhere it is the best of {STARTS + 1} starts and the computed controls"
    if not holds:
        text += (
            "; other controls do better at this depth: this is no global minimiser, or not yet a "
            "critical point (see stationarity)"
        )
    return Check(name, holds, value, bound, text, SOURCE)


def _value(activation: Activation, point: Pointwise, z: Array) -> Array:
    """phi(z) at every node, shape (n_local,); z of shape (n_local, rank)."""
    values: Array = np.sum(point.c * activation(_u(point, z)), axis=1) + 0.5 * np.sum(z * z, axis=1)
    return values


def _u(point: Pointwise, z: Array) -> Array:
    M = point.factor
    product = z @ M[0].T if len(M) == 1 else np.einsum("xsr,xr->xs", M, z)
    u: Array = point.u_given + product
    return u


def _pull(point: Pointwise, g: Array) -> Array:
    """M'g at every node."""
    M = point.factor
    product: Array = g @ M[0] if len(M) == 1 else np.einsum("xsr,xs->xr", M, g)
    return product


def _largest(point: Pointwise) -> Array:
    """lambda_max(K), shape (1 or n_local,)."""
    top: Array = np.linalg.norm(point.factor, ord=2, axis=(1, 2)) ** 2
    return top


def _convex(activation: Activation, point: Pointwise) -> NDArray[np.bool_]:
    """Where lambda_max(K) max_s |c_s| sup|sigma''| < 1."""
    strength = _largest(point) * np.max(np.abs(point.c), axis=1) * activation.curvature
    return np.asarray(strength < 1)


def lowest_found(
    activation: Activation, point: Pointwise, rng: np.random.Generator
) -> tuple[Array, Array]:
    """The lowest phi found from 0 and random starts by descent, and the pre-activations there.

    At most the computed cost, with the computed pre-activations where nothing is lower: shapes
    (n_local,) and (n_local, samples). The step 1 / (1 + lambda_max(K) max|c| sup|sigma''|) descends
    from anywhere.
    """
    largest = np.max(np.abs(point.c), axis=1)
    step = (1 / (1 + _largest(point) * largest * activation.curvature))[:, None]
    shape = (len(point.c), point.factor.shape[2])
    # Minimisers lie within |z| <= L |M| |c|.
    reach = activation.lipschitz * np.sqrt(_largest(point)) * np.linalg.norm(point.c, axis=1)
    best, u = point.cost.copy(), point.u.copy()
    for start in range(STARTS + 1):
        z = np.zeros(shape)
        if start:
            direction = rng.standard_normal(shape[1])
            direction /= np.linalg.norm(direction)
            z = reach[:, None] * direction * rng.uniform()
        for _ in range(STEPS):
            slope = activation.evaluate(_u(point, z), 1)[1]
            change = step * (z + _pull(point, point.c * slope))
            z = z - change
            if float(np.max(np.abs(change), initial=0.0)) < 1e-12:
                break
        values = _value(activation, point, z)
        lower = values < best
        best[lower], u[lower] = values[lower], _u(point, z)[lower]
    return best, u


def _scan(activation: Activation, point: Pointwise) -> tuple[Array, Array]:
    """One sample: the minimum, and how much lower phi may be between the points of the scan.

    For |phi''| <= B a cell of width d holds nothing below its ends by more than B d^2 / 8.
    """
    m = point.factor[:, 0, 0] if point.factor.shape[2] else np.zeros(1)
    m = np.broadcast_to(m, len(point.c))[:, None]
    if activation.name == "relu":
        # The two pieces' own minimisers and the kink: all there are.
        kink = np.divide(-point.u_given, m, out=np.zeros_like(point.c), where=m != 0)
        candidates = [np.zeros_like(point.c), -m * point.c, kink]
        lowest = np.min([_value(activation, point, z) for z in candidates], axis=0)
        return lowest, np.zeros(len(point.c))
    reach = activation.lipschitz * np.abs(m * point.c)
    best = np.full(len(point.c), np.inf)
    where = np.zeros_like(point.c)
    for fraction in np.linspace(-1, 1, SCAN):
        values = _value(activation, point, fraction * reach)
        where[values < best] = (fraction * reach)[values < best]
        best = np.minimum(best, values)
    width = 2 * reach[:, 0] / (SCAN - 1)
    curvature = 1 + m[:, 0] ** 2 * np.abs(point.c[:, 0]) * activation.curvature
    error = curvature * width**2 / 8
    z = where
    for _ in range(30):  # to the bottom of the best point's valley
        slope = activation.evaluate(_u(point, z), 1)[1]
        z = z - (z + m * point.c * slope) / curvature[:, None]
        best = np.minimum(best, _value(activation, point, z))
    return best, error
