"""The open loop beside V: the optimality system's trajectory, and its adjoint against DV.

At a minimiser whose states V is differentiable at, D_{f_s} V(f(t), t) = w_s p_s(t).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fem_dnn.activations import Activation
from fem_dnn.dynamic_programming.semi_lagrangian import ValueFunction

Array = NDArray[np.float64]

ROOM = 0.5
"""Room on each side of a default box, in parts of the trajectory's largest extent."""

LEAST = 0.1
"""Least room, in parts of the states' size."""


@dataclass(frozen=True, eq=False)
class OpenLoop:
    """The trajectory of the optimality system.

    Attributes:
        t: Slab ends, shape (layers + 1,).
        states: f(t_n-), shape (layers + 1, S, N).
        adjoint: p_s without the factor w_s, same shape.
    """

    t: Array
    states: Array
    adjoint: Array

    def at(self, t: Array) -> tuple[Array, Array]:
        """States and adjoints at depths, linear between the slab ends, each (len(t), S, N)."""

        def between(values: Array) -> Array:
            columns = values.reshape(len(self.t), -1).T
            lines = [np.interp(t, self.t, column) for column in columns]
            return np.stack(lines, axis=1).reshape(len(t), *values.shape[1:])

        return between(self.states), between(self.adjoint)


def default_box(states: Array, depth: float, activation: Activation) -> Array:
    """A box that holds states (L, S, N) with room, [low, high] per state dimension.

    The room is half the largest extent, at least a tenth of the states' size or of the way that
    the activation can go, and not more than that way.
    """
    y = states.reshape(len(states), -1)
    low, high = y.min(axis=0), y.max(axis=0)
    way = depth * activation.supremum
    size = max(float(np.max(np.abs(y))), min(way, 1.0))
    room = max(ROOM * float(np.max(high - low)), LEAST * size)
    return np.stack([low - room, high + room], axis=1)


@dataclass(frozen=True, eq=False)
class Gradients:
    """DV along an open loop, beside the adjoint.

    Attributes:
        t: Depths, shape (L,).
        of_value: D_{f_s} V, the gradient in L2(Y), shape (L, S, N).
        adjoint: w_s p_s, same shape.
        difference: Norm of the difference over that of the adjoint, in L2 over depth and width; NaN
            where the adjoint vanishes.
    """

    t: Array
    of_value: Array
    adjoint: Array
    difference: float


def compare_gradients(value: ValueFunction, loop: OpenLoop) -> Gradients:
    """D V against w p at the times of the scheme at which the loop is in the box (rank 0)."""
    problem, grid = value.problem, value.grid
    states, p = loop.at(value.times)
    h, w = problem.node_weights, problem.sample_weights
    inside = grid.contains(states.reshape(len(states), -1).T)
    kept = np.flatnonzero(inside)
    gradients = np.stack(
        [value.interpolant(n).gradient(states[n].reshape(-1, 1))[:, 0] for n in kept]
    )
    of_value = gradients.reshape(len(kept), *states.shape[1:]) / h
    adjoint = w[:, None] * p[kept]
    size = float(np.sqrt(np.sum(h * adjoint**2)))
    distance = float(np.sqrt(np.sum(h * (of_value - adjoint) ** 2)))
    difference = distance / size if size > 1e-14 else np.nan
    return Gradients(value.times[kept], of_value, adjoint, difference)
