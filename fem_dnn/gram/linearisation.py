"""The learning problem in Gram form at one control; the equations are those of `gram.problem`.

What is stored are q, f, u, sigma'(u), w p and w sigma''(u) p at the levels, and S x S matrices; a
Hessian product takes df, du and its result besides. Everything else is made level by level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fem_dnn.controls import ControlParts
from fem_dnn.gram.metric import floor
from fem_dnn.gram.operator import GramOperator
from fem_dnn.gram.sweeps import (
    GramState,
    march_gram_back,
    of_control,
    solve_gram_state,
    solve_gram_tangent,
    symmetric,
)
from fem_dnn.problem import Linearisation
from fem_dnn.state import LayerWeights

if TYPE_CHECKING:
    from fem_dnn.gram.problem import GramProblem

Array = NDArray[np.float64]

_LARGE = ("_weighted_ends", "costate", "gradient", "_costate_curvature")

REFINEMENTS = 2
"""Steps of iterative refinement with which K q = u is solved."""


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
        self._form = problem.form
        self._scale = problem.controls.bias_scale[:, :, None]
        self._coordinates = problem.controls.q(control)
        outer = problem.output_direction(problem.controls.split(control))
        self.output_layer = outer or problem.given_outputs

    def forget(self) -> None:
        """Drop all arrays but the control; they are made anew when asked for."""
        for name in ("state", "loss_point", "misfit", "weights", "adjoint", *_LARGE):
            self.__dict__.pop(name, None)

    def q(self, part: slice) -> Array:
        """Values of q at some levels, shape (levels, n_local, S)."""
        return np.asarray(self._coordinates[part] / self._scale[part])

    @cached_property
    def state(self) -> GramState:
        """The state at this control."""
        problem = self.problem
        problem.work.states += 1
        given, tracked = problem.given.bias, problem.tracking is not None
        u = of_control(self._form, self.q)
        return solve_gram_state(self._form, u, problem.inputs, given, tracked=tracked)

    @cached_property
    def weights(self) -> LayerWeights:  # type: ignore[override]
        """Kernel and bias: O(nodes S) numbers per level."""
        form, problem = self._form, self.problem
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

    def _slabs(self) -> Iterator[tuple[slice, Array]]:
        """The levels, slab by slab, and q there."""
        for part in self._form.slabs():
            yield part, self.q(part)

    @cached_property
    def _qq(self) -> Array:
        """<q_s, q_s'> at the levels, shape (levels, S, S)."""
        return np.concatenate([self._form.inner(q, q) for _, q in self._slabs()])

    @cached_property
    def regularization(self) -> float:
        """R at this control."""
        problem = self.problem
        R, omega = problem.regularization, problem.network.levels.weights
        densities = np.sum(self._form.K(self.state.gram) * self._qq, axis=(1, 2))
        outer = self.control[problem.controls.blocks["q"].stop :]
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
        problem, controls = self.problem, self.problem.controls
        q, N = controls.q(step), self._form.metric(self.state.gram)
        # Coordinates are orthonormal: neither omega nor the node weights enter again.
        local = sum(float(np.sum(N[k] * (q[k].T @ q[k]))) for k in range(len(q)))
        outer = step[controls.blocks["q"].stop :]
        square = float(problem.network.space.sum(np.array(local))) + controls.dot(outer, outer)
        return float(np.sqrt(max(square, 0.0)))

    @cached_property
    def _weighted_ends(self) -> tuple[Array, Array]:
        """w p(T) and w mu (f - g)."""
        w = self.problem.sample_weights
        return w * self.loss_point.terminal, w * self._tracked(self.misfit)

    @cached_property
    def costate(self) -> Array:
        """w p at the levels, the ordinary adjoint; shape (levels, n_local, S)."""
        form, state = self._form, self.state
        self.problem.work.adjoints += 1

        def slopes(part: slice, P: Array) -> Array:
            C = form.inner(self.q(part), state.slope[part] * P)
            return np.asarray(state.stages[part] @ (form.kernel * C))

        costate = np.empty_like(state.u)
        for part, P in march_gram_back(form, *self._weighted_ends, slopes):
            costate[part] = P
        return costate

    def _r(self, part: slice) -> Array:
        """r = w sigma'(u) p at some levels."""
        return np.asarray(self.state.slope[part] * self.costate[part])

    @cached_property
    def _qr(self) -> Array:
        """<q_s, r_s'> at the levels, shape (levels, S, S)."""
        return np.concatenate([self._form.inner(q, self._r(part)) for part, q in self._slabs()])

    @cached_property
    def gradient_norm(self) -> float:
        """L2 norm of the gradient by kernel, bias and output layer."""
        problem, form = self.problem, self._form
        controls, omega = problem.controls, problem.network.levels.weights
        square = 0.0
        for part, q in self._slabs():
            e = q + self._r(part)
            terms = self.state.gram[part] + (1.0 if controls.has_bias else 0.0)
            square += float(omega[part] @ np.sum(terms * form.inner(e, e), axis=(1, 2)))
        if controls.outputs:
            vector, loss = np.empty(controls.n_local), self.loss_point
            self._set_outer(vector, loss.functions, loss.offsets, self.control)
            outer = vector[controls.blocks["q"].stop :]
            square += controls.dot(outer, outer)
        return float(np.sqrt(max(square, 0.0)))

    @cached_property
    def gradient(self) -> Array:
        """The derivative of J by q and the output layer, in L2-orthonormal coordinates."""
        form, state = self._form, self.state
        self.problem.work.adjoints += 1
        gradient = np.empty(self.problem.controls.n_local)
        block = self.problem.controls.q(gradient)

        def slopes(part: slice, P: Array) -> Array:
            M = self._qq[part] + symmetric(form.inner(self.q(part), state.slope[part] * P))
            return np.asarray(state.stages[part] @ (form.kernel * M))

        for part, P in march_gram_back(form, *self._weighted_ends, slopes):
            e = state.slope[part] * P + self.q(part)
            np.matmul(e, form.K(state.gram[part]), out=block[part])
            block[part] *= self._scale[part]
        loss = self.loss_point
        self._set_outer(gradient, loss.functions, loss.offsets, self.control)
        return gradient

    @property
    def projected_gradient(self) -> Array:
        """The gradient: there are no bounds."""
        return self.gradient

    @cached_property
    def _costate_curvature(self) -> Array:
        """w sigma''(u) p at the control levels."""
        curvature = np.empty_like(self.costate)
        evaluate = self.problem.network.activation.evaluate
        for part in self._form.slabs():
            np.multiply(evaluate(self.state.u[part], 2)[2], self.costate[part], out=curvature[part])
        return curvature

    def hessian_action(self, direction: Array) -> Array:
        """The Hessian of J along `moved`, in q and the output layer (exact; collective)."""
        problem, form, state, scale = self.problem, self._form, self.state, self._scale
        controls, curvature, w = problem.controls, self._costate_curvature, problem.sample_weights
        problem.work.hessians += 1
        coordinates, S = controls.q(direction), len(w)

        def dq(part: slice) -> Array:
            return np.asarray(coordinates[part] / scale[part])

        tangent = solve_gram_tangent(form, self.q, state, dq)
        layer = problem.output_direction(controls.split(direction))
        loss = self.loss_point.tangent(tangent.terminal, layer)
        product = np.empty_like(direction)
        block = controls.q(product)

        def dr(part: slice, dP: Array) -> Array:
            return np.asarray(state.slope[part] * dP + curvature[part] * tangent.u[part])

        def slopes(part: slice, both: Array) -> Array:
            dP, pi = both[..., :S], both[..., S:]
            q, change, qr = self.q(part), dq(part), self._qr[part]
            q_dr, eq = form.inner(q, dr(part, dP)), self._qq[part] + _transposed(qr)
            on_f = np.concatenate(
                [
                    q_dr + form.inner(change, self._r(part)),
                    form.inner(change, q)
                    + _transposed(q_dr)
                    + symmetric(form.inner(q, state.slope[part] * pi)),
                ],
                axis=-1,
            )
            slope = state.stages[part] @ (form.kernel * on_f)
            slope += tangent.stages[part] @ (form.kernel * np.concatenate([qr, eq], axis=-1))
            return np.asarray(slope)

        terminal, tracked = w * loss.terminal, w * self._tracked(tangent.tracked)
        start, residuals = (
            np.concatenate([f, np.zeros_like(f)], axis=-1) for f in (terminal, tracked)
        )
        for part, both in march_gram_back(form, start, residuals, slopes):
            q, change = self.q(part), dq(part)
            left = dr(part, both[..., :S]) + change + state.slope[part] * both[..., S:]
            np.matmul(left, form.K(state.gram[part]), out=block[part])
            block[part] += (q + self._r(part)) @ (form.kernel * tangent.cross[part])
            block[part] *= scale[part]
        self._set_outer(product, loss.functions, loss.offsets, direction)
        return product

    def moved(self, step: Array) -> Array:
        """The control after a step, (a, b) + (da, db) brought back to Gram form (collective).

        The states at that kernel and bias are those at q_+ = K_+^{-1} u_+.
        """
        problem, form, state, scale = self.problem, self._form, self.state, self._scale
        controls, coordinates = problem.controls, problem.controls.q(step)

        def dq(part: slice) -> Array:
            return np.asarray(coordinates[part] / scale[part])

        tangent = solve_gram_tangent(form, self.q, state, dq)

        def of_slab(part: slice) -> Callable[[Array, Array], Array]:
            q = self.q(part)
            new = q + dq(part)
            bias = form.bias * new.sum(axis=-1, keepdims=True)

            def pre_activation(F: Array, _gram: Array) -> Array:
                u = new @ (form.kernel * form.inner(state.stages[part], F))
                u += q @ (form.kernel * form.inner(tangent.stages[part], F))
                return np.asarray(u + bias)

            return pre_activation

        problem.work.states += 2  # a tangent and a state
        given = problem.given.bias
        there = solve_gram_state(form, of_slab, problem.inputs, given, tracked=False)
        control = self.control + step
        moved = controls.q(control)
        for part in form.slabs():
            K = form.K(there.gram[part])
            inverse = np.linalg.inv(K + floor(K)[..., None] * np.eye(len(K[0])))
            q = self.q(part) + dq(part)
            u = there.u[part] if given is None else there.u[part] - given[part]
            for _ in range(REFINEMENTS):
                q += (u - q @ K) @ inverse
            np.multiply(q, scale[part], out=moved[part])
        return control

    def _set_outer(
        self, vector: Array, functions: Array | None, offsets: Array | None, control: Array
    ) -> None:
        """The output layer's part of a gradient, that of R at `control` included."""
        controls, space = self.problem.controls, self.problem.network.space
        if not controls.outputs or functions is None:
            return
        root = space.sqrt_weights[space.owned]
        controls.set_outer(vector, ControlParts(None, None, functions * root, offsets))
        for name in ("outputs", "offsets"):
            block = controls.blocks[name]
            vector[block] += self.problem.regularization.outputs * control[block]


def _transposed(A: Array) -> Array:
    return A.swapaxes(-1, -2)
