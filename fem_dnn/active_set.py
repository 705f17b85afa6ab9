"""Which bounds a control attains, and what that means for optimality.

With the gradient g at a control c within its bounds (`box`), an entry is

    inactive          between its bounds: g = 0 at a minimiser
    weakly active     at a bound with the multiplier 0
    strongly active   at a bound that holds it back, with the multiplier g

Second order concerns the entries that are not strongly active, the free ones: where the Hessian is
positive definite on them a critical point is a strict local minimiser; at a minimiser it is
positive semidefinite on the inactive ones (Nocedal & Wright, Numerical Optimization, 12.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.box import Box
from fem_dnn.problem import Linearisation

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

WEAK = 1e-8
"""A multiplier counts as 0 where its nodal value is below this part of the gradient's mean square
root, or below that of the projected gradient, which says how well multipliers are known."""


@dataclass(frozen=True, eq=False)
class ActiveSet:
    """The active set of a linearisation whose controls have bounds.

    Attributes:
        at: The linearisation.
        box: Its bounds.
    """

    at: Linearisation
    box: Box

    @classmethod
    def of(cls, at: Linearisation) -> ActiveSet | None:
        """The active set of a linearisation; None where the controls have no bounds."""
        box = at.problem.controls.box
        return None if box is None else cls(at, box)

    @cached_property
    def inactive(self) -> Mask:
        """Entries of the control vector between their bounds."""
        return ~self.box.active(self.at.control)

    @cached_property
    def free(self) -> Mask:
        """Entries that are not strongly active."""
        at, controls = self.at, self.at.problem.controls
        multiplier = np.abs(at.gradient - at.projected_gradient)
        known = max(at.gradient_norm, WEAK * controls.norm(at.gradient))
        free: Mask = multiplier <= known / controls.norm(controls.scale) * controls.scale
        return free

    @cached_property
    def free_count(self) -> int:
        """Number of free entries on all ranks (collective)."""
        return self._count(self.free)

    @cached_property
    def weak_count(self) -> int:
        """Number of weakly active entries on all ranks (collective)."""
        return self._count(self.free & ~self.inactive)

    def _count(self, mask: Mask) -> int:
        return int(self.at.problem.controls.sum(np.array(np.count_nonzero(mask))))

    def fractions(self) -> dict[str, float]:
        """The part of depth and width where each bounded control is at a bound (collective)."""
        controls = self.at.problem.controls
        shares = {}
        for name in controls.bounded:
            block = controls.blocks[name]
            measure = controls.scale[block] ** 2
            parts = np.array([np.sum(measure[~self.inactive[block]]), np.sum(measure)])
            attained, whole = controls.sum(parts)
            shares[name] = float(attained / whole) if whole else 0.0
        return shares

    def complementarity(self) -> float:
        """max |g| d, with d the way to the bound ahead in parts of the box's width (collective).

        g are nodal values of the gradient: like `gradient_norm`, the maximum vanishes exactly at
        critical points. Towards a side that is free d = 1.
        """
        at, controls = self.at, self.at.problem.controls
        values = np.abs(at.gradient) / controls.scale * self.box.room(at.control, at.gradient)
        largest = 0.0
        for name in controls.bounded:
            largest = max(largest, float(np.max(values[controls.blocks[name]], initial=0.0)))
        return float(controls.comm.allreduce(largest, op=MPI.MAX))
