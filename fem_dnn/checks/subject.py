"""What is checked: a network at given weights, its states and, where there is one, its problem."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fem_dnn.assembly import Model, local_samples
from fem_dnn.controls import ControlParts
from fem_dnn.depth import DepthLevels, lagrange_basis
from fem_dnn.network import LayerWeights, Network
from fem_dnn.nonlocal_operator import NonlocalOperator
from fem_dnn.problem import Linearisation
from fem_dnn.slab import combine
from fem_dnn.state import solve_state
from fem_dnn.trajectories import StateTrajectory

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Subject:
    """A network with its weights and states.

    Attributes:
        network: Width space, depth levels, activation.
        weights: Kernel and bias.
        inputs: f_I at this rank's nodes, shape (n_local, samples).
        state: The states at these weights.
        at: The learning problem linearised there; None where there are no targets.
        initial: The control that training started from; its output layer is what "at zero
            controls" keeps.
        smoothed: Whether R contains derivatives of the controls (gamma or eta > 0).
    """

    network: Network
    weights: LayerWeights
    inputs: Array
    state: StateTrajectory
    at: Linearisation | None = None
    initial: Array | None = None
    smoothed: bool = False

    @classmethod
    def of_linearisation(cls, at: Linearisation, initial: Array | None = None) -> Subject:
        """A learning problem at some controls, without derivative terms."""
        problem = at.problem
        return cls(problem.network, at.weights, problem.inputs, at.state, at, initial)

    @classmethod
    def of_model(cls, model: Model, at: Linearisation | None = None) -> Subject:
        """A case at a linearisation; at its given controls where there is none (collective).

        Raises:
            SlabFailure: The state equation cannot be solved.
        """
        if at is None and model.problem is not None:
            at = model.problem.linearise(model.initial)
        if at is None:
            inputs = local_samples(model.network.space, model.ingredients.train.inputs)
            state = solve_state(model.network, model.given, inputs)
            return cls(model.network, model.given, inputs, state)
        strength = model.case.regularization
        derivatives = ("kernel_depth", "bias_depth", "kernel_width", "bias_width")
        return replace(
            cls.of_linearisation(at, model.initial),
            smoothed=any(getattr(strength, name) != 0 for name in derivatives),
        )

    @property
    def bounded(self) -> bool:
        """Whether the controls carry box bounds."""
        return self.at is not None and self.at.problem.controls.box is not None

    @property
    def levels(self) -> DepthLevels:
        """Depth levels."""
        return self.network.levels

    def norms(self, values: Array) -> Array:
        """L2(Y) norms of (..., n_local, samples), shape (..., samples) (collective)."""
        space = self.network.space
        squares = np.einsum("n,...ns->...s", space.local_weights, values * values)
        norms: Array = np.sqrt(space.sum(squares))
        return norms

    def kernel_norms(self) -> Array:
        """Hilbert-Schmidt norms of the kernel at the levels, shape (levels,) (collective)."""
        levels, operator = self.levels, self.weights.operator
        if operator is None:
            return np.zeros(levels.count)
        squares = np.einsum("kyx,kyx->k", operator.coefficients, operator.coefficients)
        norms: Array = np.sqrt(self.network.space.sum(squares) / levels.weights)
        return norms

    def bias_norms(self) -> Array:
        """L2 norms of the bias at the levels, shape (levels,) (collective)."""
        if self.weights.bias is None:
            return np.zeros(self.levels.count)
        return self.norms(self.weights.bias)[:, 0]

    def integral(self, at_levels: Array) -> Array:
        """int_0^{t_n} of what is known at the levels: (levels, ...) -> (layers + 1, ...)."""
        levels = self.levels
        omega = levels.weights.reshape(-1, *[1] * (at_levels.ndim - 1))
        slabs = (omega * at_levels).reshape(levels.layers, -1, *at_levels.shape[1:]).sum(axis=1)
        return np.concatenate([np.zeros((1, *slabs.shape[1:])), np.cumsum(slabs, axis=0)])

    def level_states(self) -> Array:
        """The states at the control levels, shape (levels, n_local, samples).

        F_i = f(t_n) + tau sum_j A_ij sigma(U_j): of resnet the incoming trace.
        """
        levels, scheme, state = self.levels, self.levels.scheme, self.state
        slopes = self.network.activation(state.u)
        F = np.empty_like(state.u)
        for n, tau in enumerate(levels.steps):
            slab = levels.of_slab(n)
            part = slice(slab.start, slab.stop)
            F[part] = state.ends[n] + tau * combine(scheme.stages, slopes[part])
        return F

    def with_weights(self, weights: LayerWeights, inputs: Array) -> Subject:
        """The same network with other weights and inputs, solved (collective)."""
        state = solve_state(self.network, weights, inputs)
        return Subject(self.network, weights, inputs, state)

    def state_defect(self) -> float:
        """Relative residual of the discrete state equation in the stored states (collective)."""
        levels, scheme, state, weights = self.levels, self.levels.scheme, self.state, self.weights
        slopes, F = self.network.activation(state.u), self.level_states()
        worst = [self.norms(state.ends[0] - self.inputs)]
        for n, tau in enumerate(levels.steps):
            slab = levels.of_slab(n)
            part = slice(slab.start, slab.stop)
            step = tau * combine(scheme.weights, slopes[part])
            worst.append(self.norms(state.ends[n + 1] - state.ends[n] - step))
            for level in slab:
                u = np.zeros_like(state.u[level])
                if weights.operator is not None:
                    u += weights.operator.apply(level, weights.operator.gather(F[level]))
                if weights.bias is not None:
                    u += weights.bias[level]
                worst.append(tau * self.norms(state.u[level] - u))
        scale = max(float(np.max(self.norms(state.ends))), 1e-14)
        return float(np.max(worst)) / scale

    def adjoint_defect(self) -> float:
        """Relative distance of the stored adjoint from that of the stored controls (collective)."""
        if self.at is None:
            return 0.0
        solved = self.at.problem.linearise(self.at.control).adjoint.ends
        scale = max(float(np.max(self.norms(solved))), 1e-14)
        return float(np.max(self.norms(self.at.adjoint.ends - solved))) / scale

    def stiffness(self) -> float:
        """max over the slabs of tau L |a|: well below 1 where the depth is resolved."""
        levels = self.levels
        tau = np.repeat(levels.steps, levels.scheme.levels)
        return float(np.max(tau * self.kernel_norms())) * self.network.activation.lipschitz

    def refined(self) -> Subject:
        """The same controls, as functions of depth, on slabs of half the thickness, solved.

        The controls are the polynomials through a slab's levels.

        Raises:
            SlabFailure: The state equation cannot be solved there.
        """
        levels, scheme, space = self.levels, self.levels.scheme, self.network.space
        middles = 0.5 * (levels.points[:-1] + levels.points[1:])
        ends = np.sort(np.concatenate([levels.points, middles]))
        finer = DepthLevels(scheme, ends)
        network = Network(space, finer, self.network.activation)
        halves = _in_halves(scheme.points)

        def carry(values: Array, matrix: Array) -> Array:
            slabs = values.reshape(levels.layers, matrix.shape[1], *values.shape[1:])
            fine = np.einsum("ij,nj...->ni...", matrix, slabs)
            return fine.reshape(-1, *values.shape[1:])

        operator = bias = None
        if self.weights.operator is not None:
            old = np.sqrt(levels.weights)[:, None, None]
            new = np.sqrt(finer.weights)[:, None, None]
            coefficients = carry(self.weights.operator.coefficients / old, halves) * new
            operator = NonlocalOperator(space, finer.weights, coefficients)
        if self.weights.bias is not None:
            bias = carry(self.weights.bias, halves)
        weights = LayerWeights(operator, bias)
        if self.at is None:
            state = solve_state(network, weights, self.inputs)
            return Subject(network, weights, self.inputs, state)
        problem, tracking = self.at.problem, self.at.problem.tracking
        if tracking is not None and len(tracking.targets) > 1:
            matrix = _in_halves(scheme.tracking_points)
            tracking = replace(tracking, targets=carry(tracking.targets, matrix))
        controls = problem.controls.on(finer)
        # Given weights in R are a constant, and carried over as such.
        here = replace(
            problem,
            network=network,
            controls=controls,
            regularization=replace(problem.regularization, controls=controls),
            tracking=tracking,
            given=LayerWeights(
                None if controls.has_kernel else operator, None if controls.has_bias else bias
            ),
        )
        layer = self.at.output_layer
        root = space.sqrt_weights[space.owned]
        control = controls.join(
            ControlParts(
                None if operator is None else operator.coefficients,
                None if bias is None else bias[:, :, 0] * controls.bias_scale,
                None if layer is None else layer.functions * root,
                None if layer is None else layer.offsets,
            )
        )
        at = here.linearise(control)
        return replace(self, network=network, weights=weights, state=at.state, at=at, initial=None)


def _in_halves(points: Array) -> Array:
    """Values at the points of both halves of (0, 1) of the polynomials through the points."""
    both = np.concatenate([points / 2, (1 + points) / 2])
    return np.stack([phi(both) for phi in lagrange_basis(points)], axis=1)
