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

q is a bad coordinate far from a solution where samples are nearly dependent: a large q may stand
for a small kernel, and does so for these states alone. So a step dq is taken along

    da = sum_s (dq_s f_s + q_s df_s) / lambda_a,   db = sum_s dq_s / lambda_b,

the change of kernel and bias that dq stands for to first order, D dq; what comes of it is brought
back to Gram form by K^{-1} u (`linearisation.moved`: the states stay, R gets less). The Hessian
along such steps is D' H D with the dense H: with dr = w (sigma' dp + sigma'' p du),

    H D dq = (sum_s de_s f_s + e_s df_s, sum_s de_s),   de = dq + dr,
        -d_t d(w p)_s = sum_s' [(<q_s', dr_s> + <dq_s', r_s>) f_s' + <q_s', r_s> df_s'] / lambda_a
    D' H D dq = K (de + sigma'(u) pi) + sum_s' e_s' <df_s', f_s> / lambda_a,
        -d_t pi_s = sum_s' [(<de_s', q_s> + <q_s', sigma' pi_s> + <sigma' pi_s', q_s>) f_s'
                            + <e_s', q_s> df_s'] / lambda_a,   pi(T) = 0

Only the sum theta = d(w p) + pi is needed, and it has an equation of its own: with
rho = sigma'(u) theta + w sigma''(u) p du

    D' H D dq = K (dq + rho) + sum_s' e_s' <df_s', f_s> / lambda_a,
        -d_t theta_s = sum_s' [(<q_s', rho_s> + <rho_s', q_s> + <dq_s', e_s>) f_s'
                       + (<q_s', q_s> + <q_s', r_s> + <r_s', q_s>) df_s'] / lambda_a

Cost and memory are O(nodes S^2) and O(nodes S) per level.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fem_dnn.controls import ControlValues
from fem_dnn.gram.controls import GramControls
from fem_dnn.gram.form import GramForm, rows_of
from fem_dnn.gram.linearisation import GramLinearisation
from fem_dnn.gram.metric import GramMetric
from fem_dnn.gram.operator import weights_of
from fem_dnn.gram.start import in_gram_form
from fem_dnn.gram.stretch import Desk, Shelf
from fem_dnn.problem import LearningProblem, Linearisation

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GramProblem(LearningProblem):
    """A learning problem in Gram form.

    Attributes:
        controls: q and, where learned, the output layer.
        regularization: R of the dense problem.
        dense: The problem with kernel and bias as controls.
        layers_at_once: How many layers' states and adjoints are at hand at a time, the others made
            anew from where they start; None: all are kept.
        rows: How many nodes are taken at a time; None: as many as the processor's cache likes.
    """

    controls: GramControls
    dense: LearningProblem | None = None
    layers_at_once: int | None = None
    rows: int | None = None

    @classmethod
    def of(
        cls, dense: LearningProblem, layers_at_once: int | None = None, rows: int | None = None
    ) -> GramProblem:
        """The Gram form of a problem; arguments as the attributes of these names.

        Raises:
            ValueError: It has none; `why_not` says why.
        """
        reason = why_not(dense)
        if reason is not None:
            raise ValueError(reason)
        controls = GramControls(dense.controls, len(dense.sample_weights))
        parts = dense.parts() | {"controls": controls}
        return cls(**parts, dense=dense, layers_at_once=layers_at_once, rows=rows)

    @cached_property
    def form(self) -> GramForm:
        """K, on the whole depth."""
        R = self.regularization
        bias = 1 / R.bias if self.controls.has_bias else 0.0
        rows = self.rows or rows_of(len(self.sample_weights))
        return GramForm(self.network, 1 / R.kernel, bias, rows)

    @cached_property
    def stretches(self) -> list[tuple[GramForm, slice, slice]]:
        """What the depth is cut into: the form there, its levels and its tracking points."""
        levels, pieces = self.network.levels, []
        length = self.layers_at_once or levels.layers
        points = len(levels.scheme.tracking_points)
        for first in range(0, levels.layers, length):
            slabs = range(first, min(first + length, levels.layers))
            part, tracked = (
                slice(slabs.start * count, slabs.stop * count)
                for count in (levels.scheme.levels, points)
            )
            pieces.append((self.form.on(slabs), part, tracked))
        return pieces

    @property
    def frugal(self) -> bool:
        """Solvers should hold few vectors of controls: they are what memory goes for."""
        return True

    @property
    def cut(self) -> bool:
        """Whether states and adjoints are at hand on a part of the depth only."""
        return len(self.stretches) > 1

    @cached_property
    def desk(self) -> Desk | None:
        """What all controls' stretches share where only one is at hand at a time."""
        return Desk(self.shelf) if self.cut else None

    @cached_property
    def shelf(self) -> Shelf:
        """Arrays of the levels that no control needs any more."""
        return Shelf()

    def control_of(self, values: ControlValues) -> Array:
        """The local control vector of nodal values (collective).

        A kernel and a bias are brought to Gram form (`start`).

        Raises:
            SlabFailure: The state equation cannot be solved with them.
        """
        vector = self.controls.coordinates(values)
        if values.q is None and not (values.kernel is None and values.factors is None):
            weights = weights_of(self.network, values)
            if not self.controls.has_bias or weights.bias is None:
                weights = replace(weights, bias=self.given.bias)
            state, given = self.state(weights), self.given.bias
            self.controls.q(vector)[...] = in_gram_form(self.form, weights, state, given)
        return vector

    def linearise(self, control: Array) -> GramLinearisation:
        """Everything known at a control, computed when asked for. The control is not copied."""
        return GramLinearisation(self, control)

    @property
    def operations(self) -> float:
        """Operations of the largest matrix product that one rank does at once."""
        return 2.0 * self.form.rows * len(self.sample_weights) ** 2

    @property
    def samples_meet_in_sums(self) -> bool:
        """No: K couples them."""
        return False

    def distance(self, at: Linearisation, before: Linearisation) -> float:
        """L2 length of the step in kernel, bias and outputs, at the states of its end."""
        assert isinstance(at, GramLinearisation)
        return at.length_of(at.control - before.control)

    def moved(self, at: Linearisation, step: Array) -> Array:
        """The control after a step from a point (collective)."""
        assert isinstance(at, GramLinearisation)
        return at.moved(step)

    def metric(self, at: Linearisation) -> GramMetric:
        """The L2 metric of the kernels and biases that q stands for at the states there."""
        assert isinstance(at, GramLinearisation)
        return at.metric


def why_not(problem: LearningProblem) -> str | None:
    """Why a learning problem has no Gram form; None if it has one."""
    controls, R = problem.controls, problem.regularization
    if not controls.has_kernel:
        return "the kernel is not a control"
    if controls.mask is not None:
        return "the kernel has a mask"
    if controls.bounded:
        return "the controls have bounds"
    if R.smooth:
        return "derivatives of the controls are penalised"
    if R.kernel == 0 or (controls.has_bias and R.bias == 0):
        return "a Tikhonov weight is 0"
    return None
