"""What the tests of the search share: problems with known critical points, and how to search."""

import numpy as np
from helpers import l2_problem, make_network, uniform, width_space
from mpi4py import MPI

from fem_dnn.critical_points import Findings, Settings, Start, find_critical_points
from fem_dnn.critical_points.symmetry import candidate_symmetries
from fem_dnn.problem import LearningProblem
from fem_dnn.solvers import Tolerances

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF


def search(
    problem: LearningProblem,
    *,
    guess=None,
    points: int = 5,
    starts: int = 0,
    scale: float = 1.0,
    distance: float = 1e-4,
    symmetries: bool = True,
) -> Findings:
    controls = problem.controls
    maps = candidate_symmetries(problem) if symmetries else []
    return find_critical_points(
        problem,
        np.zeros(controls.n_local) if guess is None else guess,
        [Start(f"start {k}", lambda k=k: controls.random(k, scale)) for k in range(starts)],
        Settings(points, distance, scale * controls.norm(controls.scale), Tolerances()),
        {},
        symmetries=maps,
    )


def turned(
    nodes: int, size: float, comm=WORLD, *, scheme="resnet", layers=6, weight=20.0
) -> LearningProblem:
    """theory.md 9.5: linear, S = 1, kernel and bias, carry f to -f; |f| = size, kappa = T = 1.

    f is the same in all nodes, so that the width's mirror image keeps the data.
    """
    space = width_space(comm, nodes, length=float(nodes))
    network = make_network(space, scheme, "linear", points=uniform(1.0, layers))
    f = np.full((1, nodes), size / np.sqrt(nodes))
    return l2_problem(network, f, -f, kernel=1.0, bias=1.0, weight=weight)


GELU = {"T": 1.5, "d": 0.9, "weight": 0.01}


def one_layer(nodes: int, comm=WORLD) -> LearningProblem:
    """theory.md 9.2 with gelu, which is not monotone, in one explicit layer.

    Node by node (T sigma(B) - d) sigma'(B) + lambda B = 0 has three solutions: two minima and a
    maximum between them, so n nodes have 3^n critical points.
    """
    space = width_space(comm, nodes, length=float(nodes))
    network = make_network(space, "resnet", "gelu", points=[0.0, GELU["T"]])
    zero = np.zeros((1, nodes))
    return l2_problem(network, zero, zero + GELU["d"], bias=GELU["weight"])
