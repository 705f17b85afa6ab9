"""The adjoint: p_s(t_n) is 1/w_s times the L2 gradient of the cost after t_n by f_s(t_n-)."""

import numpy as np
import pytest
from helpers import GRADED, in_file_order, random_control, random_problem, relative
from mpi4py import MPI

from fem_dnn.depth import SCHEMES, DepthLevels
from fem_dnn.network import LayerWeights, Network
from fem_dnn.nonlocal_operator import NonlocalOperator
from fem_dnn.problem import LearningProblem
from fem_dnn.tracking import Tracking

pytestmark = pytest.mark.mpi

WORLD = MPI.COMM_WORLD


def rest_of(problem: LearningProblem, weights: LayerWeights, n: int) -> LearningProblem:
    """The problem on (t_n, T) with given weights: no controls, so no regularisation."""
    whole = problem.network
    levels = DepthLevels(whole.levels.scheme, GRADED[n:] - GRADED[n])
    first = whole.levels.of_slab(n).start
    given = LayerWeights(
        NonlocalOperator(
            whole.space, whole.levels.weights[first:], weights.operator.coefficients[first:]
        ),
        weights.bias[first:],
    )
    tracked = problem.tracking.targets[n * len(whole.levels.scheme.tracking_points) :]
    bare = random_problem(
        WORLD, scheme=whole.levels.scheme.name, points=levels.points, kernel=False, bias=False
    )
    return LearningProblem(
        Network(whole.space, levels, whole.activation),
        bare.controls,
        problem.inputs,
        problem.sample_weights,
        problem.loss,
        bare.regularization,
        Tracking(problem.tracking.weight, tracked),
        given=given,
        given_outputs=problem.given_outputs,
    )


@pytest.mark.parametrize("loss", ["l2", "softmax"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_adjoint_is_the_sensitivity_to_the_state(scheme: str, loss: str) -> None:
    problem = random_problem(WORLD, scheme=scheme, loss=loss, tracking=True)
    at = problem.linearise(random_control(problem))
    space, w = problem.network.space, problem.sample_weights
    rng = np.random.default_rng(0)
    direction = space.from_file_order(rng.standard_normal((space.n_nodes, len(w))), axis=0)
    nothing = np.empty(0)
    for n in range(len(GRADED) - 1):
        rest = rest_of(problem, at.weights, n)

        def cost(e: float, n: int = n, rest: LearningProblem = rest) -> float:
            object.__setattr__(rest, "inputs", at.state.ends[n] + e * direction)
            return rest.objective(nothing)

        e = 1e-4
        difference = (cost(e) - cost(-e)) / (2 * e)
        p = at.adjoint.ends[n]
        inner = space.sum(np.einsum("n,s,ns,ns->", space.local_weights, w, p, direction))
        assert abs(inner - difference) < 1e-7 * max(1.0, abs(difference))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_terminal_value_and_bound(scheme: str) -> None:
    """p(T) is the loss' gradient; |p(t)| <= |p(T)| exp(L int_t^T |a|) without tracking."""
    problem = random_problem(WORLD, scheme=scheme)
    at = problem.linearise(random_control(problem))
    space, levels = problem.network.space, problem.network.levels
    p = at.adjoint.ends
    assert np.allclose(p[-1], 1.3 * (at.state.ends[-1] - problem.loss.targets), atol=1e-14)
    norms = np.sqrt(space.sum(np.einsum("n,kns->ks", space.local_weights, p**2)))
    a = np.sqrt(space.sum(np.sum(at.weights.operator.coefficients**2, axis=(1, 2))))
    steps = (a * np.sqrt(levels.weights)).reshape(levels.layers, -1).sum(axis=1)
    remaining = np.append(np.cumsum(steps[::-1])[::-1], 0.0)
    assert np.all(norms <= norms[-1] * np.exp(remaining)[:, None] * (1 + 1e-12))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_adjoint_is_linear_in_its_terminal_value(scheme: str) -> None:
    """Without controls' influence on p(T): twice the loss, twice the adjoint and q."""
    problem, twice = (random_problem(WORLD, scheme=scheme) for _ in range(2))
    object.__setattr__(twice.loss, "weight", 2 * problem.loss.weight)
    control = random_control(problem)
    one, two = problem.linearise(control).adjoint, twice.linearise(control).adjoint
    for name in ("ends", "levels", "q"):
        a, b = (in_file_order(problem.network.space, getattr(x, name)) for x in (one, two))
        assert relative(2 * a, b) < 1e-13


def test_bias_only_adjoint_is_constant() -> None:
    """Without a kernel nothing changes p but tracking."""
    problem = random_problem(WORLD, kernel=False)
    p = problem.linearise(random_control(problem)).adjoint.ends
    assert np.array_equal(p, np.broadcast_to(p[-1], p.shape))
