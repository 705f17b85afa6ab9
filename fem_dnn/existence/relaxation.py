"""The relaxed problem of a frozen neuron: the infimum of J, between certified bounds.

    inf J = min over v of int_0^T r**(v) dt + Q(v)

From above: relaxed controls that mix S + 1 velocities on each of some layers (one is enough where
nothing is tracked, by Jensen's inequality), improved by descent. From below: Q is convex, so with
its derivative P(t) at any velocities v

    inf J >= Q(v) - int P.v dt + int D(P(t)) dt,      D(c) = min_z c.sigma(u) + |z|^2 / 2.

D is concave and P quadratic on a layer, so int D(P) is at least the mean of D at P's three
Bernstein coefficients: certified, whatever v was found.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax

from fem_dnn.existence.frozen import FrozenNeuron
from fem_dnn.existence.layered import Layered, LayeredMinimum
from fem_dnn.existence.mixture import grouped
from fem_dnn.existence.support import lowest

Array = NDArray[np.float64]

_STARTS = 24
_ROUNDS = 12
_PRESENT = 1e-7
"""Share below which a control of a mixture counts as absent."""

_SAME = 1e-5
"""Relative distance below which controls of a mixture are the same."""


@dataclass(frozen=True, eq=False)
class Relaxed:
    """The relaxed problem's minimum.

    Attributes:
        lower: Certified lower bound of inf J.
        upper: J of the relaxed control found; controls that switch ever faster approach it.
        velocities: Mean velocities on the layers, shape (layers, S).
        atoms: Controls z that are mixed on each layer, shape (layers, S + 1, rank).
        shares: Their shares, shape (layers, S + 1).
        tracks: Whether there is a tracking term.
    """

    lower: float
    upper: float
    velocities: Array
    atoms: Array
    shares: Array
    tracks: bool

    @property
    def mixed(self) -> int:
        """The most controls that are mixed on a layer: 1 where ordinary controls do."""
        return int(np.max(np.sum(self.shares > _PRESENT, axis=1)))

    @property
    def explanation(self) -> str:
        """What the numbers say."""
        count = self.mixed
        if count == 1:
            how = "one control per depth attains it"
        elif self.tracks:
            how = f"it takes mixtures of {count} controls, which ever faster oscillations approach"
        else:
            switches = (
                "one switch in depth attains" if count == 2 else f"{count - 1} switches attain"
            )
            how = f"it takes a mixture of {count} controls: {switches} it"
        return f"{self.lower:.12g} <= inf J <= {self.upper:.12g}; {how}"


def relax(
    neuron: FrozenNeuron, layers: int = 1, *, tolerance: float = 1e-11, seed: int = 0
) -> Relaxed:
    """The relaxed problem, between bounds.

    Args:
        neuron: The neuron.
        layers: Layers of constant relaxed controls; without tracking 1 is exact.
        tolerance: Distance of the bounds, relative to max(1, J), at which the search ends.
        seed: Seed of the starts.
    """
    problem, rank = Layered(neuron, layers), neuron.velocities.rank
    rng = np.random.default_rng(seed)
    branches = neuron.velocities.samples + 1
    starts = [best_constant(neuron, seed=seed).z]
    starts += [rng.standard_normal((1, rank)) for _ in range(branches - 1)]
    z = np.tile(np.stack(starts, axis=1), (layers, 1, 1))
    logits = np.zeros((layers, branches))
    best: Relaxed | None = None
    lower = -np.inf
    for _ in range(_ROUNDS):
        z, shares, upper = _merged(problem, *_descend(problem, z, logits))
        v = np.einsum("nm,nms->ns", shares, neuron.velocities.velocity(z))
        wanted = tolerance * max(1.0, abs(upper))
        bound, atoms = lower_bound(problem, v, wanted)
        lower = max(lower, bound)
        if best is None or upper < best.upper:
            best = Relaxed(lower, upper, v, z, shares, neuron.tracks)
        if best.upper - lower <= wanted:
            break
        # What the lower bound would rather use takes the place of what is used least.
        least = np.argmin(shares, axis=1)
        z, logits = z.copy(), np.log(np.maximum(shares, 1e-9))
        z[np.arange(layers), least] = atoms
        logits[np.arange(layers), least] = np.log(0.1)
    assert best is not None
    return replace(best, lower=lower)


def best_constant(neuron: FrozenNeuron, *, seed: int = 0) -> LayeredMinimum:
    """The best control that is constant in depth, by descent from several starts."""
    problem, rng = Layered(neuron, 1), np.random.default_rng(seed)
    size = np.sqrt(neuron.velocities.rank)
    starts = [rng.standard_normal((1, neuron.velocities.rank)) for _ in range(_STARTS)]
    found = [
        problem.minimise(start * (1 + 3 * k / _STARTS) * size) for k, start in enumerate(starts)
    ]
    return min(found, key=lambda minimum: minimum.objective)


def lower_bound(problem: Layered, v: Array, tolerance: float = 1e-12) -> tuple[float, Array]:
    """A certified lower bound of inf J from any velocities, (layers, S): the module's text.

    Returns:
        The bound, and on every layer the control z that attains D(P) in its middle.
    """
    neuron, tau = problem.neuron, problem.tau
    y = problem.states(v)
    force = neuron.tracking * (y - neuron.intercept - problem.t[:, None] * neuron.slope)
    # P falls from 0 to T by the integral of the force, linear on every layer.
    falls = tau / 2 * (force[:-1] + force[1:])
    after = np.vstack([np.cumsum(falls[::-1], axis=0)[::-1], 0 * falls[:1]])
    P = neuron.weights * (y[-1] - neuron.targets) + after
    coefficients = np.stack([P[:-1], P[1:] + tau / 2 * force[1:], P[1:]], axis=1)
    known: dict[bytes, tuple[float, Array]] = {}
    total, atoms = problem.loss(v)[0], []
    for n, three in enumerate(coefficients):
        for i, c in enumerate(three):
            key = np.round(c, 13).tobytes()
            if key not in known:
                minimum = lowest(neuron.velocities, c, tolerance / (4 * neuron.depth))
                known[key] = (minimum.lower, minimum.z)
            total += tau / 3 * (known[key][0] - float(c @ v[n]))
            if i == 1:
                atoms.append(known[key][1])
    return total, np.array(atoms)


def _merged(problem: Layered, z: Array, logits: Array, upper: float) -> tuple[Array, Array, float]:
    """Equal controls of a layer as one, absent ones without share, and J of the mixture."""
    z, shares = z.copy(), softmax(logits, axis=1)
    for n in range(problem.layers):
        present = shares[n] > _PRESENT
        atoms, weights = grouped(z[n][present], shares[n][present], _SAME)
        shares[n] = 0.0
        shares[n, : len(atoms)] = weights / weights.sum()
        z[n, : len(atoms)], z[n, len(atoms) :] = atoms, 0.0
    v = np.einsum("nm,nms->ns", shares, problem.neuron.velocities.velocity(z))
    running = problem.tau * float(np.sum(shares * problem.neuron.velocities.cost(z)))
    return z, shares, running + problem.loss(v)[0]


def _descend(problem: Layered, z: Array, logits: Array) -> tuple[Array, Array, float]:
    """Local minimum of the relaxed problem over the mixed controls and their shares."""
    velocities, tau = problem.neuron.velocities, problem.tau
    size = z.size

    def split(x: Array) -> tuple[Array, Array]:
        return x[:size].reshape(z.shape), x[size:].reshape(logits.shape)

    def value(x: Array) -> tuple[float, Array]:
        z, logits = split(x)
        shares = softmax(logits, axis=1)
        sigma, first = velocities.activation.evaluate(velocities.u(z), 1)
        cost = velocities.cost(z)
        loss, force = problem.loss(np.einsum("nm,nms->ns", shares, sigma))
        by_share = tau * cost + np.einsum("ns,nms->nm", force, sigma)
        mean = np.sum(shares * by_share, axis=1, keepdims=True)
        by_z = tau * z + (force[:, None] * first) @ velocities.factor
        gradient = np.concatenate(
            [(shares[..., None] * by_z).ravel(), (shares * (by_share - mean)).ravel()]
        )
        return loss + tau * float(np.sum(shares * cost)), gradient

    options = {"maxiter": 20000, "maxfun": 40000, "ftol": 0.0, "gtol": 1e-11, "maxcor": 30}
    start = np.concatenate([z.ravel(), logits.ravel()])
    found = minimize(value, start, jac=True, method="L-BFGS-B", options=options)
    return *split(found.x), float(found.fun)
