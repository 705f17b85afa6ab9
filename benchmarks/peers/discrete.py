"""The discretised learning problem as a file of arrays, and its objective and gradient in NumPy.

With equal cells of size h, one level per layer (explicit Euler, tanh) and the unknowns

    Z[l, x, y] = sqrt(tau_l) h a_l(x, y),      B[l, x] = sqrt(tau_l h) b_l(x),

the controls in L2-orthonormal coordinates (the Euclidean norm of a derivative by them is the L2
norm of the gradient), the problem of theory.md sections 1 and 2 reads

    f_{l+1} = f_l + tau_l tanh((Z_l f_l + B_l / sqrt(h)) / sqrt(tau_l)),    l = 0 .. layers - 1,
    J = sum_s w_s ell_s(f_L) + (lambda_a |Z|^2 + lambda_b |B|^2) / 2
        + sum_l |Z_{l+1}/sqrt(tau_{l+1}) - Z_l/sqrt(tau_l)|^2 gamma_a / (2 tau_l) + the same of B.

This is the residual network that every peer is given. Nothing here needs more than NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LOSSES = ("l2", "mse", "logistic", "softmax")


@dataclass(frozen=True, eq=False)
class DiscreteProblem:
    """A learning problem as arrays, nodes in file order.

    Attributes:
        cell: h, the same for all nodes.
        steps: tau_l, shape (layers,).
        inputs: f_I, shape (nodes, samples).
        weights: w_s, shape (samples,).
        loss: l2 | mse | logistic | softmax.
        loss_weight: Factor on the terminal loss.
        targets: l2: (nodes, samples); mse: (K, samples); logistic: +1/-1, (1, samples); softmax:
            indicator columns, (K, samples).
        outputs: h W_k, shape (K, nodes): z = outputs @ f + offsets; empty for l2.
        offsets: m_k, shape (K,).
        kernel, bias: lambda_a, lambda_b.
        kernel_depth, bias_depth: gamma_a, gamma_b.
        mask: Where the kernel may differ from 0, 0/1, shape (nodes, nodes); empty: everywhere.
        kernel_bounds, bias_bounds: Lowest and highest nodal value, possibly infinite, shape (2,).
    """

    cell: float
    steps: Array
    inputs: Array
    weights: Array
    loss: str
    loss_weight: float
    targets: Array
    outputs: Array
    offsets: Array
    kernel: float
    bias: float
    kernel_depth: float
    bias_depth: float
    mask: Array
    kernel_bounds: Array
    bias_bounds: Array

    @classmethod
    def read(cls, path: Path) -> DiscreteProblem:
        """The problem in a file that `write` has made."""
        with np.load(path) as file:
            arrays = {field.name: file[field.name] for field in fields(cls)}
        return cls(**{name: a.item() if a.ndim == 0 else a for name, a in arrays.items()})

    def arrays(self) -> dict[str, Array]:
        """What a file holds, by name."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.steps)

    @property
    def nodes(self) -> int:
        """Number of width nodes."""
        return len(self.inputs)

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.weights)

    @property
    def kernel_size(self) -> int:
        """Entries of Z; those of B follow in a control vector."""
        return self.layers * self.nodes**2

    @property
    def size(self) -> int:
        """Entries of a control vector."""
        return self.kernel_size + self.layers * self.nodes

    def split(self, z: Array) -> tuple[Array, Array]:
        """Views of a control vector: Z (layers, nodes, nodes) and B (layers, nodes)."""
        N, L = self.nodes, self.layers
        return z[: self.kernel_size].reshape(L, N, N), z[self.kernel_size :].reshape(L, N)

    @cached_property
    def scales(self) -> tuple[Array, Array]:
        """What nodal values of kernel and bias are multiplied by to give Z and B, per layer."""
        return np.sqrt(self.steps) * self.cell, np.sqrt(self.steps * self.cell)

    def coordinates(self, kernel: Array, bias: Array) -> Array:
        """The control vector of nodal values."""
        if self.mask.size:
            kernel = kernel * self.mask
        a, b = self.scales
        return np.concatenate([(kernel * a[:, None, None]).ravel(), (bias * b[:, None]).ravel()])

    def random(self, seed: int, scale: float = 1.0) -> Array:
        """Standard normal nodal values times scale: kernel [level, x, y] first, then bias.

        Projected onto the bounds, where there are any.
        """
        rng = np.random.default_rng(seed)
        kernel = scale * rng.standard_normal((self.layers, self.nodes, self.nodes))
        bias = scale * rng.standard_normal((self.layers, self.nodes))
        z = self.coordinates(kernel, bias)
        return z if self.box is None else np.clip(z, *self.box)

    @cached_property
    def box(self) -> tuple[Array, Array] | None:
        """Lowest and highest control vector; None where there are no bounds."""
        if not np.any(np.isfinite([self.kernel_bounds, self.bias_bounds])):
            return None
        a, b = self.scales
        sides = []
        for side in (0, 1):
            kernel = np.repeat(self.kernel_bounds[side] * a, self.nodes**2)
            sides.append(
                np.concatenate([kernel, np.repeat(self.bias_bounds[side] * b, self.nodes)])
            )
        return sides[0], sides[1]

    def norm(self, z: Array, gradient: Array) -> float:
        """L2 norm of a gradient at a control, projected where there are bounds."""
        if self.box is not None:
            lower, upper = self.box
            gradient = np.where(z <= lower, np.minimum(gradient, 0.0), gradient)
            gradient = np.where(z >= upper, np.maximum(gradient, 0.0), gradient)
        return float(np.linalg.norm(gradient))

    def terminal_loss(self, f: Array) -> tuple[float, Array]:
        """sum_s w_s ell_s and its derivative by the terminal states f, shape (nodes, samples)."""
        w = self.loss_weight * self.weights
        if self.loss == "l2":
            difference = f - self.targets
            values = 0.5 * self.cell * np.sum(difference * difference, axis=0)
            return float(w @ values), self.cell * w * difference
        z, y = self.outputs @ f + self.offsets[:, None], self.targets
        if self.loss == "mse":
            slope = z - y
            values = 0.5 * np.sum(slope * slope, axis=0)
        elif self.loss == "logistic":
            margin = y * z
            values = np.logaddexp(0, -margin)[0]
            slope = -y * np.exp(-np.logaddexp(0, margin))
        else:
            z = z - z.max(axis=0)
            total = np.sum(np.exp(z), axis=0)
            values = np.log(total) - np.sum(z * y, axis=0)
            slope = np.exp(z) / total - y
        return float(w @ values), self.outputs.T @ (w * slope)


class NumpyModel:
    """Objective and exact gradient, written by hand: one matrix product per layer and sweep.

    Args:
        problem: The problem. Trajectories are kept in arrays that are made once.
    """

    def __init__(self, problem: DiscreteProblem) -> None:
        self.problem = problem
        shape = (problem.layers, problem.nodes, problem.samples)
        self._states = np.empty((shape[0] + 1, *shape[1:]))
        self._slopes = np.empty(shape)

    def objective_and_gradient(self, z: Array) -> tuple[float, Array]:
        """J and its derivative by the control vector."""
        problem, f, slopes = self.problem, self._states, self._slopes
        Z, B = problem.split(z)
        root, cell_root = np.sqrt(problem.steps), np.sqrt(problem.cell)
        f[0] = problem.inputs
        for n in range(problem.layers):
            u = slopes[n]
            np.matmul(Z[n], f[n], out=u)
            u += B[n, :, None] / cell_root
            u /= root[n]
            np.tanh(u, out=u)
            np.multiply(u, problem.steps[n], out=f[n + 1])
            f[n + 1] += f[n]
            np.multiply(u, u, out=u)
            np.subtract(1.0, u, out=u)
        loss, p = problem.terminal_loss(f[-1])
        gradient = np.empty_like(z)
        dZ, dB = problem.split(gradient)
        for n in reversed(range(problem.layers)):
            q = slopes[n]
            q *= p
            q *= root[n]
            np.matmul(q, f[n].T, out=dZ[n])
            dB[n] = q.sum(axis=1) / cell_root
            if n:
                p += Z[n].T @ q
        if problem.mask.size:
            dZ *= problem.mask
        return loss + self._penalty(z, gradient), gradient

    def _penalty(self, z: Array, gradient: Array) -> float:
        """R; its derivative is added to the gradient."""
        problem, value = self.problem, 0.0
        parts = zip(problem.split(z), problem.split(gradient), strict=True)
        tikhonov = (problem.kernel, problem.bias)
        depth = (problem.kernel_depth, problem.bias_depth)
        for (c, out), weight, gamma in zip(parts, tikhonov, depth, strict=True):
            value += 0.5 * weight * float(np.vdot(c, c))
            out += weight * c
            if gamma:
                column = (-1, *(1,) * (c.ndim - 1))
                root = np.sqrt(problem.steps).reshape(column)
                jump = np.diff(c / root, axis=0)
                flux = gamma / problem.steps[:-1].reshape(column) * jump
                value += 0.5 * float(np.vdot(jump, flux))
                out[1:] += flux / root[1:]
                out[:-1] -= flux / root[:-1]
        return value
