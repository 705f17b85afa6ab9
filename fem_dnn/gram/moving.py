"""A step in kernel and bias, brought back to Gram form, on one stretch of the depth.

From q, f along dq, df: the kernel a + da = sum_s ((q + dq)_s f_s + q_s df_s) / lambda_a and the
bias b + db move new states F along; q_+ = K(F)^{-1} u_+ moves them along the same way.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fem_dnn.gram.form import products
from fem_dnn.gram.march import march
from fem_dnn.gram.metric import floor
from fem_dnn.gram.stretch import Blockwise, Stretch
from fem_dnn.gram.sweeps import Direction, Tangent

Array = NDArray[np.float64]

REFINEMENTS = 2
"""Steps of iterative refinement with which K q = u is solved."""


def move(
    stretch: Stretch, direction: Direction, tangent: Tangent, start: Array, out: Array
) -> Array:
    """The coordinates of q_+ on a stretch (collective).

    Args:
        stretch: The stretch of the depth at the point that is left.
        direction: The step.
        tangent: Of the state, along it.
        start: sqrt(h) F where the stretch starts.
        out: Filled with sqrt(omega h) q_+, shape (levels, n_local, S).

    Returns:
        sqrt(h) F where the stretch ends.

    Raises:
        SlabFailure: An implicit slab did not converge.
    """
    form = stretch.form
    flow = _MovedFlow(stretch, direction, tangent, out)
    ends, stages = stretch.room_for_ends("du")  # which is not needed here
    ends[0] = start
    met = march(form, flow, ends, stages, ends[:0])
    for part in form.slabs():
        root = form.root_omega[part]
        K = form.K(met[part, 2])
        inverse = np.linalg.inv(K + floor(K)[..., None] * np.eye(len(K[0])))
        for rows in form.blocks:
            u = out[part, rows]
            q = flow.new(part, rows) / root
            for _ in range(REFINEMENTS):
                q += (u - q @ K) @ inverse
            np.multiply(q, root, out=u)
    return ends[-1].copy()


class _MovedFlow:
    """d_t F = sigma(u_+); leaves sqrt(h) u_+, without a given bias, in `out`."""

    keeps = False

    def __init__(
        self, stretch: Stretch, direction: Direction, tangent: Tangent, out: Array
    ) -> None:
        self.stretch, self.direction, self.tangent, self.out = stretch, direction, tangent, out
        self.state = stretch.state

    def new(self, part: slice, rows: slice) -> Array:
        """The coordinates of q + dq, a new array."""
        return np.asarray(self.stretch.coordinates[part, rows] + self.direction.at(part, rows))

    def meet(self, part: slice, *, solved: bool) -> Callable[[slice, Array], Array]:
        f, df = self.state.stages, self.tangent.stages
        return lambda rows, F: np.stack(
            [products(f[part, rows], F), products(df[part, rows], F), products(F, F)], axis=1
        )

    def slopes(self, part: slice, M: Array) -> Blockwise:
        stretch, form = self.stretch, self.stretch.form
        on_new = form.K(M[:, 0]) / form.root_omega[part]
        on_q = form.kernel * M[:, 1] / form.root_omega[part]
        evaluate, given, root = form.network.activation.evaluate, stretch.given, form.root

        def at(rows: slice) -> Array:
            u = self.new(part, rows) @ on_new
            u += stretch.coordinates[part, rows] @ on_q
            self.out[part, rows] = u
            u /= root[rows]
            if given is not None:
                u += given[part, rows]
            return np.asarray(evaluate(u, 0)[0] * root[rows])

        return at
