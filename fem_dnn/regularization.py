"""The regulariser R(a, b) of theory.md section 2, in L2-orthonormal coordinates.

Tikhonov terms are diagonal there: (lambda / 2) |coordinates|^2 per block.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fem_dnn.controls import ControlSpace

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Regularization:
    """R = (lambda_a / 2) |a|^2 + (lambda_b / 2) |b|^2 + (lambda_out / 2)(|W|^2 + |m|^2).

    Attributes:
        controls: Control space.
        kernel: lambda_a.
        bias: lambda_b.
        outputs: lambda_out, on learned outputs and offsets.
        given: R of the kernel and bias that are given, not trained: a constant.
    """

    controls: ControlSpace
    kernel: float
    bias: float
    outputs: float = 0.0
    given: float = 0.0

    @cached_property
    def _blocks(self) -> list[tuple[slice, float]]:
        blocks = self.controls.blocks
        return [
            (blocks["kernel"], self.kernel),
            (blocks["bias"], self.bias),
            (blocks["outputs"], self.outputs),
            (blocks["offsets"], self.outputs),
        ]

    @property
    def weights(self) -> list[float]:
        """Tikhonov weights of the controls that there are."""
        controls = self.controls
        present = (controls.has_kernel, controls.has_bias, controls.outputs > 0)
        weights = (self.kernel, self.bias, self.outputs)
        return [w for w, there in zip(weights, present, strict=True) if there]

    def value(self, control: Array) -> float:
        """R at a control (collective)."""
        local = sum(0.5 * w * np.dot(control[part], control[part]) for part, w in self._blocks)
        return float(self.controls.space.sum(np.array(local))) + self.given

    def add_derivative(self, control: Array, gradient: Array) -> None:
        """Add R'(control) to a vector in place; R is quadratic, so this is its Hessian too."""
        for part, w in self._blocks:
            gradient[part] += w * control[part]
