"""The control space: kernel a, bias b and, where learned, output weights W and offsets m.

A control is one distributed vector of L2-orthonormal coordinates, so Euclidean means L2:

    kernel   sqrt(omega h_x h_y) a(x, y)    per level, or its unmasked entries
    bias     sqrt(omega h_x) b(x)           per level
    outputs  sqrt(h_x) W_k(x)
    offsets  m_k                            on rank 0 of a width

with omega the depth quadrature weight of the level and h the node weights. `ControlSpace.split`
views such a vector as its parts; `values` and `coordinates` convert from and to nodal values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.box import Box
from fem_dnn.depth import DepthLevels
from fem_dnn.kernel_factors import KernelFactors
from fem_dnn.nonlocal_operator import kernel_coefficients, kernel_values
from fem_dnn.sample_groups import SampleGroups
from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ControlParts:
    """A control vector's parts, in L2-orthonormal coordinates; None where not a control.

    Attributes:
        kernel: [level, y, x], shape (levels, n_nodes, n_local).
        bias: Shape (levels, n_local).
        outputs: Shape (K, n_local).
        offsets: Shape (K,), the same on every rank.
        vector: The vector that the others but offsets and a masked kernel are views of, if any.
    """

    kernel: Array | None
    bias: Array | None
    outputs: Array | None
    offsets: Array | None
    vector: Array | None = None


@dataclass(frozen=True, eq=False)
class ControlValues:
    """Controls as nodal values in file order, as people and files see them.

    Attributes:
        kernel: a(x, y), shape (levels, n_nodes, n_nodes).
        bias: Shape (levels, n_nodes).
        outputs: W_k(x), shape (K, n_nodes).
        offsets: m_k, shape (K,).
        q: In Gram form instead of kernel and bias, shape (levels, samples, n_nodes).
        factors: Instead of the kernel's matrices.
    """

    kernel: Array | None = None
    bias: Array | None = None
    outputs: Array | None = None
    offsets: Array | None = None
    q: Array | None = None
    factors: KernelFactors | None = None

    def arrays(self) -> dict[str, Array]:
        """What there is, by the names that files use; the kernel as matrices."""
        found = {
            name: getattr(self, name) for name in ("kernel", "bias", "outputs", "offsets", "q")
        }
        if self.factors is not None:
            found["kernel"] = self.factors.values()
        return {name: values for name, values in found.items() if values is not None}


class ControlSpace:
    """Which controls there are, and how a distributed vector holds them.

    Args:
        space: Width space.
        levels: Depth levels.
        kernel: Whether the kernel is a control.
        bias: Whether the bias is a control.
        outputs: Number K of learned outputs; 0 where the output layer is given.
        mask: Which neurons may connect, 0/1 in file order, shape (n_nodes, n_nodes); None: all.
        bounds: Lowest and highest nodal value of kernel and bias, by name, possibly infinite.
        groups: The groups over which the samples, and with them the pieces of a width rank's part
            of a vector, are distributed; None: there is one.
    """

    def __init__(
        self,
        space: WidthSpace,
        levels: DepthLevels,
        *,
        kernel: bool = True,
        bias: bool = True,
        outputs: int = 0,
        mask: Array | None = None,
        bounds: Mapping[str, tuple[float, float]] | None = None,
        groups: SampleGroups | None = None,
    ) -> None:
        self.space = space
        self.groups = groups or SampleGroups.alone(space.comm)
        self.levels = levels
        self.outputs = outputs
        self._mask_in_file_order = mask
        n, N, count = space.n_local, space.n_nodes, levels.count
        self.mask = local_mask(space, mask) if kernel and mask is not None else None
        """Where the kernel may differ from 0, [y, x], (n_nodes, n_local); None: everywhere."""
        entries = N * n if self.mask is None else int(self.mask.sum())
        sizes = {
            "kernel": count * entries if kernel else 0,
            "bias": count * n if bias else 0,
            "outputs": outputs * n,
            "offsets": outputs if space.comm.rank == 0 else 0,
        }
        ends = np.cumsum([0, *sizes.values()])
        self._rows = {
            name: slice(int(a), int(b))
            for name, a, b in zip(sizes, ends[:-1], ends[1:], strict=True)
        }
        """The blocks of the numbers of this rank's width rows, of which a piece is its own."""
        piece = self.groups.share(int(ends[-1]))
        self.blocks = {name: _within(block, piece) for name, block in self._rows.items()}
        """This rank's part of each block of the vector."""
        self.has_kernel, self.has_bias = kernel, bias
        self.n_rows = int(ends[-1])
        """Numbers of this rank's width rows, on all ranks that share them."""
        self.n_local = piece.stop - piece.start
        self.n_global = int(self.sum(np.array(self.n_local)))
        present = {"kernel": kernel, "bias": bias}
        self.bounded = {
            name: pair
            for name, pair in (bounds or {}).items()
            if present[name] and np.any(np.isfinite(pair))
        }
        """Lowest and highest nodal value of the controls that have bounds, by name."""

    def on(self, levels: DepthLevels) -> ControlSpace:
        """The same controls on other depth levels."""
        return ControlSpace(
            self.space,
            levels,
            kernel=self.has_kernel,
            bias=self.has_bias,
            outputs=self.outputs,
            mask=self._mask_in_file_order,
            bounds=self.bounded,
            groups=self.groups,
        )

    @property
    def comm(self) -> MPI.Comm:
        """The communicator over which vectors are distributed."""
        return self.groups.comm

    def sum(self, local: Array) -> Array:
        """Sum over ranks of small arrays, such as sums over a local vector (collective)."""
        if self.comm.size == 1:
            return np.asarray(local)
        total = np.array(local)
        self.comm.Allreduce(MPI.IN_PLACE, total)
        return total

    @cached_property
    def bias_scale(self) -> Array:
        """sqrt(omega h_x), shape (levels, n_local): coordinates are this times nodal values."""
        root = self.space.sqrt_weights[self.space.owned]
        return np.sqrt(self.levels.weights)[:, None] * root

    @cached_property
    def box(self) -> Box | None:
        """The bounds in coordinates; None where there are none. Learned outputs have none."""
        if not self.bounded:
            return None
        sides = []
        for side, free in enumerate((-np.inf, np.inf)):
            bound = self.constant(**{name: pair[side] for name, pair in self.bounded.items()})
            for name, block in self.blocks.items():
                if name not in self.bounded:
                    bound[block] = free
            sides.append(bound)
        return Box(*sides)

    def project(self, vector: Array) -> Array:
        """The nearest local vector within the bounds; the vector itself where there are none."""
        return vector if self.box is None else self.box.project(vector)

    @cached_property
    def scale(self) -> Array:
        """What nodal values are multiplied by to give coordinates, a local vector."""
        outer = ControlValues(
            outputs=np.ones((self.outputs, self.space.n_nodes)), offsets=np.ones(self.outputs)
        )
        return self.constant(1.0, 1.0) + self.coordinates(outer)

    def split(self, vector: NDArray[Any]) -> ControlParts:
        """The parts of a local vector, of all of this rank's width rows (collective).

        Views where there is one group, but for a masked kernel and the offsets.
        """
        vector = self.groups.gather(vector, self.n_rows)
        space, count = self.space, self.levels.count
        kernel = bias = outputs = offsets = None
        if self.has_kernel:
            kernel = vector[self._rows["kernel"]]
            everywhere = (count, space.n_nodes, space.n_local)
            if self.mask is None:
                kernel = kernel.reshape(everywhere)
            else:
                packed, kernel = kernel, np.zeros(everywhere, vector.dtype)
                self.place(packed, kernel)
        if self.has_bias:
            bias = vector[self._rows["bias"]].reshape(count, space.n_local)
        if self.outputs:
            outputs = vector[self._rows["outputs"]].reshape(self.outputs, space.n_local)
            offsets = np.array(vector[self._rows["offsets"]])
            if space.comm.size > 1:
                offsets = space.comm.bcast(offsets, root=0)
        return ControlParts(kernel, bias, outputs, offsets)

    @cached_property
    def _unmasked(self) -> NDArray[np.intp]:
        """Where the mask has its entries; an index is faster than the mask."""
        assert self.mask is not None, "there is no mask"
        return np.flatnonzero(self.mask)

    def entries(self, kernel: Array) -> Array:
        """The entries of a kernel [level, y, x] that are controls, as a vector holds them."""
        if self.mask is None:
            return kernel.reshape(-1)
        return np.take(kernel.reshape(len(kernel), -1), self._unmasked, axis=1).reshape(-1)

    def place(self, entries: Array, kernel: Array) -> None:
        """Write such entries into a contiguous kernel [level, y, x], whose others stay."""
        assert kernel.flags.c_contiguous, "a reshaped copy would be written to"
        where = slice(None) if self.mask is None else self._unmasked
        levels = entries.reshape(len(kernel), -1)
        for level, values in zip(kernel.reshape(len(kernel), -1), levels, strict=True):
            level[where] = values

    def room(self) -> ControlParts:
        """Parts to be filled, for `join` or `join_sums`, which then have little to copy."""
        vector, mask = np.empty(self.n_rows), self.mask
        everywhere = (self.levels.count, self.space.n_nodes, self.space.n_local)
        kernel = bias = outputs = None
        if self.has_kernel:
            block = vector[self._rows["kernel"]]
            kernel = block.reshape(everywhere) if mask is None else np.empty(everywhere)
        if self.has_bias:
            bias = vector[self._rows["bias"]].reshape(self.levels.count, -1)
        if self.outputs:
            outputs = vector[self._rows["outputs"]].reshape(self.outputs, -1)
        return ControlParts(kernel, bias, outputs, None, vector)

    def join(self, parts: ControlParts) -> Array:
        """The local vector of the given parts; masked entries of the kernel are left out."""
        return self.groups.piece(self._packed(parts))

    def join_sums(self, parts: ControlParts) -> Array:
        """The local vector of parts that are sums over samples, from every group's (collective)."""
        return self.groups.scatter_sum(self._packed(parts))

    def _packed(self, parts: ControlParts) -> Array:
        there = parts.vector is not None
        vector = np.empty(self.n_rows) if parts.vector is None else parts.vector
        if parts.kernel is not None and self.has_kernel and not (there and self.mask is None):
            vector[self._rows["kernel"]] = self.entries(parts.kernel)
        if parts.bias is not None and self.has_bias and not there:
            vector[self._rows["bias"]] = parts.bias.reshape(-1)
        if parts.outputs is not None and parts.offsets is not None and self.outputs:
            if not there:
                vector[self._rows["outputs"]] = parts.outputs.reshape(-1)
            if self.space.comm.rank == 0:
                vector[self._rows["offsets"]] = parts.offsets
        return vector

    def coordinates(self, values: ControlValues) -> Array:
        """The local vector of controls given by nodal values; absent parts are zero."""
        space, omega = self.space, self.levels.weights
        root = space.sqrt_weights[space.owned]
        kernel: Array | None = None
        bias: Array | None = None
        outputs: Array | None = None
        offsets: Array | None = None
        if self.has_kernel:
            if values.kernel is not None:
                kernel = kernel_coefficients(space, omega, values.kernel)
            elif values.factors is not None:
                kernel = values.factors.coefficients(space, omega)
            else:
                kernel = np.zeros((self.levels.count, space.n_nodes, space.n_local))
        if self.has_bias:
            bias = np.zeros((self.levels.count, space.n_local))
            if values.bias is not None:
                bias = space.from_file_order(values.bias) * self.bias_scale
        if self.outputs:
            outputs = np.zeros((self.outputs, space.n_local))
            offsets = np.zeros(self.outputs)
            if values.outputs is not None:
                outputs = space.from_file_order(values.outputs) * root
            if values.offsets is not None:
                offsets = values.offsets
        return self.join(ControlParts(kernel, bias, outputs, offsets))

    def values(self, vector: Array) -> ControlValues:
        """Nodal values in file order, on every rank (collective); None where not a control."""
        space, omega = self.space, self.levels.weights
        parts = self.split(vector)
        root = space.sqrt_weights[space.owned]
        kernel = bias = outputs = None
        if parts.kernel is not None:
            kernel = kernel_values(space, omega, parts.kernel)
        if parts.bias is not None:
            bias = space.to_file_order(parts.bias / self.bias_scale)
        if parts.outputs is not None:
            outputs = space.to_file_order(parts.outputs / root)
        return ControlValues(kernel, bias, outputs, parts.offsets)

    def dot(self, a: Array, b: Array) -> float:
        """L2 inner product of two controls (collective)."""
        return float(self.sum(np.dot(a, b)))

    def norm(self, a: Array) -> float:
        """L2 norm of a control (collective)."""
        return float(np.sqrt(self.dot(a, a)))

    def random(self, seed: int, scale: float = 1.0) -> Array:
        """Standard normal values times scale: kernel [level, x, y], then bias, in file order."""
        rng = np.random.default_rng(seed)
        count, N = self.levels.count, self.space.n_nodes
        kernel = scale * rng.standard_normal((count, N, N)) if self.has_kernel else None
        bias = scale * rng.standard_normal((count, N)) if self.has_bias else None
        return self.coordinates(ControlValues(kernel, bias))

    def random_direction(self, seed: int) -> Array:
        """A random control of norm 1 with all parts, the same on any number of ranks."""
        rng = np.random.default_rng(seed)
        N, count, K = self.space.n_nodes, self.levels.count, self.outputs
        direction = self.coordinates(
            ControlValues(
                rng.standard_normal((count, N, N)) if self.has_kernel else None,
                rng.standard_normal((count, N)) if self.has_bias else None,
                rng.standard_normal((K, N)) if K else None,
                rng.standard_normal(K) if K else None,
            )
        )
        direction /= self.norm(direction)
        return direction

    def constant(self, kernel: float = 0.0, bias: float = 0.0) -> Array:
        """The control a = kernel, b = bias; learned outputs and offsets are zero."""
        space, K = self.space, self.outputs
        omega, root = np.sqrt(self.levels.weights), space.sqrt_weights[space.owned]
        kernel_part = bias_part = None
        if self.has_kernel:
            scale = kernel * space.sqrt_weights[:, None] * root
            kernel_part = omega[:, None, None] * scale
        if self.has_bias:
            bias_part = bias * self.bias_scale
        outputs, offsets = np.zeros((K, space.n_local)), np.zeros(K)
        return self.join(ControlParts(kernel_part, bias_part, outputs, offsets))

    def any_rank(self, condition: bool) -> bool:
        """Whether the condition holds on some rank (collective)."""
        comm = self.comm
        return bool(comm.allreduce(condition, op=MPI.LOR)) if comm.size > 1 else condition


def _within(block: slice, piece: slice) -> slice:
    """The part of a block that lies in a piece, numbered from the piece's start."""
    start, stop = (min(max(end, piece.start), piece.stop) for end in (block.start, block.stop))
    return slice(start - piece.start, stop - piece.start)


def local_mask(space: WidthSpace, mask: Array) -> NDArray[np.bool_]:
    """This rank's part [y, x], shape (n_nodes, n_local), of a 0/1 mask (x, y) in file order."""
    rows = space.from_file_order(np.asarray(mask), axis=0)[:, space.file_position]
    return np.ascontiguousarray(rows.T != 0)
