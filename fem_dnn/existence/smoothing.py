"""What derivative regularisation does: gamma > 0 restores a minimiser, gamma -> 0 the infimum.

With (gamma / 2) |d_t a|^2 the controls are compact and J attains its minimum J_gamma, which falls
to inf J as gamma -> 0. How fast says what stands in the way. Between two velocities of the
relaxed control the controls need a layer of thickness ~ (gamma / lambda)^{1/2}, at a cost of that
size; without tracking one such transition is enough,

    J_gamma - inf J ~ gamma^{1/2},

with tracking the turns want to be short: n of them cost n gamma^{1/2} and leave n^{-2} untracked,

    n ~ gamma^{-1/6},   J_gamma - inf J ~ gamma^{1/3}

(S. Mueller, Calc. Var. 1, 1993, for the scalar model problem). Where one control per depth attains
the relaxed minimum, constant in depth, nothing has to be paid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fem_dnn.existence.frozen import FrozenNeuron
from fem_dnn.existence.layered import Layered, LayeredMinimum, derivative_ratio, total_variation
from fem_dnn.existence.minimising_sequence import turns
from fem_dnn.existence.rates import Fit, power_law
from fem_dnn.existence.relaxation import Relaxed

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Smoothed:
    """The best minimiser found at one gamma.

    Attributes:
        ratio: gamma / lambda.
        minimum: The minimiser; its objective contains the derivative term.
        gap: J_gamma above the certified lower bound of inf J.
        derivative: |d_t a| / |a|.
        variation: Total variation in depth, in units of the mean |a|.
    """

    ratio: float
    minimum: LayeredMinimum
    gap: float
    derivative: float
    variation: float


@dataclass(frozen=True, eq=False)
class SmoothingStudy:
    """Minimisers for falling gamma.

    Attributes:
        terms: In the order of the ratios.
        decay: gap ~ gamma^rate.
    """

    terms: list[Smoothed]
    decay: Fit

    @property
    def explanation(self) -> str:
        """What the numbers say."""
        first, last = self.terms[0], self.terms[-1]
        return (
            f"J_gamma - inf J falls as gamma^{self.decay.exponent:.2f}, from {first.gap:.4g} at "
            f"gamma/lambda = {first.ratio:.3g} to {last.gap:.4g} at {last.ratio:.3g}; every gamma "
            f"has a smooth minimiser, |d_t a|/|a| = {first.derivative:.3g} to {last.derivative:.3g}"
        )


def smoothing_study(
    neuron: FrozenNeuron,
    relaxed: Relaxed,
    ratios: Sequence[float],
    layers: int = 256,
    *,
    turning: Sequence[int] = (1, 2, 4, 8, 16, 32),
) -> SmoothingStudy:
    """Minimise with gamma > 0 for some ratios gamma / lambda.

    Args:
        neuron: The neuron.
        relaxed: Its relaxed minimum.
        ratios: gamma / lambda, falling; at least two. (gamma / lambda)^{1/2} should span a few of
            the layers, otherwise the number says more about these.
        layers: N, a multiple of the numbers in `turning`.
        turning: The turns on so many layers are starts, besides the last ratio's minimiser.

    Raises:
        ValueError: `layers` is no multiple of a number in `turning`.
    """
    if any(layers % n for n in turning):
        raise ValueError(f"{layers} layers are no multiple of {', '.join(map(str, turning))}")
    coarse = [turns(Layered(neuron, n), relaxed) for n in turning]
    starts = [np.repeat(z, layers // len(z), axis=0) for z in coarse]
    starts.append(np.einsum("nm,nmr->nr", relaxed.shares, relaxed.atoms)[:1].repeat(layers, axis=0))
    terms: list[Smoothed] = []
    for ratio in ratios:
        problem = Layered(neuron, layers, ratio)
        before = [terms[-1].minimum.z] if terms else []
        found = [problem.minimise(z) for z in (*before, *starts)]
        best = min(found, key=lambda minimum: minimum.objective)
        terms.append(
            Smoothed(
                ratio,
                best,
                best.objective - relaxed.lower,
                derivative_ratio(best.z, neuron.depth),
                total_variation(best.z),
            )
        )
    return SmoothingStudy(terms, power_law(ratios, [term.gap for term in terms]))
