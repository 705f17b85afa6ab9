"""The inertia of the reduced Hessian, against dense spectra and exact ones."""

import numpy as np
import pytest
from helpers import l2_problem, make_network, random_control, random_problem, uniform, width_space
from mpi4py import MPI

from fem_dnn.inertia import inertia, zero_tolerance

pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF


def dense_spectrum(problem, control) -> np.ndarray:
    at = problem.linearise(control)
    H = np.stack([at.hessian_action(e) for e in np.eye(problem.controls.n_global)])
    return np.linalg.eigvalsh(0.5 * (H + H.T))


@pytest.mark.parametrize("dense", [0, 1000], ids=["SLEPc", "dense"])
@pytest.mark.parametrize(
    "options",
    [
        {"regularization": (0.001, 0.001, 0.001)},
        {"regularization": (0.01, 0.02, 0.03, 0.0, 0.05, 0.02, 0.004, 0.03)},
        {"loss": "mse", "learn_outputs": True, "mask": True},
    ],
    ids=["plain", "smoothed", "outputs"],
)
def test_all_negative_eigenvalues_are_counted(options, dense):
    alone = random_problem(SELF, scheme="resnet", **options)
    exact = dense_spectrum(alone, random_control(alone, scale=1.0))
    problem = random_problem(WORLD, scheme="resnet", **options)
    found = inertia(problem.linearise(random_control(problem, scale=1.0)), dense=dense)
    negative = int(np.count_nonzero(exact < 0))
    assert negative > 1  # a random control is far from a minimum
    assert (found.kind, found.negative, found.zero) == ("saddle", negative, 0)
    assert len(found.pairs) == negative + 1
    for pair, value in zip(found.pairs, exact, strict=False):
        assert abs(pair.value - value) <= pair.residual + 1e-12
        assert pair.residual <= found.tolerance
    assert found.lowest == found.eigenvalues[0]
    vectors = np.stack([pair.vector for pair in found.pairs])
    gram = problem.network.space.sum(vectors @ vectors.T)
    assert np.allclose(gram, np.eye(len(vectors)), rtol=0, atol=1e-8)


def reflection(comm, nodes: int, weight: float):
    """Linear activation, f to -f through the straight path: theory.md 9.5."""
    network = make_network(
        width_space(comm, nodes, length=float(nodes)), "dg0", "linear", points=uniform(1.0, 2)
    )
    f = np.zeros((1, nodes))
    f[0, 0] = 1.0
    return l2_problem(network, f, -f, kernel=0.05, bias=0.05, weight=weight)


@pytest.mark.parametrize("dense", [0, 1000], ids=["SLEPc", "dense"])
def test_multiple_eigenvalues_are_counted_as_often_as_they_occur(dense):
    """At zero controls turning f into any of the other nodes has the same negative curvature.

    With p = omega 2 f at zero controls the Hessian couples only the kernel's entries with f and p:
    every direction a = z (x) f + f (x) z, z orthogonal to f, has the same eigenvalue.
    """
    nodes = 5
    problem = reflection(WORLD, nodes, 1.0)
    at = problem.linearise(np.zeros(problem.controls.n_local))
    alone = reflection(SELF, nodes, 1.0)
    exact = dense_spectrum(alone, np.zeros(alone.controls.n_local))
    found = inertia(at, dense=dense)
    assert found.negative == np.count_nonzero(exact < 0)
    # The lowest eigenvalues come in groups of one per node besides f's.
    several = [np.count_nonzero(np.abs(exact - value) < 1e-12) for value in exact[exact < 0]]
    assert max(several) >= nodes - 1
    assert np.allclose(found.eigenvalues, exact[: len(found.pairs)], rtol=0, atol=1e-10)


def test_minimum_maximum_and_degenerate():
    """Bias only, one node, one layer, linear: J'' = lambda_b + T^2 weight / T, weight of any sign.

    A loss of negative weight is no learning problem, but it has a maximum.
    """
    network = make_network(width_space(SELF, 1), "resnet", "linear", points=[0.0, 2.0])
    kinds = {}
    for weight in (1.0, -1.0, -0.25):
        problem = l2_problem(network, [[0.0]], [[1.0]], bias=0.5, weight=weight)
        found = inertia(problem.linearise(np.zeros(1)))
        assert found.lowest == pytest.approx(0.5 + 2 * weight, abs=1e-14)
        kinds[weight] = (found.kind, found.negative, found.zero)
    assert kinds == {1.0: ("minimum", 0, 0), -1.0: ("maximum", 1, 0), -0.25: ("degenerate", 0, 1)}


@pytest.mark.parametrize("dense", [0, 1000], ids=["SLEPc", "dense"])
def test_a_maximum_of_many_controls(dense):
    """All eigenvalues are negative only where the loss outweighs R in every direction."""
    network = make_network(width_space(WORLD, 3), "resnet", "linear", points=[0.0, 2.0])
    x = np.zeros((1, 3))
    problem = l2_problem(network, x, x + 1, bias=0.5, weight=-1.0)
    found = inertia(problem.linearise(np.zeros(problem.controls.n_local)), dense=dense)
    assert (found.kind, found.negative, found.zero) == ("maximum", 3, 0)
    assert found.lowest == pytest.approx(-1.5, abs=1e-12)


def test_what_counts_as_zero():
    problem = reflection(SELF, 2, 1.0)
    assert zero_tolerance(problem) == pytest.approx(5e-8)
    at = problem.linearise(np.zeros(problem.controls.n_local))
    lowest = inertia(at).lowest
    assert inertia(at, tolerance=2 * abs(lowest)).kind == "degenerate"
