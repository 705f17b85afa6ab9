"""The lowest eigenvalues of the reduced Hessian in the L2 inner product (theory.md section 4).

In L2-orthonormal coordinates the Hessian is lambda I plus a compact operator, so its spectrum
clusters at the Tikhonov weights from which a negative eigenvalue stands apart: Lanczos finds it
in few products. Where derivatives are penalised the spectrum is unbounded above, the more so the
finer the mesh: there the generalised Davidson method, preconditioned by the regulariser's inverse,
needs as many products on every mesh.

Where bounds hold some of the controls, it is the Hessian on the others that counts.

In Gram form it is the Hessian by q, and eigenvalues are those of H v = mu N v, where v' N v is the
L2 length of the change of kernel and bias, the states held (`gram.metric`). Their signs are those
of the dense Hessian's, because q leaves out only directions along which that is a Tikhonov weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from petsc4py import PETSc
from slepc4py import SLEPc

from fem_dnn.coordinates import Coordinates, CurvatureCoordinates, Metric
from fem_dnn.curvature_metric import curvature_coordinates, why_not
from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.riesz import RieszMap
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers.petsc import PREFIX, PetscProblem, original_errors, read_options

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Eigenpair:
    """An approximate eigenpair.

    Attributes:
        value: Rayleigh quotient of `vector`: of the lowest eigenvalue an upper bound.
        vector: Its vector (local part), of length 1 in L2 or in the problem's own metric.
        residual: |H v - value v|: some eigenvalue lies within this distance of `value`.
    """

    value: float
    vector: Array
    residual: float


SIGN_ACCURACY, AMONG_MANY = 0.1, 0.01
"""Residual, relative to an eigenvalue, at which its sign is believed; and where it is about a
Tikhonov weight: any vector has nearly that for most of its eigenvalues, so that on its way to a
lower one a residual may be small for a while."""

MEMORY_BYTES = 2e9
"""Memory that the Krylov basis may take per rank."""


def lowest_eigenpair(
    petsc: PetscProblem,
    at: Linearisation,
    *,
    free: Mask | None = None,
    tolerance: float = 1e-6,
    max_restarts: int = 50,
) -> Eigenpair | None:
    """Lowest eigenpair of the Hessian at a linearisation, by SLEPc.

    Args:
        petsc: The learning problem for PETSc.
        at: Linearisation point.
        free: Entries of the control vector that may change, one at least; None: all.
        tolerance: Residual |H v - value v| at which the pair is accepted.
        max_restarts: Limit on restarts.

    Returns:
        The pair, or None if the limit was reached first.
    """
    wanted = _Wanted(SLEPc.EPS.Conv.ABS, tolerance, max_restarts)
    return next(iter(_extreme(petsc, at, free, wanted)), None)


def signed_lowest_eigenpair(
    petsc: PetscProblem, at: Linearisation, threshold: float, *, free: Mask | None = None
) -> Eigenpair | None:
    """Lowest eigenpair, only as accurate as its sign needs.

    Args:
        petsc: The learning problem for PETSc.
        at: Linearisation point.
        threshold: Eigenvalues within this distance of zero count as zero.
        free: As in `lowest_eigenpair`.

    Returns:
        A pair whose residual is a tenth of its value or of the threshold; None if that could not
        be reached.
    """
    wanted = _Wanted(SLEPc.EPS.Conv.REL, SIGN_ACCURACY, max_restarts=30)
    pairs = _extreme(petsc, at, free, wanted)
    weight = at.problem.regularization.least_weight
    if pairs and weight is not None and pairs[0].value > (1 - 2 * SIGN_ACCURACY) * weight:
        pairs = _extreme(petsc, at, free, replace(wanted, tolerance=AMONG_MANY))
    if pairs:
        return pairs[0]
    return lowest_eigenpair(petsc, at, free=free, tolerance=0.1 * threshold)


def lowest_eigenpairs_beside(
    petsc: PetscProblem,
    at: Linearisation,
    known: Sequence[Array],
    count: int,
    *,
    tolerance: float = 1e-6,
    max_restarts: int = 50,
) -> list[Eigenpair]:
    """The lowest eigenpairs on the orthogonal complement of known eigenvectors, ascending.

    A Krylov space holds one eigenvector of a multiple eigenvalue; the complement holds the others.

    Args:
        petsc: The learning problem for PETSc.
        at: Linearisation point.
        known: Orthonormal eigenvectors (local parts), fewer than there are controls.
        count: How many pairs.
        tolerance: Residual at which a pair is accepted.
        max_restarts: Limit on restarts.

    Returns:
        As many as have converged within the limit, `count` at the most.
    """
    wanted = _Wanted(SLEPc.EPS.Conv.ABS, tolerance, max_restarts, count, known)
    return _extreme(petsc, at, None, wanted)


def highest_eigenpair(
    petsc: PetscProblem, at: Linearisation, *, tolerance: float = 1e-6, max_restarts: int = 50
) -> Eigenpair | None:
    """Highest eigenpair, its value a lower bound; arguments as in `lowest_eigenpair`."""
    which = SLEPc.EPS.Which.LARGEST_REAL
    wanted = _Wanted(SLEPc.EPS.Conv.ABS, tolerance, max_restarts, which=which)
    return next(iter(_extreme(petsc, at, None, wanted)), None)


@dataclass(frozen=True, eq=False)
class _Wanted:
    """Which eigenpairs, how accurately, and what SLEPc may spend on them."""

    convergence: SLEPc.EPS.Conv
    tolerance: float
    max_restarts: int
    count: int = 1
    beside: Sequence[Array] = ()
    which: SLEPc.EPS.Which = SLEPc.EPS.Which.SMALLEST_REAL


class _FreeHessian:
    """Context of a shell matrix: the Hessian on some entries of the control vector.

    Args:
        at: Linearisation point.
        free: The entries.
        metric: T, where vectors hold coordinates z of a metric: T' H T.
    """

    def __init__(self, at: Linearisation, free: Mask, metric: Metric | None = None) -> None:
        self.at, self.free, self.metric = at, free, metric

    def extend(self, part: Array) -> Array:
        """The control vector of these entries (of z), the others 0."""
        whole = np.zeros(len(self.free))
        whole[self.free] = part
        return whole if self.metric is None else self.metric.apply(whole)

    def product(self, part: Array) -> Array:
        """H part."""
        step = self.extend(part)
        product = self.at.hessian_action(step)
        if self.metric is not None:
            product = self.metric.apply_transpose(product + self.metric.unseen(step))
        return product[self.free]

    def mult(self, _mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """y = H x."""
        y.array_w[:] = self.product(x.array_r)

    multTranspose = mult  # noqa: N815 (the name PETSc calls)


class _Preconditioner:
    """Context of a PETSc preconditioner: T T' of coordinates for the Hessian, up to a factor."""

    def __init__(self, coordinates: Coordinates, hessian: _FreeHessian) -> None:
        self.coordinates, self.hessian = coordinates, hessian

    @classmethod
    def of(cls, hessian: _FreeHessian) -> _Preconditioner | None:
        """What is known of a Hessian: its curvature, or the regulariser's; None: nothing."""
        problem = hessian.at.problem
        if hessian.metric is not None:
            return None
        if why_not(problem) is None:
            return cls(curvature_coordinates(hessian.at), hessian)
        riesz = RieszMap(problem.regularization)
        return None if riesz.trivial else cls(riesz, hessian)

    def smooth(self, part: Array) -> Array:
        """T T' part, up to a factor."""
        dual = self.hessian.extend(part)
        if isinstance(self.coordinates, CurvatureCoordinates):
            smoothed: NDArray[Any] = self.coordinates.inverse(dual.astype(np.float32))
        else:
            smoothed = self.coordinates.apply(self.coordinates.apply_transpose(dual))
        return smoothed[self.hessian.free]

    def start(self, random: Array) -> Array:
        """A vector to start from: most of it where the Hessian differs from the regulariser's.

        Elsewhere, in most directions if samples are few, every vector is an eigenvector, and a
        random one would be taken for the lowest.
        """
        hessian, dot = self.hessian, self.hessian.at.problem.controls.dot
        penalty = hessian.at.problem.regularization.action(hessian.extend(random))
        vector = self.smooth(hessian.product(random) - penalty[hessian.free])
        return vector + 0.1 * np.sqrt(dot(vector, vector) / dot(random, random)) * random

    def apply(self, _pc: PETSc.PC, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """y = T T' x, up to a factor."""
        y.array_w[:] = self.smooth(x.array_r)


def choose_davidson(eps: SLEPc.EPS, preconditioner: object) -> None:
    """Choose the generalised Davidson method; a Python context applies its preconditioner."""
    eps.setType(SLEPc.EPS.Type.GD)
    transformation = eps.getST()
    transformation.setType(SLEPc.ST.Type.PRECOND)
    ksp = transformation.getKSP()
    ksp.setType(PETSc.KSP.Type.PREONLY)
    pc = ksp.getPC()
    pc.setType(PETSc.PC.Type.PYTHON)
    pc.setPythonContext(preconditioner)


DAVIDSON_STEPS = 20
"""Steps of the Davidson method that one restart of Lanczos stands for."""

SHORTEST, LONGEST = 6, 8
"""Length of the Davidson method's basis. One of 20 saves a tenth of the products, and takes up to
twice the time: SLEPc passes over all vectors several times a step."""

KEPT, KEPT_FROM_BEFORE = 4, 1
"""Ritz vectors that a basis starts anew from, and those of the step before among them."""

ASIDE, A_STEP = 22, 3
"""Vectors that SLEPc's Davidson method holds: so many, and so many more for one of the basis."""

LANCZOS, IN_A_METRIC, WHERE_SHORT = 80, 24, 6
"""Length of Lanczos' basis at the most, in a problem's own metric, and where memory is limited. A
long one saves products: 120 for the digits, not 400 by 24. It takes as many products before it is
looked at for the first time, and in a metric, where most eigenvalues are one, far fewer will do:
25 to 109 by 24 where 81 to 121 were taken by 80."""


def _davidson_basis(problem: LearningProblem) -> int | None:
    """The length of a basis that memory has room for; None: for none (collective)."""
    length = min(LONGEST, (problem.room_for(MEMORY_BYTES) - ASIDE) // A_STEP)
    if length >= SHORTEST:
        return length
    return SHORTEST if problem.remembered is None else None


def _lanczos_basis(problem: LearningProblem, metric: Metric | None) -> int:
    """The same for Lanczos."""
    room = problem.room_for(MEMORY_BYTES)
    if problem.remembered is not None:
        return min(LANCZOS if metric is None else IN_A_METRIC, max(room, WHERE_SHORT))
    return IN_A_METRIC if metric is not None else min(LANCZOS, max(room, IN_A_METRIC))


def _extreme(
    petsc: PetscProblem, at: Linearisation, free: Mask | None, wanted: _Wanted
) -> list[Eigenpair]:
    controls = petsc.problem.controls
    everything = np.ones(controls.n_local, dtype=bool)
    metric = petsc.problem.metric(at)
    hessian = _FreeHessian(at, everything if free is None else free, metric)
    start = controls.random_direction(0)[hessian.free]
    n = int(controls.sum(np.array(len(start))))
    length, basis = _lanczos_basis(petsc.problem, metric), _davidson_basis(petsc.problem)
    count, max_restarts = min(wanted.count, n - len(wanted.beside)), wanted.max_restarts
    eps = SLEPc.EPS().create(petsc.comm)
    sizes = (len(start), n)

    def vector_of(values: Array) -> PETSc.Vec:
        vector = PETSc.Vec().createMPI(sizes, comm=petsc.comm)
        vector.array_w[:] = values
        return vector

    vector, beside = vector_of(start), [vector_of(known) for known in wanted.beside]
    matrix = PETSc.Mat().createPython((sizes, sizes), hessian, comm=petsc.comm)
    matrix.setOption(PETSc.Mat.Option.SYMMETRIC, True)
    matrix.setUp()
    parts: list[Array] = []
    try:
        eps.setOperators(matrix)
        eps.setProblemType(SLEPc.EPS.ProblemType.HEP)
        eps.setWhichEigenpairs(wanted.which)
        if beside:
            eps.setDeflationSpace(beside)
        lowest = wanted.which == SLEPc.EPS.Which.SMALLEST_REAL
        # Davidson's basis has to be smaller than the space; there Lanczos needs no help.
        roomy = basis is not None and n > 2 * basis + len(beside)
        preconditioner = _Preconditioner.of(hessian) if lowest and roomy else None
        if basis is not None and preconditioner is not None:
            choose_davidson(eps, preconditioner)
            vector.array_w[:] = preconditioner.start(start)
            length, max_restarts = basis, DAVIDSON_STEPS * max_restarts
            if count == 1:
                eps.setGDRestart(KEPT, KEPT_FROM_BEFORE)
        eps.setDimensions(nev=count, ncv=min(max(length, 2 * count), n - len(beside)))
        eps.setTolerances(tol=wanted.tolerance, max_it=max_restarts)
        eps.setConvergenceTest(wanted.convergence)
        eps.setInitialSpace(vector)
        eps.setOptionsPrefix(PREFIX)
        read_options(eps)
        try:
            with original_errors():
                eps.solve()
        except SlabFailure:
            return []
        for number in range(min(eps.getConverged(), count)):
            eps.getEigenvector(number, vector)
            parts.append(vector.array_r.copy())
    finally:
        for thing in (vector, *beside, eps, matrix):
            thing.destroy()
    return [_pair(hessian, part) for part in parts]


def _pair(hessian: _FreeHessian, part: Array) -> Eigenpair:
    """The Rayleigh quotient of an approximate eigenvector, and its residual."""
    controls = hessian.at.problem.controls
    part /= controls.norm(part)
    product = hessian.product(part)
    value = controls.dot(part, product)
    return Eigenpair(value, hessian.extend(part), controls.norm(product - value * part))
