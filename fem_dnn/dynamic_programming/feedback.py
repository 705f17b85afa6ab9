"""The closed loop: controls synthesised from V at the state that has been reached.

At t_n the state y is met by the minimiser of the dynamic programming principle from there (`Step`),
which is kept until t_{n+1}; where V is differentiable and the step short that is the feedback of
theory.md section 8, theory.md section 3 with w_s p_s replaced by D_{f_s} V.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fem_dnn.dynamic_programming.semi_lagrangian import SWEEPS, ValueFunction

Array = NDArray[np.float64]

INSIDE = 10
"""Steps of the flow within a step of the scheme."""


@dataclass(frozen=True, eq=False)
class ClosedLoop:
    """A trajectory under feedback.

    Attributes:
        t: Depths, shape (L + 1,).
        states: Shape (L + 1, S, N).
        kernel, bias: Controls on the scheme's steps, (steps, N, N) and (steps, N); None: absent.
        cost: What the trajectory costs, terminal loss included.
        inside: Whether it keeps one cell away from the faces of the box.
    """

    t: Array
    states: Array
    kernel: Array | None
    bias: Array | None
    cost: float
    inside: bool


def run_closed_loop(value: ValueFunction, start: Array) -> ClosedLoop:
    """Run the dynamics from a state (S, N) at t = 0 under feedback (rank 0)."""
    problem, grid = value.problem, value.grid
    f = start[:, :, None]
    t, states, kernels, biases, total = [0.0], [f[:, :, 0]], [], [], 0.0
    for n in range(len(value.times) - 1):
        step = value.step(n)
        z, _ = step.globally(f, SWEEPS[1])
        a, b = problem.rows(z, f, step.t + 0.5 * step.tau)
        if a is not None:
            kernels.append(a[:, :, 0])
        if b is not None:
            biases.append(b[:, 0])
        for k in range(INSIDE):
            tau = step.tau / INSIDE
            f, cost = problem.flow(f, a, b, step.t + k * tau, tau)
            total += float(cost[0])
            t.append(step.t + (k + 1) * tau)
            states.append(f[:, :, 0])
    total += float(problem.terminal(f)[0])
    path = np.stack(states)
    inner = grid.box + np.outer(grid.spacing, [1.0, -1.0])
    y = path.reshape(len(path), -1)
    inside = bool(np.all((y >= inner[:, 0]) & (y <= inner[:, 1])))
    return ClosedLoop(
        np.array(t),
        path,
        np.stack(kernels) if kernels else None,
        np.stack(biases) if biases else None,
        total,
        inside,
    )
