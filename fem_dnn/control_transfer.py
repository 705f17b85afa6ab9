"""Controls carried from one network to another: L2 projections in depth and in both arguments.

    a -> sum_l D_kl P a_l P',   b -> sum_l D_kl P b_l,   W -> P W,   m -> m

with P the projection in width and D the one in depth. From coarse to fine this prolongs (nothing
changes where the meshes are nested), from fine to coarse it restricts; the two are adjoint.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from fem_dnn.controls import ControlParts, ControlSpace, ControlValues
from fem_dnn.depth_projection import depth_projection
from fem_dnn.width_projection import width_projection

Array = NDArray[np.float64]


def transfer_values(values: ControlValues, width: sparse.csr_array, depth: Array) -> ControlValues:
    """Nodal values in file order, carried to another network.

    Args:
        values: Controls on the source.
        width: P of `width_projection`, shape (target nodes, source nodes).
        depth: D of `depth_projection`, shape (target levels, source levels).
    """
    kernel = bias = outputs = factors = None
    if values.factors is not None:
        factors = values.factors.projected(width, depth)
    if values.kernel is not None:
        kernel = np.empty((len(depth), width.shape[0], width.shape[0]))
        for k in range(len(depth)):
            kernel[k] = (width @ (width @ _combination(depth[k], values.kernel)).T).T
    if values.bias is not None:
        bias = np.ascontiguousarray((width @ (depth @ values.bias).T).T)
    if values.outputs is not None:
        outputs = np.ascontiguousarray((width @ values.outputs.T).T)
    return ControlValues(kernel, bias, outputs, values.offsets, factors=factors)


def transfer_control(source: ControlSpace, vector: Array, target: ControlSpace) -> Array:
    """A control of one network as a control of another (collective).

    One level of the kernel is whole in memory at a time, on the target's nodes in y and the
    source's in x. Entries outside the target's mask are dropped; a part that the source does not
    control is zero in the target.

    Args:
        source: Control space of the vector; on the same communicator as the target's.
        vector: Local vector in L2-orthonormal coordinates.
        target: Control space to go to.

    Returns:
        Local vector of the target in L2-orthonormal coordinates.

    Raises:
        ValueError: The domains, the depths or the numbers of outputs differ.
    """
    if source.outputs and target.outputs and source.outputs != target.outputs:
        raise ValueError(f"the numbers of outputs differ: {source.outputs} and {target.outputs}")
    there, here = source.space, target.space
    in_file_order = width_projection(there, here)
    width = in_file_order[here.file_position][:, there.file_position]
    mine = width[here.owned]
    depth = depth_projection(source.levels, target.levels)
    parts = source.split(vector)
    n, count = here.n_local, target.levels.count
    kernel = bias = outputs = None
    offsets: Array | None = None
    root_there, root_here = there.sqrt_weights, here.sqrt_weights
    if target.has_kernel:
        kernel = np.zeros((count, here.n_nodes, n))
        if parts.kernel is not None:
            unscale = root_there[:, None] * root_there[there.owned]
            scale = root_here[:, None] * root_here[here.owned]
            between = depth * np.sqrt(target.levels.weights[:, None] / source.levels.weights)
            for k in range(count):
                level = width @ (_combination(between[k], parts.kernel) / unscale)
                kernel[k] = (mine @ there.gather(level.T)).T * scale
    if target.has_bias:
        bias = np.zeros((count, n))
        if parts.bias is not None:
            values = there.gather((depth @ (parts.bias / source.bias_scale)).T)
            bias = (mine @ values).T * target.bias_scale
    if target.outputs:
        outputs = np.zeros((target.outputs, n))
        offsets = np.zeros(target.outputs)
        if parts.outputs is not None and parts.offsets is not None:
            values = there.gather((parts.outputs / root_there[there.owned]).T)
            outputs = (mine @ values).T * root_here[here.owned]
            offsets = parts.offsets
    return target.join(ControlParts(kernel, bias, outputs, offsets))


def _combination(row: Array, levels: Array) -> Array:
    """sum_l row_l levels_l over the few levels that count."""
    total = np.zeros(levels.shape[1:])
    for number in np.flatnonzero(row):
        total += row[number] * levels[number]
    return total
