"""What two grids, the open loop and the closed loop say about each other (rank 0)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fem_dnn.dynamic_programming.feedback import ClosedLoop, run_closed_loop
from fem_dnn.dynamic_programming.open_loop import Gradients, OpenLoop, compare_gradients
from fem_dnn.dynamic_programming.semi_lagrangian import ValueFunction

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Kinks:
    """Where V is not differentiable, as far as the grid can tell.

    Attributes:
        fractions: Part of the grid's points that are marked, at every t_n, shape (steps + 1,).
        at_input: Whether one lies within two cells of the input at t = 0.
        on_open_loop: The t_n at which one lies within two cells of the open loop.
    """

    fractions: Array
    at_input: bool
    on_open_loop: Array


@dataclass(frozen=True, eq=False)
class Examination:
    """Numbers about a value function.

    Attributes:
        value: V(f_I, 0) on the finer grid.
        coarse: The same on the coarser grid.
        extrapolated: Richardson's extrapolation of the two for an error proportional to the square
            of the step in depth, the scheme's order where V is smooth.
        closed: The closed loop from the input.
        gradients: DV along the open loop; None without one.
        kinks: Where V is not differentiable.
    """

    value: float
    coarse: float
    extrapolated: float
    closed: ClosedLoop
    gradients: Gradients | None
    kinks: Kinks

    @property
    def error_estimate(self) -> float:
        """|V_h - V_2h|: the error of V_h if it fell with order 1; a third of it for order 2."""
        return abs(self.value - self.coarse)


def examine(coarse: ValueFunction, fine: ValueFunction, loop: OpenLoop | None) -> Examination:
    """Examine V on two grids of the same box.

    Args:
        coarse, fine: The value functions.
        loop: The optimality system's trajectory; None where there is none.
    """
    inputs = fine.problem.inputs
    values = fine.at(inputs), coarse.at(inputs)
    ratio = (len(fine.times) - 1) / (len(coarse.times) - 1)
    correction = (values[0] - values[1]) / (ratio**2 - 1) if ratio > 1 else 0.0
    return Examination(
        *values,
        values[0] + correction,
        run_closed_loop(fine, inputs),
        None if loop is None else compare_gradients(fine, loop),
        _kinks(fine, loop),
    )


def _kinks(value: ValueFunction, loop: OpenLoop | None) -> Kinks:
    grid, start = value.grid, value.problem.inputs.reshape(-1, 1)
    fractions, on_open_loop, at_input = [], [], False
    path = None if loop is None else loop.at(value.times)[0].reshape(len(value.times), -1)
    for n, (t, values) in enumerate(zip(value.times, value.values, strict=True)):
        marked = grid.kinks(values)
        fractions.append(np.mean(marked))
        if n == 0:
            at_input = grid.any_near(marked, start[:, 0])
        if path is not None and grid.any_near(marked, path[n]):
            on_open_loop.append(t)
    return Kinks(np.array(fractions), at_input, np.array(on_open_loop))
