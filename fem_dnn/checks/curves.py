"""What the picture of the checks shows: measured norms and their bounds along the depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fem_dnn.checks.hamiltonian import hamiltonian
from fem_dnn.checks.subject import Subject
from fem_dnn.checks.well_posedness import Growth, adjoint_growth, state_growth, sup_growth

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """A measured quantity along the depth.

    Attributes:
        title: What it is.
        t: Depths, shape (points,).
        values: One line per sample, shape (points, samples).
        bounds: Their bounds, same shape; None where there are none.
    """

    title: str
    t: Array
    values: Array
    bounds: Array | None = None


def curves_along_depth(subject: Subject) -> list[Curve]:
    """Norms of state and adjoint with their bounds, and the Hamiltonian (collective)."""

    def curve(title: str, growth: Growth) -> Curve:
        return Curve(title, growth.t, growth.norms, growth.bounds)

    curves = []
    if np.isfinite(subject.network.activation.lipschitz):
        curves.append(curve(r"state $\|f_s(t)\|$", state_growth(subject)))
        if subject.at is not None:
            curves.append(curve(r"adjoint $\|p_s(t)\|$", adjoint_growth(subject)))
    if np.isfinite(subject.network.activation.supremum):
        curves.append(curve(r"state $\|f_s(t)\|_\infty$", sup_growth(subject)))
    if subject.at is not None:
        H = hamiltonian(subject)[:, None]
        curves.append(Curve("Hamiltonian $H(t)$", subject.levels.t, H))
    return curves
