"""The lowest eigenvalue of the reduced Hessian in the L2 inner product (theory.md section 4).

In L2-orthonormal coordinates the Hessian is lambda I plus a compact operator, so its spectrum
clusters at the Tikhonov weights from which a negative eigenvalue stands apart: Lanczos finds it
in few products.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray
from slepc4py import SLEPc

from fem_dnn.problem import Linearisation
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers.petsc import PREFIX, PetscProblem, original_errors

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LowestEigenpair:
    """An approximate lowest eigenpair.

    Attributes:
        value: Rayleigh quotient of `vector`: an upper bound of the lowest eigenvalue.
        vector: Its unit vector (local part).
        residual: |H v - value v|: some eigenvalue lies within this distance of `value`.
    """

    value: float
    vector: Array
    residual: float


MEMORY_BYTES = 2e9
"""Memory that the Krylov basis may take per rank."""


def lowest_eigenpair(
    petsc: PetscProblem,
    at: Linearisation,
    *,
    tolerance: float = 1e-6,
    max_restarts: int = 50,
) -> LowestEigenpair | None:
    """Lowest eigenpair of the Hessian at a linearisation, by SLEPc's Krylov-Schur method.

    Args:
        petsc: The learning problem for PETSc.
        at: Linearisation point.
        tolerance: Residual |H v - value v| at which the pair is accepted.
        max_restarts: Limit on restarts.

    Returns:
        The pair, or None if the limit was reached first.
    """
    return _krylov_schur(petsc, at, SLEPc.EPS.Conv.ABS, tolerance, max_restarts)


def signed_lowest_eigenpair(
    petsc: PetscProblem, at: Linearisation, threshold: float
) -> LowestEigenpair | None:
    """Lowest eigenpair, only as accurate as its sign needs.

    Args:
        petsc: The learning problem for PETSc.
        at: Linearisation point.
        threshold: Eigenvalues within this distance of zero count as zero.

    Returns:
        A pair whose residual is a tenth of its value or of the threshold; None if that could not
        be reached.
    """
    pair = _krylov_schur(petsc, at, SLEPc.EPS.Conv.REL, 0.1, max_restarts=10)
    return pair or lowest_eigenpair(petsc, at, tolerance=0.1 * threshold)


def _krylov_schur(
    petsc: PetscProblem,
    at: Linearisation,
    convergence: SLEPc.EPS.Conv,
    tolerance: float,
    max_restarts: int,
) -> LowestEigenpair | None:
    controls = petsc.problem.controls
    # A long basis saves products: 120 for the digits, where one of 24 vectors took 400.
    affordable = int(MEMORY_BYTES / (8 * max(controls.n_local, 1)))
    length = controls.space.comm.allreduce(min(80, max(24, affordable)), op=MPI.MIN)
    eps = SLEPc.EPS().create(petsc.comm)
    vector = petsc.vector(controls.random_direction(0))
    try:
        eps.setOperators(petsc.linearise_hessian(at))
        eps.setProblemType(SLEPc.EPS.ProblemType.HEP)
        eps.setWhichEigenpairs(SLEPc.EPS.Which.SMALLEST_REAL)
        eps.setDimensions(nev=1, ncv=min(length, controls.n_global))
        eps.setTolerances(tol=tolerance, max_it=max_restarts)
        eps.setConvergenceTest(convergence)
        eps.setInitialSpace(vector)
        eps.setOptionsPrefix(PREFIX)
        eps.setFromOptions()
        try:
            with original_errors():
                eps.solve()
        except SlabFailure:
            return None
        if not eps.getConverged():
            return None
        eps.getEigenvector(0, vector)
        v = vector.array_r.copy()
    finally:
        vector.destroy()
        eps.destroy()
    v /= controls.norm(v)
    Hv = at.hessian_action(v)
    value = controls.dot(v, Hv)
    return LowestEigenpair(value, v, controls.norm(Hv - value * v))
