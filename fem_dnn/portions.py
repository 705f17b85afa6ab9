"""The learning problem a portion of the samples at a time, where memory does not hold all.

Given the controls, samples do not know of each other: J, its gradient and a Hessian product are
sums over them of what each finds along its own trajectory,

    J = sum_k J_k + R,     grad J = sum_k grad J_k + R'(c),     H d = sum_k H_k d + R'' d,

over portions k of the samples. So one portion's state and adjoint are in memory at a time. A
gradient costs no more by that, for its adjoint follows its state at once. A Hessian product needs
both again: they are made anew, two sweeps beside the six of a product, but for as many portions as
may stay in memory.

Checkpoints along the depth (Griewank & Walther's revolve) would save no more: with n samples in a
portion its trajectories are n / nodes of a kernel, which has to be held anyway, and every portion
is marched once where they march some layers several times, for the gradient too (docs/memory.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fem_dnn.losses import LossPoint
from fem_dnn.problem import LearningProblem, Linearisation

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PortionedProblem(LearningProblem):
    """A learning problem whose samples are taken a portion at a time.

    Attributes:
        count: Number of portions; every count-th sample belongs to the same one, so that each is
            like all of them.
        resident: How many of them keep their trajectories from one product to the next.
    """

    count: int = 1
    resident: int = 0

    @classmethod
    def of(cls, problem: LearningProblem, count: int, resident: int = 0) -> PortionedProblem:
        """A problem's samples in portions; the same count in every group of ranks.

        Raises:
            ValueError: There are more portions than samples.
        """
        if not 1 <= count <= len(problem.sample_weights):
            raise ValueError(f"{count} portions of {len(problem.sample_weights)} samples")
        typical = problem.typical or problem
        some = slice(None, None, count)
        first = typical.sample_weights[some]
        weights = first * (typical.sample_weights.sum() / first.sum())
        parts = problem.parts() | {"typical": typical.of_samples(some, weights)}
        return cls(**parts, count=count, resident=resident)

    @cached_property
    def portions(self) -> list[tuple[slice, LearningProblem]]:
        """Which samples a portion has, and their part of the learning problem."""
        some = (slice(first, None, self.count) for first in range(self.count))
        return [(part, self.of_samples(part)) for part in some]

    def of_samples(self, some: slice, weights: Array | None = None) -> LearningProblem:
        """The problem for some of the samples, whose trajectories are kept whole."""
        return LearningProblem(**self.parts()).of_samples(some, weights)

    def linearise(self, control: Array) -> PortionedLinearisation:
        """Everything known at a control, computed when asked for. The control is not copied."""
        return PortionedLinearisation(self, control)

    @property
    def operations(self) -> float:
        """Operations of the largest matrix product that one rank does at once."""
        return super().operations / self.count


@dataclass(frozen=True, eq=False)
class _Passed:
    """What one pass over all samples has found.

    Attributes:
        loss: Terminal losses and tracking terms, weighted.
        gradient: The derivative of J.
        terminal: f(T), shape (n_local, samples).
    """

    loss: float
    gradient: Array
    terminal: Array


class PortionedLinearisation(Linearisation):
    """The learning problem at one control, a portion of the samples at a time.

    `state` and `adjoint` are still there when asked for, of all samples: no solver does.
    """

    problem: PortionedProblem

    def __init__(self, problem: PortionedProblem, control: Array) -> None:
        super().__init__(problem, control)
        self._resident: dict[int, Linearisation] = {}

    def _portions(self) -> Iterator[tuple[slice, Linearisation]]:
        """Every portion's samples and linearisation, which is gone with the next one's."""
        for number, (some, portion) in enumerate(self.problem.portions):
            part = self._resident.get(number) or portion.linearise(self.control)
            if number < self.problem.resident:
                self._resident[number] = part
            yield some, part
            self.problem.count_work_of(portion)

    @cached_property
    def _passed(self) -> _Passed:
        """Loss and gradient together, for who asks for one goes on to ask for the other.

        Where the loss is not finite there is no gradient to look for.
        """
        problem = self.problem
        loss, terminal = 0.0, np.empty(problem.inputs.shape)
        gradient: Array = np.zeros(problem.controls.n_local)
        for some, part in self._portions():
            loss += part.loss
            terminal[:, some] = part.state.ends[-1]
            if np.isfinite(loss):
                gradient += part.loss_gradient()
        if np.isfinite(loss):
            problem.regularization.add_action(self.control, gradient)
        else:
            gradient.fill(np.nan)
        return _Passed(loss, gradient, terminal)

    @cached_property
    def loss(self) -> float:
        """Terminal loss and tracking term, weighted by the samples."""
        return self._passed.loss

    @property
    def gradient(self) -> Array:
        """The reduced gradient in L2-orthonormal coordinates."""
        return self._passed.gradient

    @cached_property
    def loss_point(self) -> LossPoint:
        """The terminal loss at the state's end."""
        return self.problem.loss.at(self._passed.terminal, self.output_layer)

    @property
    def at_rest(self) -> bool:
        """Whether all pre-activations are zero on this rank."""
        return all(part.at_rest for _, part in self._portions())

    def change_of_loss_gradient(self, direction: Array, inputs: Array | None = None) -> Array:
        """Derivative of the loss's gradient in a direction of control and inputs (collective)."""
        problem = self.problem
        change: Array = np.zeros(problem.controls.n_local)
        for some, part in self._portions():
            change += part.change_of_loss_gradient(
                direction, None if inputs is None else np.ascontiguousarray(inputs[:, some])
            )
        return change

    def forget(self) -> None:
        """Drop the trajectories of all portions."""
        self._resident.clear()
