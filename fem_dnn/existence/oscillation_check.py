"""The check that `fem-dnn check` adds: does oscillation in depth beat the computed solution?"""

from __future__ import annotations

from fem_dnn.checks.check import Check, not_applicable
from fem_dnn.checks.subject import Subject
from fem_dnn.existence.savings import savings, why_no_savings

SOURCE = "theory.md section 5 (relaxation: convex envelope of the velocity cost)"

MOST_POINTS = 1024
"""Pairs of depth and neuron up to which the check is made: each is a global minimisation."""


def existence_oscillation(subject: Subject) -> Check:
    """Controls that switch ever faster in depth do no better than the computed ones (collective).

    The value is what they would save, relative to J; it is 0 at a minimiser.
    """
    name, why = "existence_oscillation", why_no_savings(subject)
    points = subject.levels.count * subject.network.space.n_nodes
    if why is None and points > MOST_POINTS:
        why = (
            f"{points} pairs of depth and neuron take long (at most {MOST_POINTS} here); "
            "fem_dnn.existence.savings treats any number"
        )
    if why is not None:
        return not_applicable(name, why, SOURCE)
    found = savings(subject)
    value = found.total / max(abs(found.objective), 1e-14)
    return Check(name, found.total == 0, value, 0.0, found.explanation, SOURCE)
