"""The regulariser R(a, b) of theory.md section 2, in L2-orthonormal coordinates.

    R = (1/2) sum over kernel and bias of lambda |c|^2 + gamma |d_t c|^2 + eta |grad_x c|^2
        + (lambda_out / 2)(|W|^2 + |m|^2)

(the width gradient of a kernel is that by x and by y). R is quadratic: R(c) = (1/2) <c, R'' c>, and
everything here is the action of R''. Tikhonov terms are diagonal in these coordinates; derivatives
are the consistent discontinuous forms of `derivative_forms`. A masked kernel is extended by zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from petsc4py import PETSc

from fem_dnn.collective import on_root
from fem_dnn.controls import ControlParts, ControlSpace
from fem_dnn.depth import DepthLevels
from fem_dnn.derivative_forms import depth_form, width_form
from fem_dnn.level_coupling import LevelCoupling
from fem_dnn.native.blas import add_multiple
from fem_dnn.team import share
from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Weights:
    """Weights of one control's terms.

    Attributes:
        tikhonov: lambda, of |c|^2.
        depth: gamma, of |d_t c|^2.
        width: eta, of |grad c|^2.
    """

    tikhonov: float = 0.0
    depth: float = 0.0
    width: float = 0.0

    @property
    def smooth(self) -> bool:
        """Whether derivatives are penalised."""
        return self.depth > 0 or self.width > 0


class DerivativeForms:
    """The forms of derivatives on arrays of coordinates [level, ..., x], rows x distributed.

    Args:
        space: Width space.
        levels: Depth levels.
    """

    def __init__(self, space: WidthSpace, levels: DepthLevels) -> None:
        self.space, self.levels = space, levels

    @cached_property
    def depth(self) -> sparse.csr_array:
        """Omega^{-1/2} A_t Omega^{-1/2}, shape (levels, levels)."""
        scale = sparse.diags_array(1 / np.sqrt(self.levels.weights))
        return sparse.csr_array(scale @ depth_form(self.levels) @ scale)

    @cached_property
    def width(self) -> sparse.csr_array:
        """H^{-1/2} A_x H^{-1/2} in mesh order, shape (n_nodes, n_nodes), whole on every rank."""
        space = self.space
        arrays = space.mesh_arrays
        form = on_root(space.comm, lambda: width_form(arrays, space.degree))
        scale = sparse.diags_array(1 / space.sqrt_weights)
        form = form[space.file_position][:, space.file_position]
        return sparse.csr_array(scale @ form @ scale)

    @cached_property
    def _rows(self) -> PETSc.Mat:
        """This rank's rows of `width`, as a PETSc matrix."""
        n, N = self.space.n_local, self.space.n_nodes
        rows = self.width[self.space.owned]
        index = PETSc.IntType
        csr = (rows.indptr.astype(index), rows.indices.astype(index), rows.data)
        return PETSc.Mat().createAIJ(((n, N), (n, N)), csr=csr, comm=self.space.comm)

    def in_depth(self, weights: Weights) -> sparse.csr_array:
        """lambda I plus gamma times the depth form, shape (levels, levels)."""
        form = weights.tikhonov * sparse.eye_array(self.levels.count)
        if weights.depth:
            form = form + weights.depth * self.depth
        return sparse.csr_array(form)

    def along_width(self, c: Array) -> Array:
        """The width form applied to x, and to y where c is a kernel [level, y, x] (collective)."""
        n, N = self.space.n_local, self.space.n_nodes
        columns = int(np.prod(c.shape[:-1], dtype=np.int64))
        # Column by column is how PETSc stores dense matrices: no copy, and it exchanges only what
        # the other ranks' rows need.
        comm = self.space.comm
        values = PETSc.Mat().createDense(
            ((n, N), (None, columns)), array=np.ascontiguousarray(c).reshape(-1), comm=comm
        )
        product = self._rows.matMult(values)
        result = product.getDenseArray().T.reshape(c.shape).copy()
        for thing in (values, product):
            thing.destroy()
        if c.ndim == 3:
            for level, kernel in zip(result, c, strict=True):
                level += self.width @ kernel
        return result


@dataclass(frozen=True, eq=False)
class Regularization:
    """R and its Hessian R''.

    Attributes:
        controls: Control space.
        kernel, bias: lambda_a, lambda_b.
        outputs: lambda_out, on learned outputs and offsets.
        given: R of the kernel and bias that are given, not trained: a constant.
        kernel_depth, bias_depth: gamma_a, gamma_b.
        kernel_width, bias_width: eta_a, eta_b.
    """

    controls: ControlSpace
    kernel: float
    bias: float
    outputs: float = 0.0
    given: float = 0.0
    kernel_depth: float = 0.0
    bias_depth: float = 0.0
    kernel_width: float = 0.0
    bias_width: float = 0.0

    @cached_property
    def forms(self) -> DerivativeForms:
        """The forms of derivatives."""
        return DerivativeForms(self.controls.space, self.controls.levels)

    def reweighted(self, **weights: float) -> Regularization:
        """The same with other weights, by the names of the attributes; the forms are shared."""
        changed = replace(self, **weights)  # type: ignore[arg-type]
        vars(changed)["forms"] = self.forms
        return changed

    @cached_property
    def tikhonov(self) -> Mapping[str, float]:
        """lambda of each block of the control vector."""
        return {
            "kernel": self.kernel,
            "bias": self.bias,
            "outputs": self.outputs,
            "offsets": self.outputs,
        }

    @property
    def weights(self) -> list[float]:
        """Tikhonov weights of the controls that there are."""
        controls = self.controls
        present = (controls.has_kernel, controls.has_bias, controls.outputs > 0)
        weights = (self.kernel, self.bias, self.outputs)
        return [w for w, there in zip(weights, present, strict=True) if there]

    @property
    def least_weight(self) -> float | None:
        """The smallest of these weights that are positive; None: no control is penalised."""
        return min((w for w in self.weights if w > 0), default=None)

    @cached_property
    def terms(self) -> Mapping[str, Weights]:
        """The weights of kernel and bias."""
        return {
            "kernel": Weights(self.kernel, self.kernel_depth, self.kernel_width),
            "bias": Weights(self.bias, self.bias_depth, self.bias_width),
        }

    @cached_property
    def smooth(self) -> Mapping[str, Weights]:
        """The controls whose derivatives are penalised, by name of their block."""
        present = {"kernel": self.controls.has_kernel, "bias": self.controls.has_bias}
        return {name: w for name, w in self.terms.items() if present[name] and w.smooth}

    @cached_property
    def _couplings(self) -> Mapping[str, LevelCoupling]:
        """What acts on the levels of kernel and bias."""
        in_depth = self.forms.in_depth
        return {name: LevelCoupling(in_depth(weights)) for name, weights in self.terms.items()}

    def _apply(self, name: str, c: Array) -> Array:
        """R'' on a kernel [level, y, x] or a bias [level, x] (collective)."""
        result = np.zeros(c.shape)
        self._couplings[name].add(c, result)
        weight = self.terms[name].width
        if weight:
            result += weight * self.forms.along_width(c)
        return result

    def _of_arrays(self, control: Array) -> Mapping[str, Array]:
        """R'' on those blocks of a control vector for which it takes whole arrays (collective).

        Width derivatives couple nodes; and where samples are dealt out over groups, a rank's piece
        of a block need not hold whole levels.
        """
        dealt_out = self.controls.groups.count > 1
        names = [name for name, weights in self.smooth.items() if weights.width or dealt_out]
        if not names:
            return {}
        parts = self.controls.split(control)
        products = {name: self._apply(name, getattr(parts, name)) for name in names}
        packed = self.controls.join(
            ControlParts(products.get("kernel"), products.get("bias"), None, None)
        )
        return {name: packed[self.controls.blocks[name]] for name in names}

    def action(self, control: Array) -> Array:
        """R'' applied to a control vector, which is also R'(control) (collective)."""
        result = np.zeros_like(control)
        self.add_action(control, result)
        return result

    def add_action(self, control: Array, out: Array) -> None:
        """Add R'' control, which is also R'(control), to a control vector (collective)."""
        of_arrays = self._of_arrays(control)
        for name, block in self.controls.blocks.items():
            if name in of_arrays:
                out[block] += of_arrays[name]
            elif name in self.smooth:
                self._couplings[name].add(control[block], out[block])
            else:
                self._add_multiple(self.tikhonov[name], control[block], out[block])

    @staticmethod
    def _add_multiple(factor: float, values: Array, out: Array) -> None:
        def work(part: slice) -> None:
            add_multiple(factor, values[part], out[part])

        share(work, len(values))

    def value(self, control: Array) -> float:
        """R at a control (collective)."""
        of_arrays, squares = self._of_arrays(control), 0.0
        for name, block in self.controls.blocks.items():
            c = control[block]
            if name in of_arrays:
                squares += float(np.dot(c, of_arrays[name]))
            elif name in self.smooth:
                squares += self._couplings[name].square(c)
            else:
                squares += self.tikhonov[name] * float(np.dot(c, c))
        return 0.5 * float(self.controls.sum(np.array(squares))) + self.given

    # An overflow shows in the number, which the caller judges.
    @np.errstate(over="ignore")
    def energy(self, name: str, c: Array) -> float:
        """R of a kernel [level, y, x] or a bias [level, x] in coordinates (collective).

        Args:
            name: kernel | bias: whose weights count.
            c: Its coordinates, whether it is a control or given.
        """
        weights = self.terms[name]
        product = self._apply(name, c) if weights.smooth else weights.tikhonov * c
        return 0.5 * float(self.controls.space.sum(np.array(np.sum(c * product))))
