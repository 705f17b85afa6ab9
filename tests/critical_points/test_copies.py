"""Symmetries of width and sign, and how copies are recognised."""

import numpy as np
import pytest
from helpers import everywhere, l2_problem, make_network, random_problem, width_space
from known_points import SELF, WORLD

from fem_dnn.controls import ControlValues
from fem_dnn.critical_points.copies import PROBABLY, alike, control_norms, copy_of
from fem_dnn.critical_points.symmetry import candidate_symmetries
from fem_dnn.inertia import inertia

pytestmark = pytest.mark.mpi


def names(problem) -> list[str]:
    return [symmetry.name for symmetry in candidate_symmetries(problem)]


def test_candidates():
    """Reflections of an interval and of a square, for odd activations with changes of sign."""
    odd = ["change of sign", "mirror image", "mirror image with change of sign"]
    assert names(random_problem(WORLD)) == odd
    assert names(random_problem(WORLD, activation="sigmoid")) == ["mirror image"]
    square = names(random_problem(SELF, activation="sigmoid", cells=(2, 2)))
    assert len(square) == 7  # the symmetries of the square but the identity
    assert len(names(random_problem(SELF, activation="sigmoid", cells=(3, 2)))) == 3


@pytest.mark.parametrize("name", ["change of sign", "mirror image"])
def test_symmetries_of_the_data_carry_over_to_gradients(name):
    """Two samples that the map exchanges: J is invariant, its gradient equivariant."""
    network = make_network(width_space(WORLD, 4), "dg1")
    f, g = np.array([1.0, 0.2, -0.4, 0.9]), np.array([0.3, -1.0, 0.5, 0.1])
    change = (lambda v: -v) if name == "change of sign" else (lambda v: v[::-1])
    problem = l2_problem(
        network, np.stack([f, change(f)]), np.stack([g, change(g)]), kernel=0.1, bias=0.2
    )
    (symmetry,) = [each for each in candidate_symmetries(problem) if each.name == name]
    at = problem.linearise(problem.controls.random(1))
    image = problem.linearise(symmetry.apply(at.control))
    assert image.objective == pytest.approx(at.objective, rel=1e-12)
    difference = image.gradient - symmetry.apply(at.gradient)
    assert problem.controls.norm(difference) < 1e-12
    assert problem.controls.norm(symmetry.apply(image.control) - at.control) < 1e-14


def permuted(problem, control, order, signs):
    values = problem.controls.values(control)
    both = signs[:, None] * signs
    return problem.controls.coordinates(
        ControlValues(
            values.kernel[:, order][:, :, order] * both,
            values.bias[:, order] * signs,
        )
    )


@pytest.mark.parametrize(
    ("signs", "how"),
    [
        ([1.0, 1.0, 1.0, 1.0], "permutation of the nodes"),
        ([1.0, -1.0, 1.0, 1.0], "permutation of the nodes and their signs"),
    ],
)
def test_hidden_neurons_may_be_exchanged(signs, how):
    """Nodes in which all data vanish are hidden neurons: their order and signs are free."""
    network = make_network(width_space(WORLD, 4), "resnet")
    f, g = np.zeros((2, 4)), np.zeros((2, 4))
    f[:, 0], g[:, 0], f[0, 3] = [1.0, -0.5], [0.3, 0.8], 0.6
    problem = l2_problem(network, f, g, kernel=0.1, bias=0.2)
    at = problem.linearise(problem.controls.random(4))
    image = problem.linearise(permuted(problem, at.control, [0, 2, 1, 3], np.array(signs)))
    # Any points will do: the spectrum, too, is invariant.
    kinds = [inertia(each, dense=0) for each in (at, image)]
    copy = copy_of(image, kinds[1], [(at, kinds[0])], candidate_symmetries(problem))
    assert (copy.of, copy.how, copy.certain) == (1, how, True)


def test_only_alike_points_are_copies():
    problem = random_problem(WORLD, scheme="resnet", cells=2)
    points = [problem.linearise(problem.controls.random(seed, 0.1)) for seed in (1, 2)]
    kinds = [inertia(each) for each in points]
    assert not alike(points[0], kinds[0], points[1], kinds[1])
    assert alike(points[0], kinds[0], points[0], kinds[0])
    assert copy_of(points[0], kinds[0], [(points[1], kinds[1])], []) is None


def test_a_copy_by_an_unknown_map_is_called_probable(monkeypatch):
    problem = random_problem(WORLD, scheme="resnet", cells=2)
    at = problem.linearise(problem.controls.random(1, 0.1))
    monkeypatch.setattr("fem_dnn.critical_points.copies._map_between", lambda *_: None)
    kind = inertia(at)
    copy = copy_of(at, kind, [(at, kind)], [])
    assert (copy.how, copy.certain) == (PROBABLY, False)


def test_control_norms():
    problem = random_problem(WORLD, loss="mse", learn_outputs=True)
    control = problem.controls.random_direction(2)
    norms = control_norms(problem.linearise(control))
    assert set(norms) == {"kernel", "bias", "outputs", "offsets"}
    assert sum(norm**2 for norm in norms.values()) == pytest.approx(1.0, abs=1e-13)
    offsets = everywhere(problem, control)[-2:]
    assert norms["offsets"] == pytest.approx(np.linalg.norm(offsets), rel=1e-13)
