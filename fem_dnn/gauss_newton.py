"""The Gauss-Newton term J' W J of the reduced Hessian, by the pre-activations.

J is the derivative of the outputs of all samples by the controls, W the loss's second derivative by
the outputs times the samples' weights.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fem_dnn.adjoint import solve_adjoint
from fem_dnn.problem import Linearisation

Array = NDArray[np.float64]

MAX_OUTPUTS = 128
"""Outputs times samples up to which the Gauss-Newton term is inverted."""


def output_slopes(at: Linearisation) -> Array | None:
    """(J' W J)^{1/2} by the pre-activations: (levels, n_local, outputs samples), output by output.

    None for losses without outputs, or with too many.
    """
    problem, loss, layer = at.problem, at.loss_point, at.output_layer
    if loss.outputs is None or layer is None or loss.outputs.size > MAX_OUTPUTS:
        return None
    curvature = loss.curvature
    assert curvature is not None, "a loss of outputs has a curvature by them"
    count, samples = loss.outputs.shape
    nodes = at.state.slope.shape[1]
    nothing = np.empty((0, nodes, samples))
    problem.work.adjoints += count
    slopes = [
        solve_adjoint(problem.network, at.weights, at.state.slope, terminal, nothing).q
        for terminal in layer.functions[:, :, None] * np.ones(samples)
    ]
    values, vectors = np.linalg.eigh(curvature.transpose(2, 0, 1))
    roots = vectors * np.sqrt(np.maximum(values, 0.0))[:, None]  # [sample, output, part]
    combined = [
        sum(slope * root for slope, root in zip(slopes, part, strict=True))
        for part in (roots * np.sqrt(problem.sample_weights)[:, None, None]).transpose(2, 1, 0)
    ]
    return problem.controls.bias_scale[:, :, None] * np.concatenate(combined, axis=-1)
