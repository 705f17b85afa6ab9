"""Sweeps over the layers in C, for explicit schemes with one stage on one rank.

The equations are those of `fem_dnn.state`, `fem_dnn.adjoint` and `fem_dnn.sample_sums`, which
serve all other cases and where there is no compiler, and which tests compare these with. What is
won is what NumPy takes beside the matrix products: its calls, and passes over memory. The same for
the metric in which Newton's steps are measured (`fem_dnn.curvature_metric`).
"""

from fem_dnn.native.factors import compiled_inverse_factors
from fem_dnn.native.features import CompiledFeatures, compiled_features
from fem_dnn.native.sweeps import CompiledSweeps, compiled_sweeps

__all__ = [
    "CompiledFeatures",
    "CompiledSweeps",
    "compiled_features",
    "compiled_inverse_factors",
    "compiled_sweeps",
]
