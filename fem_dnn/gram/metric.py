"""The metric of the controls in Gram form: how far a step of q moves kernel and bias.

A change dq of q changes the kernel by sum_s dq_s(x) f_s(y) / lambda_a and the bias by
sum_s dq_s / lambda_b, so its square length in L2 is, at every level and with the states held,

    sum_ss' N_ss' <dq_s, dq_s'>,    N = <f_s, f_s'> / lambda_a^2 + 1 / lambda_b^2.

In z of q = q_0 + T z, T = N^{-1/2}, it is |z|^2. Conjugate gradients in q itself are hopeless: the
Hessian's largest part is K, whose condition number is that of the samples' Gram matrices. In z that
part is between lambda_a and lambda_b times the identity, as in the dense form. N depends on the
states, so T is made anew at every iterate. Samples that are (nearly) dependent make N singular: T
is that of N + epsilon tr(N). Along such dq nothing changes, so the Hessian by q vanishes; where
its lowest eigenvalue is looked for, lambda epsilon tr(N) is added to it, as if R saw them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fem_dnn.gram.controls import GramControls

Array = NDArray[np.float64]

EPSILON = 1e-14
"""Part of N's trace that is added to it."""


def floor(matrices: Array) -> Array:
    """epsilon times the traces, (levels, S, S) -> (levels, 1).

    At a level where all states vanish and there is no bias, q changes nothing: there it is 1.
    """
    trace = np.trace(matrices, axis1=1, axis2=2)[:, None]
    return np.where(trace > 0, EPSILON * trace, 1.0)


class GramMetric:
    """T at one point.

    Args:
        controls: The controls in Gram form.
        metric: N, shape (levels, S, S), the same on every rank.
        tikhonov: The smallest Tikhonov weight, lambda.
        rows: This rank's nodes, block by block.
    """

    def __init__(
        self, controls: GramControls, metric: Array, tikhonov: float, rows: list[slice]
    ) -> None:
        self.controls, self.tikhonov, self._rows = controls, tikhonov, rows
        values, vectors = np.linalg.eigh(metric)
        self._floor = floor(metric)
        roots = np.sqrt(np.maximum(values, 0.0) + self._floor)
        self.blocks = (vectors / roots[:, None, :]) @ vectors.swapaxes(1, 2)
        """T, shape (levels, S, S); symmetric."""

    def apply(self, z: Array, out: Array | None = None) -> Array:
        """T z, in a new array or in one that may be z."""
        result = np.empty_like(z) if out is None else out
        self.controls.outer(result)[...] = self.controls.outer(z)
        q, made = self.controls.q(z), self.controls.q(result)
        for level, T in enumerate(self.blocks):
            for rows in self._rows:
                np.matmul(q[level, rows], T, out=made[level, rows])
        return result

    apply_transpose = apply

    def unseen(self, step: Array) -> Array:
        """lambda epsilon tr(N) dq: what a step that N cannot see is held by."""
        result = np.zeros_like(step)
        q = self.controls.q(step)
        self.controls.q(result)[...] = self.tikhonov * self._floor[:, :, None] * q
        return result
