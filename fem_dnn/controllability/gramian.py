"""The controllability Gramian G = L L' of the linearised state equation (theory.md section 6).

L maps controls to outputs (`end_point`). Its range is that of G: eigenvectors of G with eigenvalue
0 are the directions of the outputs that no small change of the controls moves. A change by a unit
eigenvector of eigenvalue m takes a control of squared L2 norm 1 / m.

Samples do not see each other in the adjoint equation, so one adjoint sweep per output function k
(W_k, or a node) serves all samples at once, and with q^k of the sweeps

    G_{(k,s),(l,r)} = sqrt(w_s w_r) sum_levels omega int_Y q^k_s q^l_r K_sr dx,
    K_sr = int m(x, y) f_s f_r dy + 1    (the terms of the controls that are trained).

Larger Gramians than `DENSE` act by sweeps, and SLEPc finds both ends of the spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray
from petsc4py import PETSc
from slepc4py import SLEPc

from fem_dnn.controllability.end_point import EndPointMap
from fem_dnn.gram_factor import GramFactor
from fem_dnn.problem import Linearisation
from fem_dnn.solvers.petsc import PREFIX, original_errors, read_options

Array = NDArray[np.float64]

DENSE = 1500
"""Outputs up to which the Gramian is made and decomposed whole."""

MOST_ENTRIES = 2**25
"""Numbers per rank that the sweeps of a whole Gramian may hold."""

UNREACHABLE = 1e-12
"""Eigenvalue, relative to the largest, below which a direction counts as unreachable: round-off."""


ACCURACY = 1e-6
"""Of the lowest eigenvalues of a large Gramian, relative to the largest."""


@dataclass(frozen=True, eq=False)
class GramianSpectrum:
    """Eigenvalues of the Gramian, and the directions that are hardest to reach.

    Attributes:
        eigenvalues: Ascending; all of them, or of a large Gramian the lowest and the largest.
        directions: Orthonormal eigenvectors of the lowest ones, in coordinates, in file order:
            (found, samples, outputs), the outputs being nodes or the K of the loss.
        outputs: How many outputs of all samples there are.
        rank_bound: What the number of controls allows the rank to be, at most.
        residual: |G v - m v| of the lowest pair, inf where the eigensolver has not found it.
    """

    eigenvalues: Array
    directions: Array
    outputs: int
    rank_bound: int
    residual: float

    @property
    def complete(self) -> bool:
        """Whether all eigenvalues are known."""
        return len(self.eigenvalues) == self.outputs

    @property
    def largest(self) -> float:
        """The largest eigenvalue."""
        return float(self.eigenvalues[-1]) if len(self.eigenvalues) else np.nan

    @property
    def lowest(self) -> float:
        """The lowest eigenvalue; 0 where there are more outputs than controls."""
        if self.rank_bound < self.outputs:
            return 0.0
        return max(float(self.eigenvalues[0]), 0.0) if np.isfinite(self.residual) else np.nan

    @property
    def ratio(self) -> float:
        """Lowest over largest eigenvalue: the inverse of the condition number; 0 of G = 0."""
        return 0.0 if self.largest == 0 else self.lowest / self.largest

    @property
    def unreachable(self) -> int:
        """Directions that cannot be reached; of a large Gramian there may be more."""
        few = int(np.sum(self.eigenvalues <= UNREACHABLE * self.largest))
        return max(few, self.outputs - self.rank_bound)


def gramian(at: Linearisation) -> Array:
    """G whole, rows and columns (sample, output) in file order, on every rank (collective).

    Args:
        at: The learning problem at the control around which it is linearised.
    """
    ends, problem, space = EndPointMap(at), at.problem, at.problem.network.space
    controls, levels = problem.controls, problem.network.levels
    S, outputs = ends.samples, ends.outputs
    h = np.sqrt(space.local_weights)[:, None]
    sweeps = np.stack([ends.adjoint(_terminal(ends, k)).q for k in range(outputs)])
    G: Array = np.zeros((S * outputs, S * outputs))
    for level, omega in enumerate(levels.weights):
        if not controls.has_kernel and not controls.has_bias:
            break
        gathered = at.state.gathered
        f: Array = np.zeros((space.n_nodes, S)) if gathered is None else gathered[level]
        M = GramFactor.of(controls, 1.0, 1.0, f).matrix
        # (nodes, samples, outputs)
        Q: Array = np.sqrt(omega) * (h * sweeps[:, level]).transpose(1, 2, 0)
        if len(M) == 1:
            flat = Q.reshape(len(Q), -1)
            K = np.repeat(np.repeat(M[0] @ M[0].T, outputs, 0), outputs, 1)
            G += (flat.T @ flat) * K
        else:
            for x in range(len(Q)):
                moved = (M[x].T[:, :, None] * Q[x]).reshape(M.shape[2], -1)
                G += moved.T @ moved
    G = space.sum(G)
    if controls.outputs:
        end = at.state.ends[-1]
        inner = space.sum((end * space.local_weights[:, None]).T @ end) + 1.0
        G += np.kron(inner, np.eye(outputs))
    root = np.repeat(ends.root, outputs)
    weighted: Array = G * root[:, None] * root
    return weighted


def _terminal(ends: EndPointMap, output: int) -> Array:
    """p(T) of all samples that one output function drives: W_k, or a node's in coordinates."""
    space = ends.space
    if ends.layer is not None:
        functions = ends.layer.functions[output]
    else:
        at = space.file_position[space.owned] == output
        functions = at / space.sqrt_weights[space.owned]
    return np.repeat(functions[:, None], ends.samples, axis=1)


def gramian_spectrum(
    at: Linearisation, *, found: int = 4, dense: int = DENSE, max_restarts: int = 20
) -> GramianSpectrum:
    """Spectrum of the Gramian around a control (collective).

    Args:
        at: The learning problem at the control.
        found: Directions to keep.
        dense: Outputs up to which all eigenvalues are computed.
        max_restarts: Limit on restarts for the lowest ones of a large Gramian.
    """
    ends = EndPointMap(at)
    m, bound = ends.n_global, min(at.problem.controls.n_global, ends.n_global)
    held = ends.outputs * at.problem.network.levels.count * m // ends.space.comm.size
    held = held if ends.layer is None else held // ends.outputs * ends.space.n_nodes
    if m > dense or held > MOST_ENTRIES:
        return _both_ends(ends, found, bound, max_restarts)
    values, vectors = np.linalg.eigh(gramian(at))
    few = vectors.T[:found].reshape(-1, ends.samples, ends.outputs)
    return GramianSpectrum(values, few, m, bound, 0.0)


class _Gramian:
    """Context of a shell matrix."""

    def __init__(self, ends: EndPointMap) -> None:
        self.ends = ends

    def mult(self, _mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """y = L L' x."""
        y.array_w[:] = self.ends.apply(self.ends.transpose(x.array_r.copy()))

    multTranspose = mult  # noqa: N815 (the name PETSc calls)


def _both_ends(ends: EndPointMap, found: int, bound: int, restarts: int) -> GramianSpectrum:
    comm, sizes = ends.space.comm, (ends.n_local, ends.n_global)
    matrix = PETSc.Mat().createPython((sizes, sizes), _Gramian(ends), comm=comm)
    matrix.setOption(PETSc.Mat.Option.SYMMETRIC, True)
    matrix.setUp()
    try:
        highest = _krylov(ends, matrix, SLEPc.EPS.Which.LARGEST_REAL, 1, 1e-6, restarts)
        if not highest:
            return GramianSpectrum(np.zeros(0), np.zeros((0, 0, 0)), ends.n_global, bound, np.inf)
        accuracy = ACCURACY * highest[0][0]
        lowest = _krylov(ends, matrix, SLEPc.EPS.Which.SMALLEST_REAL, found, accuracy, restarts)
    finally:
        matrix.destroy()
    pairs = [*sorted(lowest, key=lambda pair: pair[0]), *highest]
    return GramianSpectrum(
        np.array([value for value, _ in pairs]),
        np.array([_in_file_order(ends, v) for _, v in pairs[:-1]]),
        ends.n_global,
        bound,
        _residual(ends, *pairs[0]) if lowest else np.inf,
    )


def _krylov(
    ends: EndPointMap, matrix: PETSc.Mat, which: int, wanted: int, tolerance: float, restarts: int
) -> list[tuple[float, Array]]:
    """The pairs at one end of the spectrum, as far as they converge to an absolute tolerance."""
    eps = SLEPc.EPS().create(ends.space.comm)
    vector = matrix.createVecRight()
    pairs = []
    try:
        eps.setOperators(matrix)
        eps.setProblemType(SLEPc.EPS.ProblemType.HEP)
        eps.setWhichEigenpairs(which)
        eps.setDimensions(nev=wanted, ncv=min(max(40, 2 * wanted + 10), ends.n_global))
        eps.setTolerances(tol=tolerance, max_it=restarts)
        eps.setConvergenceTest(SLEPc.EPS.Conv.ABS)
        eps.setOptionsPrefix(PREFIX)
        read_options(eps)
        with original_errors():
            eps.solve()
        for i in range(min(eps.getConverged(), wanted)):
            value = float(eps.getEigenpair(i, vector).real)
            pairs.append((value, vector.array_r.copy()))
    finally:
        eps.destroy()
        vector.destroy()
    return pairs


def _residual(ends: EndPointMap, value: float, v: Array) -> float:
    """|G v - value v| (collective)."""
    off = ends.apply(ends.transpose(v)) - value * v
    return float(np.sqrt(ends.space.comm.allreduce(off @ off, op=MPI.SUM)))


def _in_file_order(ends: EndPointMap, v: Array) -> Array:
    """Coordinates of outputs as (samples, outputs), on every rank (collective)."""
    if ends.layer is None:
        return ends.space.to_file_order(v.reshape(-1, ends.samples), axis=0).T
    whole = ends.space.comm.bcast(v, root=0)
    return np.ascontiguousarray(whole.reshape(ends.outputs, ends.samples).T)
