"""Lower bounds of the loss, against minimisation by hand and against trained networks."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import l2_problem, make_network, random_problem, uniform, width_space
from mpi4py import MPI
from scipy.optimize import minimize

from fem_dnn.activations import ACTIVATIONS
from fem_dnn.controllability import loss_floor
from fem_dnn.losses import OutputLayer

COMM = MPI.COMM_SELF


def l2(activation, inputs, targets, *, T=0.5, kernel=0.1, weights=None):
    network = make_network(width_space(COMM, 2), "resnet", activation, points=uniform(T, 2))
    return l2_problem(
        network, inputs, targets, kernel=kernel, bias=0.1, weight=1.3, sample_weights=weights
    )


def test_range():
    """Only what lies beyond T is out of reach of tanh."""
    problem = l2("tanh", [[0.0, 0.0], [1.0, 0.0]], [[0.7, 0.2], [1.0, -1.5]])
    floor = loss_floor(problem)
    assert floor.value == pytest.approx(1.3 / 2 * 0.5 * (0.2**2 + 1.0**2) / 2, rel=1e-14)
    assert floor.by_groups == 0 == floor.together


def test_what_is_in_reach_has_no_floor():
    """Not even one of round-off."""
    rng = np.random.default_rng(1)
    f = rng.standard_normal((3, 2))
    targets = f + rng.uniform(-0.4, 0.4, f.shape)
    assert loss_floor(l2("tanh", f, targets, weights=np.array([0.1, 0.3, 0.7]))).value == 0


def test_equal_inputs():
    """Both together cost more than each alone: the mean is out of reach, and the targets differ."""
    targets = np.array([[0.6, 0.2], [1.0, -0.1]])
    problem = l2("tanh", np.zeros((2, 2)), targets, weights=np.array([1.0, 2.0]))
    floor = loss_floor(problem)
    d = np.linspace(-0.5, 0.5, 100_001)[:, None]
    per_node = [1.3 / 2 * 0.5 * np.min((d - column) ** 2 @ [1.0, 2.0]) for column in targets.T]
    expected = sum(per_node)
    assert floor.value == pytest.approx(expected, rel=1e-8)
    assert floor.together == 2
    assert 0 < floor.by_range < floor.value
    assert 0 < floor.by_groups < floor.value


def test_a_bias_alone_moves_all_alike():
    """Exact case 3: half the weighted variance of the displacements."""
    rng = np.random.default_rng(0)
    f, g = rng.standard_normal((2, 3, 2))
    floor = loss_floor(l2("linear", f, g, kernel=None))
    assert floor.value == pytest.approx(1.3 / 2 * 0.5 * np.sum(np.var(g - f, axis=0)), rel=1e-13)


def output_floor(kind, activation, *, repeated=False, seed=0, points=(0.0, 0.3)):
    problem = random_problem(
        COMM, scheme="resnet", activation=activation, loss=kind, outputs=3, points=points, seed=seed
    )
    if repeated:
        problem.inputs[:] = problem.inputs[:, :1]
    return problem, loss_floor(problem)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu", "linear"])
@pytest.mark.parametrize("kind", ["mse", "logistic", "softmax"])
def test_no_state_within_the_range_does_better(kind, activation):
    """The outputs' box contains what f_I + T [low, high] gives: the floor is below its best loss.

    Where one output stands alone the box is exact, and so is the floor.
    """
    problem, floor = output_floor(kind, activation)
    low, high = (0.3 * end for end in ACTIVATIONS[activation].range)
    shape = problem.inputs.shape

    def loss(move):
        point = problem.loss.at(problem.inputs + move.reshape(shape), problem.given_outputs)
        slope = point.terminal * problem.network.space.local_weights[:, None]
        return problem.sample_weights @ point.values, (slope * problem.sample_weights).ravel()

    ends = [(max(low, -1e3), min(high, 1e3))] * problem.inputs.size
    best = minimize(loss, np.zeros(problem.inputs.size), jac=True, bounds=ends)
    assert floor.value <= best.fun * (1 + 1e-6) + 1e-6
    if kind == "logistic" and activation in ("tanh", "sigmoid"):
        assert floor.value == pytest.approx(best.fun, rel=1e-5)
        assert floor.value > 0
    if activation == "linear":
        assert floor.value == 0


@pytest.mark.parametrize("kind", ["mse", "logistic", "softmax"])
def test_equal_inputs_with_different_labels(kind):
    """One output vector for all samples: its best by minimisation."""
    for seed in range(5):
        problem, floor = output_floor(kind, "linear", repeated=True, seed=seed)
        K = len(problem.given_outputs.offsets)
        loss, w = problem.loss, problem.sample_weights

        def value(z, loss=loss, w=w):
            return 1.3 * w @ loss.pointwise(np.repeat(z[:, None], 3, 1), loss.targets)[0]

        best = minimize(value, np.zeros(K), tol=1e-10).fun
        assert floor.value == pytest.approx(best, rel=1e-4, abs=1e-4)
        assert floor.together == 3


def test_a_learned_output_layer_frees_the_range():
    problem, floor = output_floor("logistic", "tanh")
    layer = problem.given_outputs
    learned = replace(problem, given_outputs=None)
    assert loss_floor(learned).value == 0 < floor.value
    assert loss_floor(learned, OutputLayer(layer.functions, layer.offsets)).value == floor.value
