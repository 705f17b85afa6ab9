"""Minimising sequences: the best controls on N, 2N, 4N, ... layers of a frozen neuron.

Where the relaxed minimum mixes controls, layers take turns between them. Good turns are found in
three steps: a beam search over which atom each layer takes (exact for two atoms: there are but few
states), descent from the best, and a search over reversed, shifted and exchanged pieces of depth,
each judged by one Newton step and descended from if that promises an improvement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fem_dnn.existence.frozen import FrozenNeuron
from fem_dnn.existence.layered import Layered, LayeredMinimum, derivative_ratio, total_variation
from fem_dnn.existence.newton_step import newton_step
from fem_dnn.existence.rates import Fit, power_law
from fem_dnn.existence.relaxation import Relaxed

Array = NDArray[np.float64]

BEAM = 2000
"""Partial sequences that are kept."""


@dataclass(frozen=True, eq=False)
class Term:
    """A member of a minimising sequence.

    Attributes:
        layers: N.
        minimum: The best local minimiser found.
        gap: Its J above the certified lower bound of inf J.
        derivative: |d_t a| / |a|.
        variation: Total variation in depth, in units of the mean |a|.
    """

    layers: int
    minimum: LayeredMinimum
    gap: float
    derivative: float
    variation: float


@dataclass(frozen=True, eq=False)
class MinimisingSequence:
    """A minimising sequence with its rates.

    Attributes:
        terms: By the number of layers.
        decay: gap ~ N^-rate.
        growth: |d_t a| / |a| ~ N^rate.
    """

    terms: list[Term]
    decay: Fit
    growth: Fit

    @property
    def explanation(self) -> str:
        """What the numbers say."""
        gaps = ", ".join(f"{term.gap:.4g} ({term.layers})" for term in self.terms)
        text = f"J - inf J falls as N^{self.decay.exponent:.2f}: {gaps} (layers)"
        if self.growth.exponent > 0.5:
            return (
                f"{text}; |d_t a|/|a| grows as N^{self.growth.exponent:.2f}: the controls "
                "oscillate ever faster and have no strong limit"
            )
        return f"{text}; |d_t a|/|a| grows as N^{self.growth.exponent:.2f}"


def minimising_sequence(
    neuron: FrozenNeuron,
    relaxed: Relaxed,
    layers: Sequence[int] = (16, 32, 64, 128),
    *,
    trials: int = 300,
    seed: int = 0,
) -> MinimisingSequence:
    """The best controls on ever more layers, with fitted rates.

    Args:
        neuron: The neuron.
        relaxed: Its relaxed minimum.
        layers: Numbers N of layers, at least two.
        trials: Rearrangements tried on each.
        seed: Their seed.
    """
    terms = []
    for N in layers:
        best = best_layers(Layered(neuron, N), relaxed, trials=trials, seed=seed)
        terms.append(
            Term(
                N,
                best,
                best.objective - relaxed.lower,
                derivative_ratio(best.z, neuron.depth),
                total_variation(best.z),
            )
        )
    decay = power_law(layers, [term.gap for term in terms])
    growth = power_law(layers, [term.derivative for term in terms])
    return MinimisingSequence(terms, decay, growth)


def best_layers(
    problem: Layered, relaxed: Relaxed, *, trials: int = 300, seed: int = 0
) -> LayeredMinimum:
    """The best local minimiser found on some layers: an upper bound of the minimum there."""
    best = problem.minimise(turns(problem, relaxed))
    rng = np.random.default_rng(seed)
    if relaxed.mixed == 1:
        return best
    for _ in range(trials):
        z = _rearranged(best.z, rng)
        promised = problem.objective(z) - newton_step(problem, z)[1]
        if promised < best.objective:
            found = problem.minimise(z)
            if found.objective < best.objective:
                best = found
    return best


def turns(problem: Layered, relaxed: Relaxed) -> Array:
    """Which of the relaxed minimum's controls each layer takes, shape (N, rank).

    States that agree are merged, the cheapest is kept; mixtures of two atoms in quarters join the
    atoms where they have controls, so that a sequence may start and end between them.
    """
    neuron, tau = problem.neuron, problem.tau
    per_layer = (np.arange(problem.layers) * len(relaxed.atoms)) // problem.layers
    menus = [_menu(problem, relaxed, k) for k in range(len(relaxed.atoms))]
    y, cost = neuron.start[None], np.zeros(1)
    history: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    # -r**' = P is the marginal worth of the state: it makes costs of unequal states comparable.
    target = problem.states(relaxed.velocities[per_layer])
    worth = _worth(problem, relaxed.velocities[per_layer])
    for n in range(problem.layers):
        z = menus[per_layer[n]]
        v, running = neuron.velocities.velocity(z), neuron.velocities.cost(z)
        there = y[:, None] + tau * v
        e = y[:, None] - neuron.intercept - problem.t[n] * neuron.slope
        f = there - neuron.intercept - problem.t[n + 1] * neuron.slope
        tracked = tau / 6 * (e * e + e * f + f * f) @ neuron.tracking
        total = (cost[:, None] + tau * running + tracked).ravel()
        there = there.reshape(-1, y.shape[1])
        order = np.argsort(total + (there - target[n + 1]) @ worth[n], kind="stable")
        keys = np.round(there[order] / (tau * 1e-6)).astype(np.int64)
        _, first = np.unique(keys, axis=0, return_index=True)
        kept = order[np.sort(first)[:BEAM]]
        history.append((kept // len(z), kept % len(z)))
        y, cost = there[kept], total[kept]
    final = cost + 0.5 * (y - neuron.targets) ** 2 @ neuron.weights
    where, chosen = int(np.argmin(final)), []
    for n in reversed(range(problem.layers)):
        parents, atoms = history[n]
        chosen.append(menus[per_layer[n]][atoms[where]])
        where = int(parents[where])
    return np.array(chosen[::-1])


def _menu(problem: Layered, relaxed: Relaxed, layer: int) -> Array:
    """The controls that layers may take where the relaxed control is that of one of its layers."""
    present = relaxed.shares[layer] > 1e-7
    atoms = relaxed.atoms[layer][present]
    if not problem.neuron.velocities.activation.increasing:
        return atoms
    between = [
        (1 - share) * atoms[i] + share * atoms[j]
        for i in range(len(atoms))
        for j in range(i)
        for share in (0.25, 0.5, 0.75)
    ]
    return np.array([*atoms, *between])


def _worth(problem: Layered, v: Array) -> Array:
    """The derivative of Q by the state after each layer at some velocities, shape (N, S)."""
    force = problem.loss(v)[1] / problem.tau
    worth: Array = np.vstack([force[1:], force[-1:]])
    return worth


def _rearranged(z: Array, rng: np.random.Generator) -> Array:
    """A piece of depth reversed or shifted by a layer, or two layers exchanged."""
    z = z.copy()
    i, j = np.sort(rng.integers(len(z), size=2))
    kind = rng.integers(4)
    if kind == 0:
        z[[i, j]] = z[[j, i]]
    elif kind <= 2:
        z[i : j + 1] = z[i : j + 1][::-1]
    else:
        z[i : j + 1] = np.roll(z[i : j + 1], 1, axis=0)
    return z
