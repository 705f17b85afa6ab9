"""A frozen neuron on N layers of constant controls: objective, derivatives, local minima.

    J_N(z) = sum_n tau |z_n|^2 / 2 + (kappa / 2) sum_n |z_{n+1} - z_n|^2 / tau + Q(sigma(u_n))

with the quadratic Q of terminal loss and tracking. The states are linear within a layer and the
tracking term is integrated exactly along them, so J_N is J itself at these controls. kappa is
gamma / lambda: |z|^2 = lambda |a|^2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from fem_dnn.existence.frozen import FrozenNeuron
from fem_dnn.existence.newton_step import newton_step

Array = NDArray[np.float64]

_STEPS = 200
_RESOLVED = 1e-12
"""Relative fall of the objective below which round-off hides it."""


@dataclass(frozen=True, eq=False)
class LayeredMinimum:
    """A local minimiser on N layers.

    Attributes:
        z: Controls, shape (N, rank).
        objective: J_N.
        gradient_norm: L2 norm of the gradient.
        strict: Whether the Hessian is positive definite.
    """

    z: Array
    objective: float
    gradient_norm: float
    strict: bool


@dataclass(frozen=True, eq=False)
class Layered:
    """J_N of a frozen neuron.

    Attributes:
        neuron: The neuron.
        layers: N.
        smoothing: kappa = gamma / lambda.
    """

    neuron: FrozenNeuron
    layers: int
    smoothing: float = 0.0
    t: Array = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "t", np.linspace(0.0, self.neuron.depth, self.layers + 1))

    @property
    def tau(self) -> float:
        """Thickness of a layer."""
        return self.neuron.depth / self.layers

    @cached_property
    def mass(self) -> sparse.csr_array:
        """int e^2 dt = e'Me for e linear on every layer, shape (N + 1, N + 1)."""
        diagonal = np.full(self.layers + 1, 2 * self.tau / 3)
        diagonal[[0, -1]] /= 2
        beside = np.full(self.layers, self.tau / 6)
        return sparse.csr_array(sparse.diags_array([diagonal, beside, beside], offsets=[0, -1, 1]))

    def states(self, v: Array) -> Array:
        """y at the slab ends, (N, S) -> (N + 1, S)."""
        y: Array = self.neuron.start + self.tau * np.vstack([0 * v[:1], np.cumsum(v, axis=0)])
        return y

    def loss(self, v: Array) -> tuple[float, Array]:
        """Q and its gradient with respect to the velocities, shape (N, S)."""
        neuron = self.neuron
        y = self.states(v)
        e = y - neuron.intercept - self.t[:, None] * neuron.slope
        miss = y[-1] - neuron.targets
        Me = self.mass @ e
        value = 0.5 * float(np.sum(e * Me, axis=0) @ neuron.tracking + miss**2 @ neuron.weights)
        dy = neuron.tracking * Me
        dy[-1] += neuron.weights * miss
        return value, self.tau * np.cumsum(dy[::-1], axis=0)[::-1][1:]

    def _jumps(self, z: Array) -> Array:
        """The derivative of the smoothing term, shape (N, rank)."""
        jumps = np.diff(z, axis=0, prepend=z[:1], append=z[-1:])
        return self.stiffness * (jumps[:-1] - jumps[1:])

    def objective(self, z: Array) -> float:
        """J_N."""
        vs = self.neuron.velocities
        value = self.tau * float(np.sum(vs.cost(z))) + 0.5 * float(np.sum(z * self._jumps(z)))
        return value + self.loss(vs.velocity(z))[0]

    def gradient(self, z: Array) -> Array:
        """dJ_N / dz, shape (N, rank)."""
        vs = self.neuron.velocities
        v, first = vs.activation.evaluate(vs.u(z), 1)
        return self.tau * z + self._jumps(z) + (self.loss(v)[1] * first) @ vs.factor

    @property
    def stiffness(self) -> float:
        """kappa / tau: what couples neighbouring layers' controls."""
        return self.smoothing / self.tau

    def local_blocks(self, z: Array) -> Array:
        """The Hessian's part within each layer, but for Q'', shape (N, rank, rank)."""
        vs, N = self.neuron.velocities, self.layers
        v, _, second = vs.activation.evaluate(vs.u(z), 2)
        bends = np.einsum("sr,ns,sq->nrq", vs.factor, self.loss(v)[1] * second, vs.factor)
        neighbours = np.full(N, 2.0)
        neighbours[0] -= 1.0
        neighbours[-1] -= 1.0
        size = self.tau + self.stiffness * neighbours
        return bends + size[:, None, None] * np.eye(vs.rank)

    def hessian(self, z: Array) -> Array:
        """Shape (N rank, N rank)."""
        vs, N, tau = self.neuron.velocities, self.layers, self.tau
        slopes = vs.activation.evaluate(vs.u(z), 1)[1]
        sums = tau * np.tri(N + 1, N, -1)
        tracked = sums.T @ (self.mass @ sums)
        H: Array = np.zeros((N, vs.rank, N, vs.rank))
        for s in range(vs.samples):
            row: Array = vs.factor[s]
            inner = self.neuron.tracking[s] * tracked + self.neuron.weights[s] * tau**2
            inner = inner * slopes[:, s, None] * slopes[:, s]
            H += inner[:, None, :, None] * (row[:, None] * row)[None, :, None, :]
        n, r = np.arange(N), np.arange(vs.rank)
        H[n, :, n, :] += self.local_blocks(z)
        H[n[1:, None], r, n[:-1, None], r] -= self.stiffness
        H[n[:-1, None], r, n[1:, None], r] -= self.stiffness
        return H.reshape(N * vs.rank, N * vs.rank)

    def minimise(self, z: Array) -> LayeredMinimum:
        """The local minimiser that descent from a guess finds."""
        value = self.objective(z)
        for _ in range(_STEPS):
            step, fall, _ = newton_step(self, z)
            if fall <= _RESOLVED * max(1.0, abs(value)):
                z = self._polished(z, step)
                break
            length = 1.0
            while not (there := self.objective(z + length * step)) <= value - length * fall / 10:
                length /= 2
                if length < 1e-10:
                    break
            if length < 1e-10:
                break
            z, value = z + length * step, there
        norm = float(np.linalg.norm(self.gradient(z))) / np.sqrt(self.tau)
        return LayeredMinimum(z, self.objective(z), norm, newton_step(self, z)[2])

    def _polished(self, z: Array, step: Array) -> Array:
        """Newton steps below what the objective resolves, as long as the gradient gains."""
        norm = np.linalg.norm(self.gradient(z))
        while (there := np.linalg.norm(self.gradient(z + step))) < 0.5 * norm:
            z, norm = z + step, there
            step = newton_step(self, z)[0]
        return z


def derivative_ratio(z: Array, depth: float) -> float:
    """|d_t a| / |a| of controls on N layers, jumps over distances; shape of z (N, rank)."""
    tau = depth / len(z)
    return float(np.linalg.norm(np.diff(z, axis=0)) / (tau * np.linalg.norm(z)))


def total_variation(z: Array) -> float:
    """sum_n |a_{n+1} - a_n| in units of the mean |a|."""
    sizes = np.linalg.norm(z, axis=1)
    return float(np.sum(np.linalg.norm(np.diff(z, axis=0), axis=1)) / max(np.mean(sizes), 1e-300))
