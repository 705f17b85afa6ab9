"""The Riesz map turns R'' into a multiple of the identity, to round-off."""

import numpy as np
import pytest
from helpers import everywhere, random_control, random_problem, relative
from mpi4py import MPI

from fem_dnn.riesz import RieszMap

pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF
TIKHONOV = (0.1, 0.03, 0.7, 0.0)
SMOOTH = {
    "depth": (0.2, 0.05, 0.0, 0.0),
    "width": (0.0, 0.0, 0.02, 0.3),
    "both": (0.2, 0.0, 0.02, 0.3),
    "kernel alone": (0.2, 0.0, 0.02, 0.0),
}
"""gamma_a, gamma_b, eta_a, eta_b."""


def problem_with(smooth: str, comm=WORLD, tikhonov=TIKHONOV, **options):
    weights = (*tikhonov, *SMOOTH[smooth])
    return random_problem(comm, loss="mse", learn_outputs=True, regularization=weights, **options)


@pytest.mark.parametrize("scheme", ["resnet", "dg2"])
@pytest.mark.parametrize(("cells", "degree"), [(5, 0), (3, 1), ((2, 3), 0)])
@pytest.mark.parametrize("smooth", SMOOTH)
def test_regulariser_is_a_multiple_of_the_identity(smooth, cells, degree, scheme) -> None:
    """T' R'' T = s, T' is the transpose of T, and T T' / s is the inverse of R''."""
    problem = problem_with(smooth, cells=cells, degree=degree, scheme=scheme)
    R, controls = problem.regularization, problem.controls
    riesz = RieszMap(R)
    z, g = random_control(problem, 1), random_control(problem, 2)
    identity = riesz.apply_transpose(R.action(riesz.apply(z)))
    for name, part in controls.blocks.items():
        scaled = np.zeros_like(z)
        scaled[part] = identity[part] - riesz.scales[name] * z[part]
        assert controls.norm(scaled) < 1e-12 * controls.norm(z)
    left, right = controls.dot(riesz.apply(z), g), controls.dot(z, riesz.apply_transpose(g))
    assert abs(left - right) < 1e-13 * controls.norm(z) * controls.norm(g)
    assert controls.norm(R.action(riesz.solve(g)) - g) < 1e-11 * controls.norm(g)


def test_mask_and_depth() -> None:
    problem = problem_with("depth", mask=True)
    g = random_control(problem, 2)
    solution = RieszMap(problem.regularization).solve(g)
    norm = problem.controls.norm
    assert norm(problem.regularization.action(solution) - g) < 1e-12 * norm(g)


def test_without_derivatives_it_is_the_identity() -> None:
    problem = random_problem(WORLD, loss="mse", learn_outputs=True)
    riesz, z = RieszMap(problem.regularization), random_control(problem)
    assert riesz.trivial
    assert np.array_equal(riesz.apply(z), z) and np.array_equal(riesz.apply_transpose(z), z)
    norm = problem.controls.norm
    assert norm(problem.regularization.action(riesz.solve(z)) - z) < 1e-14 * norm(z)


def test_without_tikhonov_constants_are_not_smoothed_away() -> None:
    """lambda = 0: T is still of full rank, and R'' T is bounded."""
    problem = problem_with("depth", tikhonov=(0.0, 0.0, 0.7, 0.0))
    riesz = RieszMap(problem.regularization)
    constant = problem.controls.constant(1.0, 1.0)
    assert relative(riesz.apply_transpose(riesz.apply(constant)), constant) < 1.0
    assert problem.controls.norm(problem.regularization.action(constant)) < 1e-12


@pytest.mark.parametrize("smooth", SMOOTH)
def test_same_on_any_number_of_ranks(smooth: str) -> None:
    shared, alone = (problem_with(smooth, comm, scheme="dg1") for comm in (WORLD, SELF))
    z, w = random_control(shared), random_control(alone)
    for act in ("apply", "apply_transpose", "solve"):
        of_shared = getattr(RieszMap(shared.regularization), act)(z)
        of_alone = getattr(RieszMap(alone.regularization), act)(w)
        assert relative(everywhere(shared, of_shared), everywhere(alone, of_alone)) < 1e-12
    action = shared.regularization.action(z), alone.regularization.action(w)
    assert relative(everywhere(shared, action[0]), everywhere(alone, action[1])) < 1e-13
    values = shared.regularization.value(z), alone.regularization.value(w)
    assert abs(values[0] - values[1]) < 1e-13 * abs(values[1])
