"""The inertia of the Hessian near a point where it is known: SLEPc's Davidson method, warm.

Eigenvectors change little from one point of a branch to the next. Those known, and a random one for
what was not among them, span the generalised Davidson method's first space, which R''^{-1}
preconditions; it needs a fraction of a cold start's products. A cold start (`inertia`) has the last
word wherever an eigenvalue has changed its sign.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from petsc4py import PETSc
from slepc4py import SLEPc

from fem_dnn.inertia import Inertia, Kind, inertia
from fem_dnn.problem import Linearisation
from fem_dnn.riesz import RieszMap
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers.curvature import Eigenpair, choose_davidson
from fem_dnn.solvers.petsc import PREFIX, original_errors, read_options

Array = NDArray[np.float64]

BASIS = 24
MAX_STEPS = 150
"""Length of the basis between restarts, beside the pairs that are wanted; steps in all."""

SMALL = 40
"""Hessians of fewer controls are diagonalised whole."""


def spectrum_near(at: Linearisation, known: Inertia) -> Inertia:
    """The inertia at a linearisation, from that of a point near by (collective).

    Args:
        at: Linearisation, of a problem without bounds.
        known: Of the point near by.

    Raises:
        UnresolvedSpectrum: SLEPc did not converge.
    """
    count = known.negative + known.zero + 1
    controls = at.problem.controls
    if known.kind == "maximum" or controls.n_global < max(SMALL, 4 * count):
        return inertia(at)
    pairs = _davidson(at, known, count)
    tolerance = known.tolerance
    zero = sum(abs(pair.value) <= max(tolerance, pair.residual) for pair in pairs)
    negative = sum(pair.value < -max(tolerance, pair.residual) for pair in pairs)
    # The same, or one of the signs known has become zero.
    gone = (known.negative - negative, zero - known.zero)
    if len(pairs) < count or gone not in ((0, 0), (0, 1), (1, 1)):
        return inertia(at)
    kind: Kind = "degenerate" if zero else "saddle" if negative else "minimum"
    return Inertia(kind, negative, zero, pairs, tolerance)


class _Hessian:
    """Context of the shell matrix H, and of the preconditioner R''^{-1}."""

    def __init__(self, at: Linearisation) -> None:
        self.at, self.riesz = at, RieszMap(at.problem.regularization)

    def mult(self, _mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """y = H x."""
        y.array_w[:] = self.at.hessian_action(np.array(x.array_r))

    multTranspose = mult  # noqa: N815 (the name PETSc calls)

    def apply(self, _pc: PETSc.PC, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """y = T T' x."""
        y.array_w[:] = self.riesz.apply(self.riesz.apply_transpose(np.array(x.array_r)))


def _davidson(at: Linearisation, known: Inertia, count: int) -> list[Eigenpair]:
    """The lowest pairs, ascending; fewer than asked for where they do not converge."""
    controls, comm = at.problem.controls, at.problem.network.space.comm
    size = controls.n_local, controls.n_global
    hessian = _Hessian(at)
    matrix = PETSc.Mat().createPython((size, size), hessian, comm=comm)
    matrix.setOption(PETSc.Mat.Option.SYMMETRIC, True)
    matrix.setUp()
    starts = [pair.vector for pair in known.pairs] + [controls.random_direction(0)]
    vectors = []
    for start in starts:
        vector = PETSc.Vec().createMPI(size, comm=comm)
        vector.array_w[:] = start
        vectors.append(vector)
    eps = SLEPc.EPS().create(comm)
    try:
        eps.setOperators(matrix)
        eps.setProblemType(SLEPc.EPS.ProblemType.HEP)
        eps.setWhichEigenpairs(SLEPc.EPS.Which.SMALLEST_REAL)
        choose_davidson(eps, hessian)
        eps.setDimensions(nev=count, ncv=min(BASIS + 2 * count, controls.n_global - 1))
        eps.setTolerances(tol=known.tolerance, max_it=MAX_STEPS)
        eps.setConvergenceTest(SLEPc.EPS.Conv.ABS)
        eps.setInitialSpace(vectors)
        eps.setOptionsPrefix(PREFIX)
        read_options(eps)
        with original_errors():
            eps.solve()
        found = []
        for number in range(min(eps.getConverged(), count)):
            value = float(eps.getEigenvalue(number).real)
            eps.getEigenvector(number, vectors[0])
            vector = np.array(vectors[0].array_r)
            error = eps.computeError(number, SLEPc.EPS.ErrorType.ABSOLUTE)
            found.append(Eigenpair(value, vector / controls.norm(vector), float(error)))
    except SlabFailure:
        return []
    finally:
        for thing in (*vectors, eps, matrix):
            thing.destroy()
    return sorted(found, key=lambda pair: pair.value)
