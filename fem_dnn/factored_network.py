"""The learning problem at a kernel that is held by its factors, for networks of any width.

There the kernel counts as given: objective, state and adjoint are those of a problem that trains
bias and outputs alone, and R has the kernel's part as a constant,

    |a|^2 = sum_k omega_k sum_rr' <left_r, left_r'> <right_r, right_r'>.

The gradient by the kernel has factors as well, lambda_a left_r (x) right_r and w_s q_s (x) f_s with
q_s = sigma'(u_s) p_s (theory.md section 3).
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fem_dnn.controls import ControlSpace, ControlValues
from fem_dnn.gram.operator import GramOperator
from fem_dnn.kernel_factors import KernelFactors
from fem_dnn.network import LayerWeights
from fem_dnn.problem import LearningProblem, Linearisation

Array = NDArray[np.float64]


class FactoredLinearisation(Linearisation):
    """A learning problem at a kernel's factors, a bias and an output layer.

    `control`, `gradient` and what follows from them are of bias and outputs; `gradient_norm` and
    `length` are of all.

    Args:
        problem: A problem that has a Gram form (`gram.problem.why_not`).
        values: Nodal values, the kernel by its factors.
    """

    def __init__(self, problem: LearningProblem, values: ControlValues) -> None:
        factors = values.factors
        assert factors is not None
        network, trained, R = problem.network, problem.controls, problem.regularization
        space, omega = network.space, network.levels.weights
        controls = ControlSpace(
            space, network.levels, kernel=False, bias=trained.has_bias, outputs=trained.outputs
        )
        self.factors: KernelFactors = factors
        self.kernel_weight = R.kernel
        self.kernel_square = float(omega @ factors.squares(space.node_weights))
        operator = GramOperator(space, omega, *factors.on(space))
        given = R.given + 0.5 * R.kernel * self.kernel_square
        rest = replace(
            problem,
            controls=controls,
            regularization=replace(R, controls=controls, given=given),
            given=LayerWeights(operator, problem.given.bias),
        )
        super().__init__(rest, controls.coordinates(values))

    @property
    def length(self) -> float:
        """L2 norm of kernel, bias and output layer."""
        return float(np.sqrt(super().length ** 2 + self.kernel_square))

    @cached_property
    def gradient_norm(self) -> float:
        """L2 norm of the gradient by kernel, bias and output layer."""
        problem, (left, right) = self.problem, self.factors.on(self.problem.network.space)
        space, levels = problem.network.space, problem.network.levels
        root = space.sqrt_weights[space.owned, None]
        f = self.state.gathered_at(slice(0, levels.count))
        assert f is not None, "there is a kernel"
        q = self.adjoint.q * problem.sample_weights
        A = root * np.concatenate([self.kernel_weight * left, q], axis=2)
        B = np.concatenate([root * right, f], axis=2)
        # |A B'| = |A R'| with B = Q R. Near a solution the terms cancel: inner products of factors,
        # whose square roots are wanted in the end, would leave half of the digits.
        pieces = space.comm.allgather(np.linalg.qr(B, mode="r"))
        R = np.asarray(np.linalg.qr(np.concatenate(pieces, axis=1), mode="r"))
        squares = np.sum(np.matmul(A, R.swapaxes(1, 2)) ** 2, axis=(1, 2))
        by_kernel = float(levels.weights @ space.sum(squares))
        return float(np.sqrt(by_kernel + problem.controls.norm(self.gradient) ** 2))
