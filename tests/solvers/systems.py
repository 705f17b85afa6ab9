"""Points of the optimality system, and its Krylov solver, for the tests."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from helpers import random_control, random_problem
from mpi4py import MPI
from petsc4py import PETSc

from fem_dnn.problem import LearningProblem
from fem_dnn.solvers.all_at_once import DEFAULTS
from fem_dnn.solvers.optimality_system import OptimalityPoint, Unknowns
from fem_dnn.solvers.petsc import PREFIX, inserted_options
from fem_dnn.solvers.schur import SchurSystem


def random_unknowns(problem: LearningProblem, seed: int, scale: float = 1.0) -> Unknowns:
    """The same on any number of ranks."""
    rng, space = np.random.default_rng(seed), problem.network.space
    shape = (problem.network.levels.count, space.n_nodes, len(problem.sample_weights))
    z, P = (space.from_file_order(rng.standard_normal(shape), axis=1) for _ in range(2))
    return Unknowns(scale * z, scale * P, random_control(problem, seed, scale))


def infeasible(comm=MPI.COMM_WORLD, **options) -> OptimalityPoint:
    """A point that satisfies none of the equations."""
    problem = random_problem(comm, **options)
    return OptimalityPoint(problem, random_unknowns(problem, 4, 0.6))


@contextmanager
def krylov_solver(system: SchurSystem) -> Iterator[PETSc.KSP]:
    """With the method's own options."""
    ksp = PETSc.KSP().create(system.comm)
    with inserted_options(PREFIX, DEFAULTS, {}):
        system.use(ksp)
        ksp.setOptionsPrefix(PREFIX)
        ksp.setFromOptions()
        yield ksp
    ksp.destroy()
