"""The value functional of a network of finite width (theory.md section 8).

    V(f, t) = inf over the controls on (t, T) of the remaining cost,
    V_t + H(f, DV) = 0,    V(f, T) = sum_s w_s ell_s(f_s),

is computed on a grid of states y = (f_s(x_i)) by a semi-Lagrangian scheme. The data flow: a
`FiniteProblem` (dynamics and costs for many states at once) with its `Controls` (what the minimum
is taken over), a `StateGrid`, `sweep_back` from T to 0, `run_closed_loop` forward again.
"""

from __future__ import annotations

from fem_dnn.dynamic_programming.controls import Controls, DirectControls, MultiplierControls
from fem_dnn.dynamic_programming.examination import Examination, Kinks, examine
from fem_dnn.dynamic_programming.feedback import ClosedLoop, run_closed_loop
from fem_dnn.dynamic_programming.finite_problem import FiniteProblem, InDepth
from fem_dnn.dynamic_programming.open_loop import (
    Gradients,
    OpenLoop,
    compare_gradients,
    default_box,
)
from fem_dnn.dynamic_programming.semi_lagrangian import ValueFunction, steps_for, sweep_back
from fem_dnn.dynamic_programming.state_grid import StateGrid

__all__ = [
    "ClosedLoop",
    "Controls",
    "DirectControls",
    "Examination",
    "FiniteProblem",
    "Gradients",
    "InDepth",
    "Kinks",
    "MultiplierControls",
    "OpenLoop",
    "StateGrid",
    "ValueFunction",
    "compare_gradients",
    "default_box",
    "examine",
    "run_closed_loop",
    "steps_for",
    "sweep_back",
]
