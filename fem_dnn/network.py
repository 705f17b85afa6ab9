"""The network without its weights, and its weights: kernel and bias at the depth levels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fem_dnn.activations import Activation
from fem_dnn.depth import DepthLevels
from fem_dnn.native import CompiledSweeps, compiled_sweeps
from fem_dnn.nonlocal_operator import NonlocalOperator
from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Network:
    """The network without its weights: width space, depth levels, activation."""

    space: WidthSpace
    levels: DepthLevels
    activation: Activation

    @property
    def stages_are_ends(self) -> bool:
        """Whether sqrt(h) f at the levels can be had from f at the slab ends by scaling."""
        return self.levels.scheme.explicit and self.space.comm.size == 1

    @cached_property
    def compiled(self) -> CompiledSweeps | None:
        """The sweeps in C, where there are any for such a network."""
        return compiled_sweeps(self.space, self.levels)

    def sweeps(self, *weights: LayerWeights) -> CompiledSweeps | None:
        """The sweeps in C, where they serve for such kernels and biases."""
        return self.compiled if all(each.dense for each in weights) else None


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """Kernel and bias as the sweeps use them, or a direction in which they change.

    Attributes:
        operator: The nonlocal operator K; None where there is no kernel.
        bias: Values b at this rank's nodes, shape (levels, n_local, 1); None where there is none.
    """

    operator: NonlocalOperator | None
    bias: Array | None

    @property
    def dense(self) -> bool:
        """Whether the kernel, if there is one, is held as matrices."""
        return self.operator is None or self.operator.dense

    @property
    def kernel(self) -> Array | None:
        """The kernel's matrices; None where there is none."""
        return None if self.operator is None else self.operator.coefficients

    def pre_activation(self, levels: int | slice, gathered: Array | None, out: Array) -> None:
        """Put Kf + b at some levels into `out`, from sqrt(h) f there on all nodes."""
        if self.operator is None or gathered is None:
            out[...] = 0.0 if self.bias is None else self.bias[levels]
        else:
            self.operator.apply(levels, gathered, out=out)
            if self.bias is not None:
                out += self.bias[levels]
