"""The lowest eigenvalue of the reduced Hessian in the L2 inner product (theory.md section 4).

In L2-orthonormal coordinates the Hessian is lambda I plus a compact operator, so its spectrum
clusters at the Tikhonov weights from which a negative eigenvalue stands apart: Lanczos finds it
in few products.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from slepc4py import SLEPc

from fem_dnn.problem import Linearisation
from fem_dnn.solvers.petsc import PetscProblem, original_errors

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


def lowest_eigenpair(
    petsc: PetscProblem,
    at: Linearisation,
    *,
    tolerance: float = 1e-6,
    max_restarts: int = 50,
    start: Array | None = None,
) -> LowestEigenpair | None:
    """Lowest eigenpair of the Hessian at a linearisation, by SLEPc's Krylov-Schur method.

    Args:
        petsc: The learning problem for PETSc.
        at: Linearisation point.
        tolerance: Residual |H v - value v| at which the pair is accepted.
        max_restarts: Limit on restarts.
        start: Start vector; None: a random one, the same on any number of ranks.

    Returns:
        The pair, or None if the limit was reached first.
    """
    controls = petsc.problem.controls
    eps = SLEPc.EPS().create(petsc.comm)
    vector = petsc.vector(controls.random_direction(0) if start is None else start)
    try:
        eps.setOperators(petsc.linearise_hessian(at))
        eps.setProblemType(SLEPc.EPS.ProblemType.HEP)
        eps.setWhichEigenpairs(SLEPc.EPS.Which.SMALLEST_REAL)
        eps.setDimensions(nev=1, ncv=min(24, controls.n_global))
        eps.setTolerances(tol=tolerance, max_it=max_restarts)
        eps.setConvergenceTest(SLEPc.EPS.Conv.ABS)
        eps.setInitialSpace(vector)
        with original_errors():
            eps.solve()
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


def signed_lowest_eigenpair(
    petsc: PetscProblem, at: Linearisation, threshold: float
) -> LowestEigenpair | None:
    """Lowest eigenpair, only as accurate as its sign needs.

    Args:
        petsc: The learning problem for PETSc.
        at: Linearisation point.
        threshold: Eigenvalues within this distance of zero count as zero.

    Returns:
        A pair whose value exceeds four times its residual or is resolved to a tenth of the
        threshold; None if that could not be reached.
    """
    pair: LowestEigenpair | None = None
    for tolerance in threshold * np.array([100.0, 10.0, 1.0, 0.1]):
        start = None if pair is None else pair.vector
        pair = lowest_eigenpair(petsc, at, tolerance=float(tolerance), start=start)
        if pair is None or abs(pair.value) > 4 * pair.residual:
            break
    return pair
