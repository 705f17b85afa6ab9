"""Sums over samples in which all gradients end: sum_s w_s q_s(x) f_s(y), sum_s w_s q_s(x).

They are written straight into a control vector, as many levels at a time as stay in the cache; a
sum of several such products is one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fem_dnn.controls import ControlParts, ControlSpace
from fem_dnn.native import CompiledSweeps
from fem_dnn.team import several, share
from fem_dnn.trajectories import Levelwise

Array = NDArray[np.float64]


def sample_sums(
    controls: ControlSpace,
    w: Array,
    pairs: Sequence[tuple[Levelwise, Levelwise]],
    functions: Array | None,
    offsets: Array | None,
    compiled: CompiledSweeps | None = None,
) -> Array:
    """The local control vector of sums over samples.

    Args:
        controls: Control space.
        w: Sample weights, shape (samples,).
        pairs: (q, sqrt(h) f on all nodes): the kernel is sum_s w_s q_s(x) f_s(y), summed over the
            pairs, the bias sum_s w_s q_s(x) with the first pair's q.
        functions, offsets: Nodal values of the learned output layer's part, shapes (K, n_local)
            and (K,).
        compiled: Takes the sums where the values are had as products.
    """
    parts = controls.room()
    products = [(q.factors, f.factors[0] if f.factors else None) for q, f in pairs]
    known = all(q and (f is not None or parts.kernel is None) for q, f in products)
    if compiled is not None and known:
        kernel, bias, sums = parts.kernel, parts.bias, compiled.sums
        share(lambda levels: sums(levels, w, products, kernel, bias), controls.levels.count)
    else:
        _fill(controls, w, pairs, parts)
    if parts.outputs is not None and functions is not None:
        np.multiply(functions, controls.space.sqrt_weights[controls.space.owned], out=parts.outputs)
    return controls.join_sums(replace(parts, offsets=offsets))


def _fill(
    controls: ControlSpace,
    w: Array,
    pairs: Sequence[tuple[Levelwise, Levelwise]],
    parts: ControlParts,
) -> None:
    """Fill the kernel's and the bias' part."""
    space, S = controls.space, len(w)
    root = space.sqrt_weights[space.owned]
    # One number instead of equal ones is quicker to multiply by.
    column = root[: 1 if np.all(root == root[:1]) else None, None]
    scale = np.sqrt(controls.levels.weights)[:, None, None] * column
    weights = np.tile(w, len(pairs))

    def work(levels: slice) -> None:
        parted = list(several(levels, space.n_nodes * len(weights)))
        most = parted[0].stop - parted[0].start
        room_q, room_f = (np.empty((most, n, len(weights))) for n in (space.n_local, space.n_nodes))
        for part in parted:
            left, right = (room[: part.stop - part.start] for room in (room_q, room_f))
            for k, (q, f) in enumerate(pairs):
                these = slice(k * S, (k + 1) * S)
                q.put(part, left[..., these])
                if parts.kernel is not None:
                    f.put(part, right[..., these])
            if parts.bias is not None:
                sums = left[..., :S] @ w
                np.multiply(sums, controls.bias_scale[part], out=parts.bias[part])
            if parts.kernel is not None:
                left *= scale[part] * weights
                np.matmul(right, left.swapaxes(-1, -2), out=parts.kernel[part])

    share(work, controls.levels.count)
