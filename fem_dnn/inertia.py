"""What kind of critical point: the inertia of the reduced Hessian (theory.md section 4).

Eigenvalues are those in the L2 inner product. Of an approximate pair (theta, v), |v| = 1, the
residual r = |H v - theta v| is a rigorous bound: some eigenvalue lies within r of theta. Small
Hessians are diagonalised whole. Of large ones SLEPc finds the lowest eigenvalues, each time on
the orthogonal complement of the eigenvectors known already, until one is positive: so multiple
eigenvalues are counted as often as they occur, which one Krylov space would not do. The count of
negative eigenvalues is rigorous from below (Cauchy's interlacing theorem), and from above as far as
the last Lanczos process, on the complement of all of them, has found the lowest eigenvalue there.

The Hessian is that of the discrete problem. A positive lowest eigenvalue makes a strict local
minimiser of that; for the continuum in L2 it is not enough (two-norm discrepancy).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fem_dnn.collective import on_root
from fem_dnn.errors import FemDnnError
from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.solvers.curvature import (
    Eigenpair,
    highest_eigenpair,
    lowest_eigenpairs_beside,
)
from fem_dnn.solvers.petsc import PetscProblem

Array = NDArray[np.float64]
Kind = Literal["minimum", "saddle", "maximum", "degenerate"]

ZERO = 1e-6
"""Eigenvalues below this part of the least Tikhonov weight count as zero."""

RESIDUAL = 1e-2
"""Residual asked of an eigenpair, as a part of what counts as zero."""

DENSE = 100
"""Hessians of so many controls are diagonalised whole."""


class UnresolvedSpectrum(FemDnnError):
    """SLEPc has not found the lowest eigenvalue of the Hessian within its limit of restarts."""


@dataclass(frozen=True, eq=False)
class Inertia:
    """The lower end of the Hessian's spectrum, and what it says of a critical point.

    Attributes:
        kind: degenerate where an eigenvalue is zero; else minimum, saddle or maximum.
        negative: Number of negative eigenvalues.
        zero: Number of those within `tolerance` of zero, or within their residual.
        pairs: Eigenpairs in ascending order: the negative and zero ones and, unless there are no
            others, the lowest positive one.
        tolerance: Eigenvalues within this distance of zero count as zero.
    """

    kind: Kind
    negative: int
    zero: int
    pairs: Sequence[Eigenpair]
    tolerance: float

    @property
    def lowest(self) -> float:
        """The lowest eigenvalue."""
        return self.pairs[0].value

    @property
    def residual(self) -> float:
        """|H v - lowest v|: an eigenvalue lies within this distance of `lowest`."""
        return self.pairs[0].residual

    @property
    def eigenvalues(self) -> Array:
        """The values of the pairs."""
        return np.array([pair.value for pair in self.pairs])


def zero_tolerance(problem: LearningProblem) -> float:
    """Which eigenvalues of a well-converged critical point count as zero."""
    return ZERO * (problem.regularization.least_weight or 1e-2)


def inertia(at: Linearisation, *, tolerance: float | None = None, dense: int = DENSE) -> Inertia:
    """The inertia of the reduced Hessian at a linearisation (collective).

    Args:
        at: Linearisation, of a problem without bounds.
        tolerance: Eigenvalues within this distance of zero count as zero; default:
            `zero_tolerance`.
        dense: Hessians of at most so many controls are diagonalised whole.

    Raises:
        UnresolvedSpectrum: SLEPc did not converge.
    """
    tolerance = zero_tolerance(at.problem) if tolerance is None else tolerance
    size = at.problem.controls.n_global
    if size <= dense:
        pairs, positive = _whole_spectrum(at, tolerance)
    else:
        pairs, positive = _lower_end(at, tolerance)
    negative = sum(pair.value < 0 and not _is_zero(pair, tolerance) for pair in pairs)
    zero = sum(_is_zero(pair, tolerance) for pair in pairs)
    kind: Kind = "saddle"
    if zero:
        kind = "degenerate"
    elif not negative:
        kind = "minimum"
    elif not positive:
        kind, negative = "maximum", size
    return Inertia(kind, negative, zero, pairs, tolerance)


def _is_zero(pair: Eigenpair, tolerance: float) -> bool:
    return abs(pair.value) <= max(tolerance, pair.residual)


def _is_positive(pair: Eigenpair, tolerance: float) -> bool:
    return pair.value > 0 and not _is_zero(pair, tolerance)


def _whole_spectrum(at: Linearisation, tolerance: float) -> tuple[list[Eigenpair], bool]:
    """Pairs up to the first positive one, by the dense Hessian; whether there is a positive one."""
    controls, space = at.problem.controls, at.problem.network.space
    comm, n = space.comm, controls.n_global
    counts = comm.allgather(controls.n_local)
    first = sum(counts[: comm.rank])
    mine = slice(first, first + controls.n_local)
    columns = np.empty((controls.n_local, n))
    for column in range(n):
        unit = np.zeros(controls.n_local)
        if mine.start <= column < mine.stop:
            unit[column - first] = 1.0
        columns[:, column] = at.hessian_action(unit)
    gathered = comm.gather(columns)
    # One rank diagonalises: vectors of a multiple eigenvalue could differ from rank to rank.
    values, vectors = on_root(comm, lambda: _eigh(np.concatenate(gathered or [])))
    pairs: list[Eigenpair] = []
    for number in range(n):
        value = float(values[number])
        vector = np.ascontiguousarray(vectors[:, number])
        # The columns are the products with the unit vectors: this is the residual of H itself.
        residual = controls.norm(columns @ vector - value * vector[mine])
        pairs.append(Eigenpair(value, vector[mine].copy(), residual))
        if _is_positive(pairs[-1], tolerance):
            return pairs, True
    return pairs, False


def _eigh(matrix: Array) -> tuple[Array, Array]:
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    return values, vectors


def _lower_end(at: Linearisation, tolerance: float) -> tuple[list[Eigenpair], bool]:
    """Pairs up to the first positive one, by SLEPc; whether there is a positive one."""
    controls = at.problem.controls
    petsc = PetscProblem(at.problem)
    pairs: list[Eigenpair] = []
    try:
        positive = False
        while not positive and len(pairs) < controls.n_global:
            if len(pairs) == 1 and _all_negative(petsc, at, tolerance):
                return pairs, False
            known = [pair.vector for pair in pairs]
            # Twice as many each time: many negative eigenvalues are found in few processes.
            fresh = _resolved(petsc, at, known, max(len(pairs), 1), tolerance)
            pairs += fresh
            positive = any(_is_positive(pair, tolerance) for pair in fresh)
    finally:
        petsc.destroy()
    pairs.sort(key=lambda pair: pair.value)
    below = [pair for pair in pairs if not _is_positive(pair, tolerance)]
    return pairs[: len(below) + 1], positive


def _resolved(
    petsc: PetscProblem, at: Linearisation, known: list[Array], count: int, tolerance: float
) -> list[Eigenpair]:
    """The lowest pairs beside those known, one at least; less accurate where that is hard."""
    for factor in (RESIDUAL, 1.0, 1 / RESIDUAL):
        pairs = lowest_eigenpairs_beside(petsc, at, known, count, tolerance=factor * tolerance)
        if pairs:
            return pairs
    raise UnresolvedSpectrum(
        "the lowest eigenvalue of the Hessian was not found within SLEPc's limit of restarts; "
        "use a stronger regularization, or raise -eps_max_it after --"
    )


def _all_negative(petsc: PetscProblem, at: Linearisation, tolerance: float) -> bool:
    """Whether the highest eigenvalue is negative. One direction of positive curvature refutes."""
    controls = at.problem.controls
    direction = controls.random_direction(1)
    if controls.dot(direction, at.hessian_action(direction)) > 0:
        return False
    pair = highest_eigenpair(petsc, at, tolerance=tolerance)
    return pair is not None and pair.value < -pair.residual
