"""The discrete learning problem once more, in plain NumPy and independently of the package.

Written from theory.md's weak form alone: monomials instead of nodal bases, plain fixed-point
iteration instead of the program's slab solver, and derivatives by complex steps
(Im F(z + i eps) / eps, exact to round-off) instead of adjoints. Arrays as in `solution.npz`; a
leading axis of perturbations is carried along everywhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

Array = NDArray[np.generic]

EPS = 1e-40
"""The complex step."""

SWEEPS = 120
"""Fixed-point iterations per slab: each gains a factor of about tau |a|."""

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "sigmoid": lambda u: 1 / (1 + np.exp(-u)),
    "relu": lambda u: np.where(u.real > 0, u, 0 * u),
    "softplus": lambda u: np.log(1 + np.exp(u)),
    "gelu": lambda u: u * (1 + erf(u / np.sqrt(2))) / 2,
    "linear": lambda u: u,
}

r3, r15 = np.sqrt(3) / 6, np.sqrt(15) / 10
GAUSS = {
    1: ([0.5], [1.0]),
    2: ([0.5 - r3, 0.5 + r3], [0.5, 0.5]),
    3: ([0.5 - r15, 0.5, 0.5 + r15], [5 / 18, 8 / 18, 5 / 18]),
}
"""Gauss-Legendre points and weights on (0, 1)."""


def gauss(n: int) -> tuple[Array, Array]:
    points, weights = GAUSS[n]
    return np.array(points), np.array(weights)


def stages(scheme: str) -> tuple[Array, Array, Array, Array]:
    """c, w, A (stage values from slopes) and A at the tracking points, on a slab of thickness 1."""
    if scheme == "resnet":
        half = np.array([[0.5]])
        return np.zeros(1), np.ones(1), np.zeros((1, 1)), half
    n = int(scheme[2]) + 1
    c, w = gauss(n)
    # F = sum_k alpha_k s^k: int F' s^i + F(0) 0^i = f_n 0^i + tau sum_j w_j c_j^i sigma_j
    i, k = np.arange(n)[:, None], np.arange(n)[None]
    G = np.where(k > 0, k / np.maximum(i + k, 1), 0.0) + ((i == 0) & (k == 0))
    powers = c[:, None] ** np.arange(n)
    A = powers @ np.linalg.solve(G, powers.T * w)
    return c, w, A, A


@dataclass
class Controls:
    """Kernel (levels, N, N), bias (levels, N), outputs (K, N), offsets (K,)."""

    kernel: Array
    bias: Array
    outputs: Array = field(default_factory=lambda: np.zeros((0, 0)))
    offsets: Array = field(default_factory=lambda: np.zeros(0))


@dataclass
class Reference:
    """A learning problem.

    `targets` as in the case; `tracked` are g at the tracking points, (points, samples, N).
    `penalties`: lambda of kernel, bias and outputs.
    """

    h: Array
    t: Array
    scheme: str
    activation: str
    inputs: Array
    weights: Array
    loss: str
    targets: Array
    penalties: tuple[float, float, float]
    loss_weight: float = 1.0
    mu: float = 0.0
    tracked: Array | None = None

    @property
    def control_t(self) -> Array:
        c = stages(self.scheme)[0]
        return (self.t[:-1, None] + np.diff(self.t)[:, None] * c).ravel()

    @property
    def tracking_t(self) -> Array:
        c = np.array([0.5]) if self.scheme == "resnet" else stages(self.scheme)[0]
        return (self.t[:-1, None] + np.diff(self.t)[:, None] * c).ravel()

    @property
    def control_weights(self) -> Array:
        return (np.diff(self.t)[:, None] * stages(self.scheme)[1]).ravel()

    def march(self, z: Controls, first: int = 0, start: Array | None = None) -> dict[str, Array]:
        """States from a slab on: `ends`, `levels`, `tracked`, each with the slabs' axis first."""
        _, w, A, B = stages(self.scheme)
        sigma, q = ACTIVATIONS[self.activation], len(w)
        f = self.inputs if start is None else start
        found: dict[str, list[Array]] = {"ends": [f], "levels": [], "u": [], "tracked": []}
        for n in range(first, len(self.t) - 1):
            tau = self.t[n + 1] - self.t[n]
            F = [f] * q
            for _ in range(1 if self.scheme == "resnet" else SWEEPS):
                u = []
                for j in range(q):
                    a, b = z.kernel[..., n * q + j, :, :], z.bias[..., n * q + j, :]
                    u.append((F[j] * self.h) @ np.swapaxes(a, -1, -2) + b[..., None, :])
                s = [sigma(v) for v in u]
                F = [f + tau * sum(A[i, j] * s[j] for j in range(q)) for i in range(q)]
            found["levels"] += F
            found["u"] += u
            found["tracked"] += [f + tau * sum(row[j] * s[j] for j in range(q)) for row in B]
            f = f + tau * sum(w[j] * s[j] for j in range(q))
            found["ends"].append(f)
        return {
            name: np.stack(np.broadcast_arrays(*values)) for name, values in found.items() if values
        }

    def terminal(self, f: Array, z: Controls) -> Array:
        """ell_s, times the loss weight."""
        if self.loss == "l2":
            value = 0.5 * ((f - self.targets) ** 2) @ self.h
        else:
            out = (f * self.h) @ np.swapaxes(z.outputs, -1, -2) + z.offsets[..., None, :]
            if self.loss == "mse":
                value = 0.5 * np.sum((out - self.targets) ** 2, axis=-1)
            elif self.loss == "logistic":
                value = np.log(1 + np.exp(-self.targets * out[..., 0]))
            else:
                right = out[..., np.arange(len(self.targets)), self.targets.astype(int)]
                value = np.log(np.sum(np.exp(out), axis=-1)) - right
        return self.loss_weight * value

    def cost(self, z: Controls, first: int = 0, start: Array | None = None) -> Array:
        """Per sample, what accrues from a slab's start on: terminal loss and tracking."""
        states = self.march(z, first, start)
        value = self.terminal(states["ends"][-1], z)
        if self.mu:
            q = len(self.tracking_t) // (len(self.t) - 1)
            omega = (np.diff(self.t)[:, None] * gauss(q)[1]).ravel()[first * q :]
            for k, f in enumerate(states.get("tracked", ())):
                misfit = f - self.tracked[first * q + k]
                value = value + 0.5 * self.mu * omega[k] * (misfit**2) @ self.h
        return value

    def metric(self, z: Controls) -> dict[str, Array]:
        """Quadrature weights that make sums over the arrays L2 inner products."""
        omega, h = self.control_weights, self.h
        return {
            "kernel": omega[:, None, None] * h[:, None] * h,
            "bias": omega[:, None] * h,
            "outputs": h * np.ones_like(z.outputs) if z.outputs.size else z.outputs,
            "offsets": np.ones(z.offsets.shape),
        }

    def loss_value(self, z: Controls) -> Array:
        return self.cost(z) @ self.weights

    def regularization(self, z: Controls, learned: bool = False) -> Array:
        a, b, o = self.penalties
        penalties = {"kernel": a, "bias": b}
        if learned:
            penalties |= {"outputs": o, "offsets": o}
        metric = self.metric(z)
        return sum(
            0.5 * p * float(np.sum(metric[name] * getattr(z, name) ** 2))
            for name, p in penalties.items()
        )

    def gradient(self, z: Controls, trained: Mapping[str, Array | None]) -> dict[str, Array]:
        """The L2 gradient with respect to what is trained.

        Args:
            z: Controls.
            trained: Name of a trained part -> its 0/1 mask, None for all of it.
        """
        metric, (a, b, o) = self.metric(z), self.penalties
        penalty = {"kernel": a, "bias": b, "outputs": o, "offsets": o}
        gradient = {}
        for name, mask in trained.items():
            value = getattr(z, name)
            steps = 1j * EPS * np.eye(value.size).reshape(value.size, *value.shape)
            parts = {n: getattr(z, n)[None] for n in ("kernel", "bias", "outputs", "offsets")}
            derivative = self.loss_value(Controls(**{**parts, name: value + steps})).imag / EPS
            gradient[name] = derivative.reshape(value.shape) / metric[name] + penalty[name] * value
            if mask is not None:
                gradient[name] = gradient[name] * mask
        return gradient

    def norm(self, gradient: Mapping[str, Array], z: Controls) -> float:
        metric = self.metric(z)
        return float(np.sqrt(sum(np.sum(metric[n] * g**2) for n, g in gradient.items())))

    def adjoint(self, z: Controls) -> Array:
        """(layers + 1, samples, N): the L2 gradient of every sample's own cost after t_n."""
        rows = []
        states = self.march(z)["ends"]
        parts = {n: getattr(z, n)[None] for n in ("kernel", "bias", "outputs", "offsets")}
        for n, f in enumerate(states):
            steps = 1j * EPS * np.eye(len(self.h))[:, None, :]
            derivative = self.cost(Controls(**parts), n, f + steps).imag / EPS
            rows.append(derivative.T / self.h)
        return np.stack(rows)
