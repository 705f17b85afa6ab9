"""What a check says: a statement of the theory, tested on a computed solution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

ROUND_OFF = 1e-11
"""Relative excess of a bound that is put down to round-off: slabs count as solved at 1e-12
(`slab.STALLED`), and bounds that are attained (one sample, constant controls) have no room."""


@dataclass(frozen=True)
class Check:
    """Outcome of one check.

    Attributes:
        name: Its name, fixed by the JSON result.
        holds: Whether the statement holds; None where it does not apply.
        value: What was measured; None where it does not apply.
        bound: What the theory compares it with; None where there is no such number.
        explanation: The statement, where it was tested, and the likely cause if it fails.
        source: Where the statement comes from.
    """

    name: str
    holds: bool | None
    value: float | None
    bound: float | None
    explanation: str
    source: str

    @property
    def sharpness(self) -> float | None:
        """value / bound: near 1 the bound is attained; None where that means nothing."""
        if self.value is None or not self.bound or not math.isfinite(self.bound):
            return None
        return self.value / self.bound

    def as_dict(self) -> dict[str, Any]:
        """The check as the JSON result holds it."""
        return {
            "name": self.name,
            "holds": self.holds,
            "value": self.value,
            "bound": self.bound,
            "sharpness": self.sharpness,
            "explanation": self.explanation,
            "source": self.source,
        }


def not_applicable(name: str, why: str, source: str) -> Check:
    """The outcome of a check that does not apply."""
    return Check(name, None, None, None, f"does not apply: {why}", source)
