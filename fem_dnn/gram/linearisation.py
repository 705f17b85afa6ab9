"""The learning problem in Gram form at one control; the equations are those of `gram.problem`.

What is kept per level and node are q, f, sigma'(u), sigma''(u), w p and the gradient; a Hessian
product takes df and du besides. Where the depth is cut into stretches only q and the gradient are
kept on all levels, and the rest is made anew on one stretch at a time (`stretch`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fem_dnn.controls import ControlParts
from fem_dnn.coordinates import Coordinates
from fem_dnn.gram.metric import GramMetric
from fem_dnn.gram.moving import move
from fem_dnn.gram.operator import GramOperator
from fem_dnn.gram.stretch import Desk, Stretch
from fem_dnn.gram.sweeps import Direction, gradient_back, hessian_back, solve_tangent
from fem_dnn.losses import LossPoint
from fem_dnn.network import LayerWeights
from fem_dnn.problem import Linearisation
from fem_dnn.trajectories import StateTrajectory

if TYPE_CHECKING:
    from fem_dnn.gram.problem import GramProblem

Array = NDArray[np.float64]

_LARGE = (
    "_stretches",
    "_solved",
    "state",
    "weights",
    "adjoint",
    "gradient",
    "loss_point",
    "misfit",
)


@dataclass(eq=False)
class GramState(StateTrajectory):
    """The state along the whole depth, nodal values.

    Attributes:
        stages: f at the control levels, shape (levels, n_local, S).
        gram: <f_s, f_s'> there, shape (levels, S, S).
    """

    stages: Array
    gram: Array


class GramLinearisation(Linearisation):
    """The learning problem in Gram form at one control.

    Args:
        problem: The learning problem.
        control: Local control vector in L2-orthonormal coordinates; kept, not copied.
    """

    problem: GramProblem

    def __init__(self, problem: GramProblem, control: Array) -> None:
        self.problem = problem
        self.control = control
        outer = problem.output_direction(problem.controls.split(control))
        self.output_layer = outer or problem.given_outputs
        self._coordinates = problem.controls.q(control)

    def forget(self) -> None:
        """Drop all arrays but the control; they are made anew when asked for."""
        for name in _LARGE:
            self.__dict__.pop(name, None)

    def q(self, part: slice) -> Array:
        """Nodal values of q at some levels, shape (levels, n_local, S)."""
        return np.asarray(self._coordinates[part] / self.problem.controls.bias_scale[part, :, None])

    def _followed(self) -> Array:
        """Room for values at the tracking points; empty without tracking."""
        points = len(self.problem.network.levels.tracking_t)
        count = 0 if self.problem.tracking is None else points
        return np.empty((count, *self.problem.inputs.shape))

    @cached_property
    def _stretches(self) -> list[Stretch]:
        """The stretches of the depth, in order."""
        problem, given = self.problem, self.problem.given.bias
        desk = problem.desk or Desk(problem.shelf)
        return [
            Stretch(
                form,
                desk,
                self._coordinates[levels],
                None if given is None else given[levels],
            )
            for form, levels, _ in problem.stretches
        ]

    @cached_property
    def _solved(self) -> tuple[Array, Array]:
        """f(T), and f at the tracking points; the state has been solved for."""
        problem, root = self.problem, self.problem.form.root
        problem.work.states += 1
        f, followed = root * problem.inputs, self._followed()
        for stretch, (_, _, points) in zip(self._stretches, problem.stretches, strict=True):
            f = stretch.solve(f, followed[points])
        followed /= root
        return f / root, followed

    @cached_property
    def state(self) -> GramState:
        """The state at this control, whole: larger than all that a solve needs."""
        problem, root, _ = self.problem, self.problem.form.root, self._solved
        levels, shape = problem.network.levels, problem.inputs.shape
        ends = np.empty((levels.layers + 1, *shape))
        u, slope = (np.empty((levels.count, *shape)) for _ in range(2))
        stages = ends[:-1] if levels.scheme.explicit else np.empty_like(u)
        first = 0
        for stretch, (form, part, _) in zip(self._stretches, problem.stretches, strict=True):
            there, last = stretch.state, first + form.network.levels.layers
            ends[first : last + 1] = there.ends / root
            slope[part], stages[part] = there.slope, there.stages / root
            u[part] = stretch.u(slice(None), slice(None), stretch.gram)
            first = last
        return GramState(ends, u, slope, None, self._solved[1], stages, self._gram)

    @cached_property
    def _gram(self) -> Array:
        """<f_s, f_s'> at the levels, shape (levels, S, S)."""
        _ = self._solved  # which is where the matrices are met
        return np.concatenate([stretch.gram for stretch in self._stretches])

    @cached_property
    def metric(self) -> GramMetric:
        """The L2 metric of the kernels and biases that q stands for at these states."""
        problem, form = self.problem, self.problem.form
        lowest = min(problem.regularization.weights)
        return GramMetric(problem.controls, form.metric(self._gram), lowest, form.blocks)

    @cached_property
    def weights(self) -> LayerWeights:  # type: ignore[override]
        """Kernel and bias: O(nodes S) numbers per level."""
        form, problem = self.problem.form, self.problem
        q, bias = self.q(slice(None)), problem.given.bias
        if problem.controls.has_bias:
            bias = form.bias * q.sum(axis=2, keepdims=True)
        space, omega = problem.network.space, problem.network.levels.weights
        return LayerWeights(GramOperator(space, omega, form.kernel * q, self.state.stages), bias)

    def dense(self) -> Linearisation:
        """The dense problem at the kernel and bias of this control, O(nodes^2) (collective)."""
        dense, weights = self.problem.dense, self.weights
        assert dense is not None and weights.operator is not None
        outer = self.problem.controls.split(self.control)
        bias = None
        if dense.controls.has_bias and weights.bias is not None:
            bias = weights.bias[:, :, 0] * dense.controls.bias_scale
        parts = ControlParts(weights.operator.coefficients, bias, outer.outputs, outer.offsets)
        return dense.linearise(dense.controls.join(parts))

    @cached_property
    def loss_point(self) -> LossPoint:
        """The terminal loss at the state's end."""
        return self.problem.loss.at(self._solved[0], self.output_layer)

    @cached_property
    def misfit(self) -> Array:
        """f - g at the tracking points; empty without tracking."""
        tracking, followed = self.problem.tracking, self._solved[1]
        return followed if tracking is None else followed - tracking.targets

    @cached_property
    def regularization(self) -> float:
        """R at this control."""
        problem = self.problem
        R, omega = problem.regularization, problem.network.levels.weights
        qq = np.concatenate([stretch.qq for stretch in self._stretches])
        densities = np.sum(problem.form.K(self._gram) * qq, axis=(1, 2))
        outer = problem.controls.outer(self.control)
        return (
            0.5 * float(omega @ densities)
            + 0.5 * R.outputs * problem.controls.dot(outer, outer)
            + R.given
        )

    @property
    def length(self) -> float:
        """L2 norm of kernel, bias and output layer."""
        return self.length_of(self.control)

    def length_of(self, step: Array) -> float:
        """L2 norm of the kernel, bias and output layer of a step, the states held (collective)."""
        controls, form = self.problem.controls, self.problem.form
        q = controls.q(step)
        # Coordinates are orthonormal: neither omega nor the node weights enter again.
        square = float(np.sum(form.metric(self._gram) * form.inner(q, q)))
        outer = controls.outer(step)
        return float(np.sqrt(max(square + controls.dot(outer, outer), 0.0)))

    @cached_property
    def gradient(self) -> Array:
        """The derivative of J by q and the output layer, in L2-orthonormal coordinates."""
        return self._solve_back()

    def _solve_back(self) -> Array:
        """The gradient; on the way the ordinary adjoint is solved for too."""
        problem, controls, root = self.problem, self.problem.controls, self.problem.form.root
        problem.work.adjoints += 2
        w, loss = problem.sample_weights, self.loss_point
        gradient = np.empty(controls.n_local)
        P = root * (w * loss.terminal)
        p = P.copy()
        residuals = root * (w * self._tracked(self.misfit))
        for stretch, (_, levels, points) in self._backwards():
            P = stretch.solve_back(P, residuals[points])
            gradient_back(stretch, p, residuals[points], controls.q(gradient)[levels])
        outer = controls.outer(self.control)
        self._set_outer(gradient, loss.functions, loss.offsets, outer)
        return gradient

    def _backwards(self) -> Iterator[tuple[Stretch, tuple[object, slice, slice]]]:
        """The stretches, the last first, with their levels and tracking points."""
        pairs = list(zip(self._stretches, self.problem.stretches, strict=True))
        return reversed(pairs)

    @cached_property
    def gradient_norm(self) -> float:
        """L2 norm of the gradient by kernel, bias and output layer."""
        problem, controls, gradient = self.problem, self.problem.controls, self.gradient
        ee = np.concatenate([stretch.ee for stretch in self._stretches])
        terms = self._gram + (1.0 if controls.has_bias else 0.0)
        square = float(problem.network.levels.weights @ np.sum(terms * ee, axis=(1, 2)))
        outer = controls.outer(gradient)
        return float(np.sqrt(max(square + controls.dot(outer, outer), 0.0)))

    def descent_in(self, coordinates: Coordinates) -> Array:
        """-T' gradient by coordinates z of a step T z; the gradient itself is given up for it."""
        if not isinstance(coordinates, GramMetric):
            return super().descent_in(coordinates)
        _ = self.gradient_norm
        gradient = self.__dict__.pop("gradient", None)
        if gradient is None:
            gradient = self._solve_back()
        coordinates.apply(gradient, gradient)
        return np.negative(gradient, out=gradient)

    @property
    def projected_gradient(self) -> Array:
        """The gradient: there are no bounds."""
        return self.gradient

    def hessian_action(self, direction: Array) -> Array:
        """The Hessian of J along `moved`, in q and the output layer (exact; collective)."""
        return self._product(direction, None, np.empty_like(direction))

    def hessian_in(self, coordinates: Coordinates, z: Array, out: Array) -> None:
        """The same by coordinates z of a step T z: out = T' H T z; `out` may be z."""
        if isinstance(coordinates, GramMetric):
            self._product(z, coordinates.blocks, out)
        else:
            super().hessian_in(coordinates, z, out)

    def _product(self, z: Array, T: Array | None, out: Array) -> Array:
        problem, controls, root = self.problem, self.problem.controls, self.problem.form.root
        if not self._stretches[0].solved_back:
            _ = self.gradient
        problem.work.hessians += 1
        directions = self._directions(z, T)
        df, followed, passed = np.zeros_like(problem.inputs), self._followed(), []
        pairs = zip(self._stretches, directions, problem.stretches, strict=True)
        for stretch, direction, (_, _, points) in pairs:
            tangent = solve_tangent(stretch, direction, df, followed[points])
            passed.append((df, tangent.cross))
            df = tangent.ends[-1].copy()
        outer = controls.outer(z).copy()
        loss = self.loss_point.tangent(df / root, problem.output_direction(controls.split(z)))
        theta = root * (problem.sample_weights * loss.terminal)
        followed = problem.sample_weights * self._tracked(followed)
        last = self._stretches[-1]
        for (stretch, (_, levels, points)), direction, (df, cross) in zip(
            self._backwards(), reversed(directions), reversed(passed), strict=True
        ):
            if stretch is not last:
                tangent = solve_tangent(stretch, direction, df, followed[:0], cross)
            block = controls.q(out)[levels]
            hessian_back(stretch, direction, tangent, theta, followed[points], block)
        self._set_outer(out, loss.functions, loss.offsets, outer)
        return out

    def _directions(self, z: Array, T: Array | None = None) -> list[Direction]:
        """T z on the stretches."""
        q = self.problem.controls.q(z)
        return [
            Direction(q[levels], None if T is None else T[levels])
            for _, levels, _ in self.problem.stretches
        ]

    def moved(self, step: Array) -> Array:
        """The control after a step, (a, b) + (da, db) brought back to Gram form (collective).

        The states at that kernel and bias are those at q_+ = K_+^{-1} u_+.
        """
        problem, _ = self.problem, self._solved
        problem.work.states += 2  # a tangent and a state
        control = self.control + step
        q, df = problem.controls.q(control), np.zeros_like(problem.inputs)
        F = problem.form.root * problem.inputs
        pairs = zip(self._stretches, self._directions(step), problem.stretches, strict=True)
        for stretch, direction, (_, levels, _) in pairs:
            tangent = solve_tangent(stretch, direction, df, q[:0])
            df = tangent.ends[-1].copy()
            F = move(stretch, direction, tangent, F, q[levels])
        self._stretches[-1].desk.drop("tangent", "du")
        return control

    def _set_outer(
        self, vector: Array, functions: Array | None, offsets: Array | None, outer: Array
    ) -> None:
        """The output layer's part of a gradient, that of R at `outer` included."""
        controls, space = self.problem.controls, self.problem.network.space
        if not controls.outputs or functions is None:
            return
        root = space.sqrt_weights[space.owned]
        controls.set_outer(vector, ControlParts(None, None, functions * root, offsets))
        controls.outer(vector)[...] += self.problem.regularization.outputs * outer
