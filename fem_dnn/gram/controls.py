"""The control space in Gram form: q and, where learned, output weights W and offsets m.

A control is one distributed vector of L2-orthonormal coordinates, as in `controls`:

    q        sqrt(omega h_x) q_s(x)     per level, [level, x, sample]
    outputs  sqrt(h_x) W_k(x)
    offsets  m_k                        on rank 0
"""

from __future__ import annotations

from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from fem_dnn.controls import ControlParts, ControlSpace, ControlValues

Array = NDArray[np.float64]


class GramControls(ControlSpace):
    """Which parts there are, and how a distributed vector holds them.

    Args:
        dense: The controls a and b that q stands for, without mask and bounds.
        samples: S.
    """

    def __init__(self, dense: ControlSpace, samples: int) -> None:
        super().__init__(
            dense.space,
            dense.levels,
            kernel=False,
            bias=False,
            outputs=dense.outputs,
        )
        self.has_kernel, self.has_bias = dense.has_kernel, dense.has_bias
        self.samples = samples
        size = self.levels.count * self.space.n_local * samples
        outer = {name: self.blocks[name] for name in ("outputs", "offsets")}
        self.blocks = {"q": slice(0, size)} | {
            name: slice(part.start + size, part.stop + size) for name, part in outer.items()
        }
        self.n_local += size
        self.n_global += self.levels.count * self.space.n_nodes * samples

    def q(self, vector: Array) -> Array:
        """Coordinates of q, shape (levels, n_local, S); a view."""
        shape = (self.levels.count, self.space.n_local, self.samples)
        return vector[self.blocks["q"]].reshape(shape)

    def outer(self, vector: Array) -> Array:
        """Coordinates of the learned output layer; a view, empty where there is none."""
        return vector[self.blocks["q"].stop :]

    def split(self, vector: Array) -> ControlParts:
        """The learned output layer; q is not among a control's parts, see `q`."""
        outputs = offsets = None
        if self.outputs:
            outputs = vector[self.blocks["outputs"]].reshape(self.outputs, self.space.n_local)
            offsets = np.array(vector[self.blocks["offsets"]])
            if self.space.comm.size > 1:
                offsets = self.space.comm.bcast(offsets, root=0)
        return ControlParts(None, None, outputs, offsets)

    def set_outer(self, vector: Array, parts: ControlParts) -> None:
        """Write the learned output layer's coordinates into a vector."""
        if parts.outputs is not None and parts.offsets is not None and self.outputs:
            vector[self.blocks["outputs"]] = parts.outputs.reshape(-1)
            if self.space.comm.rank == 0:
                vector[self.blocks["offsets"]] = parts.offsets

    def join(self, parts: ControlParts) -> NoReturn:
        """There is no vector of a kernel and a bias here."""
        raise TypeError("controls in Gram form are q, not a kernel and a bias")

    def coordinates(self, values: ControlValues) -> Array:
        """The local vector of controls given by nodal values; absent parts are zero."""
        space = self.space
        vector = np.zeros(self.n_local)
        if values.q is not None:
            local = space.from_file_order(values.q).transpose(0, 2, 1)
            self.q(vector)[...] = local * self.bias_scale[:, :, None]
        if self.outputs:
            outputs: Array = np.zeros((self.outputs, space.n_local))
            offsets: Array = np.zeros(self.outputs)
            if values.outputs is not None:
                outputs = space.from_file_order(values.outputs) * space.sqrt_weights[space.owned]
            if values.offsets is not None:
                offsets = values.offsets
            self.set_outer(vector, ControlParts(None, None, outputs, offsets))
        return vector

    def values(self, vector: Array) -> ControlValues:
        """Nodal values in file order, on every rank (collective): q and the output layer."""
        space, parts = self.space, self.split(vector)
        q = space.to_file_order(self.q(vector) / self.bias_scale[:, :, None], axis=1)
        outputs = None
        if parts.outputs is not None:
            outputs = space.to_file_order(parts.outputs / space.sqrt_weights[space.owned])
        return ControlValues(
            outputs=outputs, offsets=parts.offsets, q=np.ascontiguousarray(q.transpose(0, 2, 1))
        )

    def random(self, seed: int, scale: float = 1.0) -> Array:
        """Standard normal values of q times scale, [level, sample, x] in file order."""
        rng = np.random.default_rng(seed)
        shape = (self.levels.count, self.samples, self.space.n_nodes)
        return self.coordinates(ControlValues(q=scale * rng.standard_normal(shape)))

    def random_direction(self, seed: int) -> Array:
        """A random control of norm 1 with all parts, the same on any number of ranks."""
        rng = np.random.default_rng(seed)
        K, N = self.outputs, self.space.n_nodes
        direction = self.random(seed)
        outer = ControlValues(
            outputs=rng.standard_normal((K, N)) if K else None,
            offsets=rng.standard_normal(K) if K else None,
        )
        direction += self.coordinates(outer)
        direction /= self.norm(direction)
        return direction

    def constant(self, kernel: float = 0.0, bias: float = 0.0) -> Array:
        """The control a = b = 0: other constants are no sums over the samples."""
        if kernel or bias:
            raise ValueError("a constant kernel or bias has no Gram form in general")
        return np.zeros(self.n_local)
