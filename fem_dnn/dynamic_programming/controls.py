"""What the minimum is taken over: few numbers per state that name all controls worth trying.

In the Hamiltonian the rows a(x, .), b(x) of the nodes x are minimised one by one. Given u_s(x) for
all samples, the cheapest row is the one to take, so that min(samples, nodes + 1) numbers per row
suffice (theory.md section 3): with one sample one number per node, with one node its kernel and
bias themselves. Numbers z are scaled so that, where no bound is active, the density of the cost
is |z|^2 / 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Bounds = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Trained:
    """The controls that are trained, their prices and bounds.

    Attributes:
        node_weights: h_y, shape (N,).
        kernel, bias: lambda_a and lambda_b > 0; None where not trained.
        mask: m(x, y), shape (N, N); None: 1.
        kernel_bounds, bias_bounds: Lowest and highest nodal value, possibly infinite.
    """

    node_weights: Array
    kernel: float | None
    bias: float | None
    mask: Array | None = None
    kernel_bounds: Bounds = (-np.inf, np.inf)
    bias_bounds: Bounds = (-np.inf, np.inf)

    def within_bounds(self, a: Array | None, b: Array | None) -> tuple[Array | None, Array | None]:
        """The nearest controls within the bounds; masked entries are 0 within any."""
        if a is not None and np.any(np.isfinite(self.kernel_bounds)):
            a = np.clip(a, *self.kernel_bounds)
            if self.mask is not None:
                a = a * self.mask[:, :, None]
        if b is not None and np.any(np.isfinite(self.bias_bounds)):
            b = np.clip(b, *self.bias_bounds)
        return a, b


class Controls(Protocol):
    """A family of controls, for M states at once.

    Attributes:
        count: How many numbers z name a control.
        weights: h > 0 of each of them, shape (count,): the cost is sum h z^2 / 2, unbounded.
    """

    @property
    def count(self) -> int: ...

    @property
    def weights(self) -> Array: ...

    def rows(self, z: Array, f: Array) -> tuple[Array | None, Array | None]:
        """The kernel (N, N, M) [x, y] and bias (N, M) named by z (count, M) at the states f.

        Args:
            z: Shape (count, M).
            f: States, shape (S, N, M).
        """

    def reach(self, f: Array) -> Array:
        """How far u moves at most, over samples and nodes, per unit of each z, (count, M)."""


@dataclass(frozen=True, eq=False)
class MultiplierControls:
    """One sample: the multiplier of u(x) in the cheapest row, for each node x.

        a(x, y) = P(z m(x, y) f(y) / (lambda_a k)),  b(x) = P(z / (lambda_b k)),   k = K(x)^{1/2},

    K(x) = int m f^2 / lambda_a + 1 / lambda_b and P the projection onto the bounds. Without bounds
    u = k z. These are all rows that are optimal for some u, also within bounds.
    """

    trained: Trained

    @property
    def count(self) -> int:
        """One per node."""
        return len(self.trained.node_weights)

    @property
    def weights(self) -> Array:
        """Node weights."""
        return self.trained.node_weights

    def _root(self, f: Array) -> Array:
        """k, shape (N, M)."""
        trained = self.trained
        K = np.zeros(f.shape[1:])
        if trained.kernel is not None:
            squares = trained.node_weights[:, None] * f[0] ** 2 / trained.kernel
            K += squares.sum(axis=0) if trained.mask is None else trained.mask @ squares
        if trained.bias is not None:
            K += 1 / trained.bias
        return np.sqrt(K)

    def rows(self, z: Array, f: Array) -> tuple[Array | None, Array | None]:
        """See `Controls`."""
        trained, root = self.trained, self._root(f)
        scaled = np.divide(z, root, out=np.zeros_like(z), where=root > 0)
        a = b = None
        if trained.kernel is not None:
            a = (scaled / trained.kernel)[:, None] * f[0]
            if trained.mask is not None:
                a *= trained.mask[:, :, None]
        if trained.bias is not None:
            b = scaled / trained.bias
        return trained.within_bounds(a, b)

    def reach(self, f: Array) -> Array:
        """See `Controls`."""
        return self._root(f)


@dataclass(frozen=True, eq=False)
class DirectControls:
    """One node: kernel and bias themselves, (lambda_a h)^{1/2} a = z_0, lambda_b^{1/2} b = z_1."""

    trained: Trained

    @property
    def _kernel(self) -> bool:
        mask = self.trained.mask
        return self.trained.kernel is not None and (mask is None or bool(mask[0, 0]))

    @property
    def count(self) -> int:
        """As many as are trained."""
        return self._kernel + (self.trained.bias is not None)

    @property
    def weights(self) -> Array:
        """The node's weight."""
        return np.repeat(self.trained.node_weights, self.count)

    def rows(self, z: Array, f: Array) -> tuple[Array | None, Array | None]:
        """See `Controls`."""
        trained, a, b = self.trained, None, None
        if self._kernel:
            assert trained.kernel is not None
            a = (z[0] / np.sqrt(trained.kernel * trained.node_weights[0]))[None, None]
        if trained.bias is not None:
            b = (z[-1] / np.sqrt(trained.bias))[None]
        return trained.within_bounds(a, b)

    def reach(self, f: Array) -> Array:
        """See `Controls`."""
        trained, result = self.trained, np.empty((self.count, f.shape[2]))
        if self._kernel:
            assert trained.kernel is not None
            root = np.sqrt(trained.node_weights[0] / trained.kernel)
            result[0] = root * np.max(np.abs(f[:, 0]), axis=0)
        if trained.bias is not None:
            result[-1] = 1 / np.sqrt(trained.bias)
        return result
