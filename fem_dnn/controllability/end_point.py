"""The linearised end-point map L: controls -> outputs, around a control.

Outputs are what the loss looks at: the states f_s(T) for l2, else z = int W f(T) + m. Both sides
carry orthonormal coordinates, controls those of `controls`, outputs

    sqrt(w_s h(x)) f_s(x, T)   at this rank's nodes,       sqrt(w_s) z_{k,s}   on rank 0,

so that L' is the transpose: an adjoint sweep. L' applied to the coordinates of p_s(T) (or of the
pointwise loss's gradient) is the gradient of the terminal loss.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fem_dnn.adjoint import AdjointTrajectory, solve_adjoint
from fem_dnn.losses import L2Loss, OutputLayer, OutputLoss
from fem_dnn.problem import Linearisation
from fem_dnn.state import solve_tangent

Array = NDArray[np.float64]


class EndPointMap:
    """L and its transpose.

    Args:
        at: The learning problem at the control.
    """

    def __init__(self, at: Linearisation) -> None:
        self.at, self.problem = at, at.problem
        self.loss = at.problem.loss
        self.space = at.problem.network.space
        self.root = np.sqrt(at.problem.sample_weights)
        self.samples = at.problem.inputs.shape[1]

    @property
    def layer(self) -> OutputLayer | None:
        """The output layer; None where the states themselves are the outputs."""
        return None if isinstance(self.loss, L2Loss) else self.at.output_layer

    @property
    def outputs(self) -> int:
        """Outputs per sample: nodes or K."""
        return self.space.n_nodes if self.layer is None else len(self.layer.offsets)

    @property
    def n_global(self) -> int:
        """Outputs of all samples."""
        return self.outputs * self.samples

    @property
    def n_local(self) -> int:
        """Those that this rank holds."""
        if self.layer is None:
            return self.space.n_local * self.samples
        return self.n_global if self.space.comm.rank == 0 else 0

    @cached_property
    def residual(self) -> Array:
        """Coordinates of the terminal loss's gradient by the outputs, shape (n_local,)."""
        point = self.at.loss_point
        if self.layer is None:
            hx = self.space.sqrt_weights[self.space.owned]
            return (point.terminal * hx[:, None] * self.root).ravel()
        assert isinstance(self.loss, OutputLoss)
        assert point.outputs is not None
        gradient = self.loss.weight * self.loss.pointwise(point.outputs, self.loss.targets)[1]
        return (gradient * self.root).ravel()[: self.n_local]

    def apply(self, direction: Array) -> Array:
        """L direction (collective); shapes (controls.n_local,) -> (n_local,)."""
        problem, at = self.problem, self.at
        parts = problem.controls.split(direction)
        change = problem.direction(parts)
        df = solve_tangent(problem.network, at.weights, at.state, change).ends[-1]
        if self.layer is None:
            hx = self.space.sqrt_weights[self.space.owned]
            return (df * hx[:, None] * self.root).ravel()
        assert isinstance(self.loss, OutputLoss)
        dz = self.loss.project(self.layer.functions, df)
        outer = problem.output_direction(parts)
        if outer is not None:
            dz = dz + self.loss.project(outer.functions, at.state.ends[-1])
            dz += outer.offsets[:, None]
        return (dz * self.root).ravel()[: self.n_local]

    def transpose(self, v: Array) -> Array:
        """L' v (collective); shapes (n_local,) -> (controls.n_local,)."""
        at, problem = self.at, self.problem
        functions = offsets = None
        if self.layer is None:
            hx = self.space.sqrt_weights[self.space.owned]
            terminal = v.reshape(-1, self.samples) / (hx[:, None] * self.root)
        else:
            dz = np.zeros(self.n_global)
            dz[: len(v)] = v
            dz = self.space.comm.bcast(dz, root=0).reshape(self.outputs, self.samples)
            terminal = self.layer.functions.T @ (dz / self.root)
            if problem.controls.outputs:
                functions = (dz * self.root) @ at.state.ends[-1].T
                offsets = dz @ self.root
        return at.sums([(self.adjoint(terminal).slopes, at.state.functions)], functions, offsets)

    def adjoint(self, terminal: Array) -> AdjointTrajectory:
        """The adjoint that a terminal value (n_local, samples) alone drives (collective)."""
        nothing = np.empty((0, *terminal.shape))
        return solve_adjoint(
            self.problem.network, self.at.weights, self.at.state.slope, terminal, nothing
        )
