"""The learning problem with q as the control (theory.md section 3, Gram form).

At every control level, with a sum over the S samples,

    a = sum_s q_s(x) f_s(y) / lambda_a,   b = sum_s q_s / lambda_b,   u_s = sum_s' K_ss' q_s',
    K_ss' = <f_s, f_s'> / lambda_a + 1 / lambda_b,   R = 1/2 sum_k omega_k sum_ss' K_ss' <q_s, q_s'>

(a term of K is left out where its control is switched off). This is the dense problem restricted to
controls of that form, which hold all its critical points: of all a and b that move the states along
the same way, these have the least R. So J has the same critical points in q, and its Hessian in q
has as many negative eigenvalues as the dense one. With r_s = w_s sigma'(u_s) p_s and e = q + r:

    dJ/dq = K e, where p is adjoint to the equation for q:
        -d_t (w p)_s = sum_s' [<q_s', r_s> + <q_s, r_s'> + <q_s, q_s'>] f_s' / lambda_a
    the gradient by (a, b) is (sum_s e_s(x) f_s(y), sum_s e_s), where p is the ordinary adjoint:
        -d_t (w p)_s = sum_s' <q_s', r_s> f_s' / lambda_a
        |grad J|^2 = sum_k omega_k sum_ss' (<f_s, f_s'> + 1) <e_s, e_s'>

Where e = 0 the first bracket, <e_s, e_s'> - <r_s, r_s'>, is <q_s', r_s>: both adjoints agree.
The derivative of K e in a direction dq is K de + dK e, by `sweeps.solve_gram_tangent` and its
adjoint. Cost and memory are O(nodes S^2) and O(nodes S) per level.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fem_dnn.controls import ControlParts
from fem_dnn.gram.controls import GramControls
from fem_dnn.gram.metric import GramMetric
from fem_dnn.gram.operator import GramOperator
from fem_dnn.gram.sweeps import (
    GramForm,
    GramState,
    march_gram_back,
    solve_gram_state,
    solve_gram_tangent,
    symmetric,
)
from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.state import LayerWeights

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GramProblem(LearningProblem):
    """A learning problem in Gram form.

    Attributes:
        controls: q and, where learned, the output layer.
        regularization: R of the dense problem.
        dense: The problem with kernel and bias as controls.
    """

    controls: GramControls
    dense: LearningProblem | None = None

    @classmethod
    def of(cls, dense: LearningProblem) -> GramProblem:
        """The Gram form of a problem.

        Raises:
            ValueError: It has none; `why_not` says why.
        """
        reason = why_not(dense)
        if reason is not None:
            raise ValueError(reason)
        controls = GramControls(dense.controls, len(dense.sample_weights))
        return cls(
            dense.network,
            controls,
            dense.inputs,
            dense.sample_weights,
            dense.loss,
            dense.regularization,
            dense.tracking,
            dense.given,
            dense.given_outputs,
            dense.work,
            dense,
        )

    @cached_property
    def form(self) -> GramForm:
        """K."""
        R = self.regularization
        return GramForm(self.network, 1 / R.kernel, 1 / R.bias if self.controls.has_bias else 0.0)

    def linearise(self, control: Array) -> GramLinearisation:
        """Everything known at a control, computed when asked for. The control is not copied."""
        return GramLinearisation(self, control)

    @property
    def operations(self) -> float:
        """Operations of the largest matrix product that one rank does at once."""
        return 2.0 * self.network.space.n_local * len(self.sample_weights) ** 2

    def distance(self, at: Linearisation, before: Linearisation) -> float:
        """L2 length of the step in kernel, bias and outputs, at the states of its end."""
        assert isinstance(at, GramLinearisation)
        return at.length_of(at.control - before.control)

    def metric(self, at: Linearisation) -> GramMetric:
        """The L2 metric of the kernels and biases that q stands for at the states there."""
        assert isinstance(at, GramLinearisation)
        lowest = min(self.regularization.weights)
        return GramMetric(self.controls, self.form.metric(at.state.gram), lowest)


def why_not(problem: LearningProblem) -> str | None:
    """Why a learning problem has no Gram form; None if it has one."""
    controls, R = problem.controls, problem.regularization
    if not controls.has_kernel:
        return "the kernel is not a control"
    if controls.mask is not None:
        return "the kernel has a mask"
    if controls.box is not None:
        return "the controls have bounds"
    if R.smooth:
        return "derivatives of the controls are penalised"
    if R.kernel == 0 or (controls.has_bias and R.bias == 0):
        return "a Tikhonov weight is 0"
    return None


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

    def q(self, part: slice) -> Array:
        """Values of q at some levels, shape (levels, n_local, S)."""
        return np.asarray(self._coordinates[part] / self._scale[part])

    @cached_property
    def state(self) -> GramState:
        """The state at this control."""
        problem = self.problem
        problem.work.states += 1
        given, tracked = problem.given.bias, problem.tracking is not None
        return solve_gram_state(self._form, self.q, problem.inputs, given, tracked=tracked)

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
        """w P at the levels, P adjoint to the equation for q; shape (levels, n_local, S)."""
        form, state = self._form, self.state
        self.problem.work.adjoints += 1

        def slopes(part: slice, P: Array) -> Array:
            M = self._qq[part] + symmetric(form.inner(self.q(part), state.slope[part] * P))
            return np.asarray(state.stages[part] @ (form.kernel * M))

        costate = np.empty_like(state.u)
        for part, P in march_gram_back(form, *self._weighted_ends, slopes):
            costate[part] = P
        return costate

    def _e(self, part: slice) -> Array:
        """e = q + r at some levels."""
        return self.state.slope[part] * self.costate[part] + self.q(part)

    @cached_property
    def gradient(self) -> Array:
        """The derivative of J by q and the output layer, in L2-orthonormal coordinates."""
        gradient = np.empty(self.problem.controls.n_local)
        block = self.problem.controls.q(gradient)
        for part in self._form.slabs():
            np.matmul(self._e(part), self._form.K(self.state.gram[part]), out=block[part])
            block[part] *= self._scale[part]
        loss = self.loss_point
        self._set_outer(gradient, loss.functions, loss.offsets, self.control)
        return gradient

    @cached_property
    def gradient_norm(self) -> float:
        """L2 norm of the gradient by kernel, bias and output layer, by the ordinary adjoint."""
        problem, form, state = self.problem, self._form, self.state
        controls, omega = problem.controls, problem.network.levels.weights
        problem.work.adjoints += 1

        def slopes(part: slice, P: Array) -> Array:
            C = form.inner(self.q(part), state.slope[part] * P)
            return np.asarray(state.stages[part] @ (form.kernel * C))

        square = 0.0
        for part, P in march_gram_back(form, *self._weighted_ends, slopes):
            e = state.slope[part] * P + self.q(part)
            terms = state.gram[part] + (1.0 if controls.has_bias else 0.0)
            square += float(omega[part] @ np.sum(terms * form.inner(e, e), axis=(1, 2)))
        if controls.outputs:
            vector, loss = np.empty(controls.n_local), self.loss_point
            self._set_outer(vector, loss.functions, loss.offsets, self.control)
            outer = vector[controls.blocks["q"].stop :]
            square += controls.dot(outer, outer)
        return float(np.sqrt(max(square, 0.0)))

    @property
    def projected_gradient(self) -> Array:
        """The gradient: there are no bounds."""
        return self.gradient

    @cached_property
    def _costate_curvature(self) -> Array:
        """w sigma''(u) P at the control levels."""
        curvature = np.empty_like(self.costate)
        evaluate = self.problem.network.activation.evaluate
        for part in self._form.slabs():
            np.multiply(evaluate(self.state.u[part], 2)[2], self.costate[part], out=curvature[part])
        return curvature

    def hessian_action(self, direction: Array) -> Array:
        """The Hessian of J in q and the output layer applied to a direction (exact; collective)."""
        problem, form, state, scale = self.problem, self._form, self.state, self._scale
        controls, curvature, w = problem.controls, self._costate_curvature, problem.sample_weights
        problem.work.hessians += 1
        coordinates = controls.q(direction)

        def dq(part: slice) -> Array:
            return np.asarray(coordinates[part] / scale[part])

        tangent = solve_gram_tangent(form, self.q, state, dq)
        layer = problem.output_direction(controls.split(direction))
        loss = self.loss_point.tangent(tangent.terminal, layer)
        product = np.empty_like(direction)
        block = controls.q(product)

        def dr(part: slice, dP: Array) -> Array:
            return np.asarray(state.slope[part] * dP + curvature[part] * tangent.u[part])

        def slopes(part: slice, dP: Array) -> Array:
            q, r = self.q(part), state.slope[part] * self.costate[part]
            M = self._qq[part] + symmetric(form.inner(q, r))
            dM = symmetric(form.inner(dq(part), q + r) + form.inner(q, dr(part, dP)))
            slope = state.stages[part] @ (form.kernel * dM)
            slope += tangent.stages[part] @ (form.kernel * M)
            return np.asarray(slope)

        ends = w * loss.terminal, w * self._tracked(tangent.tracked)
        for part, dP in march_gram_back(form, *ends, slopes):
            de = dr(part, dP) + dq(part)
            np.matmul(de, form.K(state.gram[part]), out=block[part])
            block[part] += self._e(part) @ (form.kernel * tangent.gram[part])
            block[part] *= scale[part]
        self._set_outer(product, loss.functions, loss.offsets, direction)
        return product

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
