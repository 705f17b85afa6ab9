"""Coordinates in which the Hessian is nearly a multiple of the identity, levels coupled by R''."""

import numpy as np
import pytest
from helpers import (
    assert_is_its_inverse,
    assert_same_inverses,
    assert_transposes,
    random_control,
    random_problem,
    uniform,
)
from mpi4py import MPI

from fem_dnn import curvature_metric, smooth_curvature_metric
from fem_dnn.curvature_metric import why_not
from fem_dnn.gauss_newton import output_slopes
from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.smooth_curvature_metric import SmoothCurvatureMetric
from fem_dnn.solvers import Tolerances, approach, solve_newton
from fem_dnn.solvers.curvature import lowest_eigenpair
from fem_dnn.solvers.petsc import PetscProblem

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF

SMOOTH = (0.01, 0.02, 0.03, 0.0, 0.05, 0.004)
"""Tikhonov weights of kernel, bias and outputs, a constant, weights of d_t kernel and d_t bias."""

CASES = [
    {},
    {"loss": "softmax", "outputs": 3, "learn_outputs": True},
    {"loss": "logistic", "kernel": False, "given": True, "samples": 9},
    {"loss": "mse", "bias": False},
    {"scheme": "resnet", "tracking": True, "samples": 9, "points": uniform(2.0, 8)},
    {"loss": "mse", "regularization": (0.01, 0.0, 0.0, 0.0, 0.0, 0.004)},
    {"loss": "mse", "regularization": (0.01, 0.0, 0.0, 0.0, 0.02, 0.0), "activation": "linear"},
]


def smooth_problem(comm: MPI.Comm, **options: object) -> LearningProblem:
    return random_problem(comm, **{"regularization": SMOOTH, **options})  # type: ignore[arg-type]


def metric_at(problem: LearningProblem) -> SmoothCurvatureMetric:
    return SmoothCurvatureMetric(problem.linearise(random_control(problem)))


@pytest.fixture
def everything_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smooth_curvature_metric, "SEEN", 1e-13)


@pytest.mark.parametrize("options", CASES)
def test_transpose_and_inverse(options: dict) -> None:
    problem = smooth_problem(WORLD, **options)
    metric = metric_at(problem)
    assert_transposes(metric, problem.controls)
    assert_is_its_inverse(metric)


@pytest.mark.mpi
@pytest.mark.parametrize("options", CASES)
def test_is_the_same_on_any_number_of_ranks(options: dict) -> None:
    problems = [smooth_problem(comm, **options) for comm in (WORLD, SELF)]
    assert_same_inverses([(metric_at(problem), problem.controls) for problem in problems])


def model(at: Linearisation) -> np.ndarray:
    """P = R'' + Phi D Phi' + J' W J as a matrix, on one rank."""
    problem, units = at.problem, np.eye(at.problem.controls.n_local)
    matrix = np.stack([problem.regularization.action(unit) for unit in units])
    change = np.zeros((len(units), *at.state.slope.shape))  # du of every unit
    for du, unit in zip(change, units, strict=True):
        parts = problem.controls.split(unit)
        if parts.kernel is not None:
            du += np.einsum("lyx,lys->lxs", parts.kernel, at.state.gathered)
        if parts.bias is not None:
            du += parts.bias[:, :, None]
    pointwise = problem.sample_weights * at.curvature
    flat = change.reshape(len(units), -1)
    matrix += (flat * pointwise.ravel()) @ flat.T
    slopes = output_slopes(at)
    if at.loss_point.outputs is not None and slopes is not None:
        for part in slopes.parts.transpose(2, 0, 3, 1):
            columns = np.einsum("clxs,lxs->cs", change, part)
            matrix += columns @ columns.T
    return matrix


@pytest.mark.parametrize("dependent", [False, True])
@pytest.mark.parametrize("options", CASES[:-2])
def test_is_exact_for_what_it_knows(
    options: dict, dependent: bool, everything_is_seen: None
) -> None:
    """T' P T = s I where nothing is left out and, put in by hand, the Hamiltonian is convex."""
    problem = smooth_problem(SELF, **options)
    if dependent:  # the first levels have fewer directions than the last
        problem.inputs[:] = problem.inputs[:, :1] * np.arange(problem.inputs.shape[1])
    at = problem.linearise(random_control(problem))
    vars(at)["curvature"] = np.abs(at.curvature)
    metric, matrix = SmoothCurvatureMetric(at), model(at)
    units = np.eye(problem.controls.n_local)
    image = [metric.apply_transpose(matrix @ metric.apply(unit)) for unit in units]
    assert np.allclose(image, metric.weight * units, rtol=0, atol=1e-9 * metric.weight)


def test_negative_curvature_is_shortened() -> None:
    """T T' stays bounded: at no node does curvature take away more of R'' than it may."""
    problem = smooth_problem(SELF, scheme="resnet", points=uniform(2.0, 6))
    at = problem.linearise(random_control(problem))
    vars(at)["curvature"] = np.where(at.curvature > 0, 0.1, -10.0) * np.abs(at.curvature)
    metric = SmoothCurvatureMetric(at)
    units = np.eye(problem.controls.n_local)
    plain = np.stack([problem.regularization.action(unit) for unit in units])
    image = np.stack([metric.apply_transpose(plain @ metric.apply(unit)) for unit in units])
    highest = np.linalg.eigvalsh(image)[-1]
    least = 1 - smooth_curvature_metric.NEGATIVE
    assert 1.5 * metric.weight < highest < metric.weight / least * (1 + 1e-9)


@pytest.mark.parametrize("directions", [1, 3])
def test_negative_curvature_is_shortened_to_the_bound_itself(directions: int) -> None:
    """Of one direction, or of rank one: X (I - NEGATIVE v v') X' = I at every node."""
    rng = np.random.default_rng(1)
    units = np.eye(directions)[None]
    features = np.eye(directions, 1)[None]  # one sample, along the first of the directions
    pointwise = -rng.uniform(1.0, 1e3, (1, 60, 1))
    inverse = smooth_curvature_metric._inverse_factors(units, features, pointwise)
    left = np.eye(directions) - smooth_curvature_metric.NEGATIVE * features[0] @ features[0].T
    assert np.allclose(inverse @ left @ inverse.swapaxes(1, 2), units, rtol=0, atol=1e-12)


def test_what_overflows_is_left_out() -> None:
    spread, features = np.eye(2)[None], np.eye(2)[None]
    pointwise = np.array([[[np.nan, 0.0], [-np.inf, 1.0], [3.0, 0.0]]])
    inverse = smooth_curvature_metric._inverse_factors(spread, features, pointwise)
    assert np.array_equal(inverse, [np.eye(2), np.eye(2), np.diag([0.5, 1.0])])


@pytest.mark.mpi
def test_one_node_that_overflows_leaves_no_rank_waiting() -> None:
    problem = smooth_problem(WORLD, loss="logistic", kernel=False)
    at = problem.linearise(random_control(problem))
    if WORLD.rank == WORLD.size - 1:
        at.curvature[:, 0] = np.nan
    metric = SmoothCurvatureMetric(at)
    image = metric.apply(problem.controls.random_direction(1))
    assert np.all(np.isfinite(image))


@pytest.mark.parametrize("loss", ["logistic", "softmax"])
def test_hessian_is_close_to_a_multiple_of_the_identity(loss: str) -> None:
    """At a minimiser: all but a few eigenvalues of T' H T / s are near 1."""
    problem = smooth_problem(
        SELF, scheme="resnet", loss=loss, cells=6, points=uniform(2.0, 6), samples=4
    )
    at = solve_newton(problem, random_control(problem), Tolerances(rtol=1e-6)).at
    metric = SmoothCurvatureMetric(at)
    units = np.eye(problem.controls.n_local)
    image = np.stack([metric.apply_transpose(at.hessian_action(metric.apply(u))) for u in units])
    riesz = PetscProblem(problem).riesz
    assert riesz is not None
    before = np.stack([riesz.apply_transpose(at.hessian_action(riesz.apply(u))) for u in units])
    spectra = [np.linalg.eigvalsh(matrix) for matrix in (before, image)]
    assert np.ptp(spectra[1]) < 0.3 * np.ptp(spectra[0])


def test_newton_takes_fewer_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same minimiser by far fewer Hessian products than in the regulariser's coordinates."""
    monkeypatch.setattr(approach, "STRETCHES", 0)
    monkeypatch.setattr(curvature_metric, "FEW_CONTROLS", 10)
    problem = smooth_problem(
        SELF, scheme="resnet", loss="logistic", cells=12, points=uniform(2.0, 8), samples=8
    )
    start = solve_newton(problem, random_control(problem), Tolerances(rtol=1e-2)).control
    solutions = [solve_newton(problem, start, Tolerances(rtol=1e-7))]
    monkeypatch.setattr(curvature_metric, "FEW_CONTROLS", problem.controls.n_global + 1)
    solutions.append(solve_newton(problem, start, Tolerances(rtol=1e-7)))
    assert all(solution.converged for solution in solutions)
    assert abs(solutions[0].objective - solutions[1].objective) < 1e-9
    products = [solution.history[-1].linear_iterations for solution in solutions]
    assert products[0] < 0.5 * products[1]


def test_davidson_finds_the_lowest_eigenvalue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curvature_metric, "FEW_CONTROLS", 10)
    problem = smooth_problem(SELF, scheme="resnet", loss="mse", cells=6, points=uniform(2.0, 6))
    at = problem.linearise(0.3 * random_control(problem))
    assert why_not(problem) is None
    petsc = PetscProblem(problem)
    try:
        pair = lowest_eigenpair(petsc, at)
    finally:
        petsc.destroy()
    units = np.eye(problem.controls.n_local)
    lowest = np.linalg.eigvalsh(np.stack([at.hessian_action(unit) for unit in units]))[0]
    assert pair is not None
    assert abs(pair.value - lowest) < 1e-9


def test_what_has_none_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curvature_metric, "FEW_CONTROLS", 10)
    problem = smooth_problem(SELF)
    at = problem.linearise(random_control(problem))
    assert isinstance(curvature_metric.curvature_metric(at), SmoothCurvatureMetric)
    width = random_problem(SELF)
    weights = width.regularization.reweighted(kernel_depth=0.01, kernel_width=0.01)
    vars(width)["regularization"] = weights
    for lacking, reason in ((width, "width"), (smooth_problem(SELF, mask=True), "masked")):
        assert reason in str(why_not(lacking))
        at = lacking.linearise(random_control(lacking))
        assert curvature_metric.curvature_metric(at) is None
