"""Gradient steps on blocks of the control vector, each obeying Armijo's condition.

They are projected onto the controls' bounds.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fem_dnn.problem import LearningProblem
from fem_dnn.solvers.step import ARMIJO, SHORTEST, Failures, is_noise, shortened

Array = NDArray[np.float64]


class Block(Protocol):
    """What a block's controls have influence on, besides R.

    Attributes:
        cost: It, at the block's present controls.
        slope: Its derivative by them.
    """

    @property
    def cost(self) -> float: ...

    @property
    def slope(self) -> Array: ...

    def attempt(self, control: Array) -> float:
        """The cost at a trial control vector."""

    def attempted_slope(self) -> Array:
        """The derivative at the last trial."""

    def accept(self) -> None:
        """Make the last trial the present state; its slope has been asked for."""


class BlockSteps:
    """Steps on blocks, and what is remembered of them from sweep to sweep.

    Args:
        problem: The learning problem.
        entries: Numbers of each block's entries in the control vector.
        negligible: A block with a smaller gradient takes no step.
        failures: Collects what went wrong at trial points.
    """

    def __init__(
        self,
        problem: LearningProblem,
        entries: list[NDArray[np.int64]],
        negligible: float,
        failures: Failures,
    ) -> None:
        self.problem, self.failures = problem, failures
        self.entries, self.negligible = entries, negligible
        self._steps: list[float | None] = [None] * len(entries)
        box = problem.controls.box
        self._boxes = [None if box is None else box.of(block) for block in entries]

    def step(self, number: int, control: Array, block: Block, objective: float) -> bool:
        """One step on a block.

        Args:
            number: The block's number.
            control: Control vector, changed in place where a step is made.
            block: What the step is for.
            objective: J, whose round-off is the smallest change that can be seen.

        Returns:
            Whether a step was made.
        """
        entries, dot = self.entries[number], self.problem.controls.dot
        box = self._boxes[number]
        here = control[entries]
        pull = self._regularization_slope(control, entries)
        gradient = block.slope + pull
        pulled = gradient if box is None else box.projected_gradient(here, gradient)
        square = dot(pulled, pulled)
        if square <= self.negligible**2:
            return False
        step = self._steps[number] or 1.0 / max(square**0.5, 1.0)
        shortest = SHORTEST * max(dot(here, here), 1.0) ** 0.5 / square**0.5
        while step > shortest:
            ahead = here - step * gradient
            control[entries] = ahead if box is None else box.project(ahead)
            move = control[entries] - here
            decrease = dot(gradient, move)
            new_pull = self._regularization_slope(control, entries)
            cost = self.failures.value(lambda: block.attempt(control))
            # R is quadratic: the trapezoidal rule is exact for its change.
            difference = cost - block.cost + 0.5 * dot(pull + new_pull, move)
            new_gradient: Array | None = None
            if is_noise(difference, objective):
                new_gradient = block.attempted_slope() + new_pull
                difference = 0.5 * dot(gradient + new_gradient, move)
            if difference <= ARMIJO * decrease:
                if new_gradient is None:
                    new_gradient = block.attempted_slope() + new_pull
                turn = np.where(move != 0, new_gradient - gradient, 0.0)
                curvature, bend = dot(move, turn), dot(turn, turn)
                self._steps[number] = curvature / bend if curvature > 0 else 2 * step
                block.accept()
                return True
            step = shortened(step, decrease / step, difference)
        control[entries] = here
        return False

    def _regularization_slope(self, control: Array, entries: NDArray[np.int64]) -> Array:
        return self.problem.regularization.action(control)[entries]
