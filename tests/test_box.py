"""Boxes of controls: projection, projected gradient, and what is active."""

import numpy as np
import pytest
from helpers import everywhere, random_control, random_problem
from mpi4py import MPI

from fem_dnn.active_set import ActiveSet
from fem_dnn.box import Box
from fem_dnn.controls import ControlSpace
from fem_dnn.problem import LearningProblem

pytestmark = pytest.mark.mpi

BOX = Box(np.array([-1.0, -1.0, -1.0, -np.inf]), np.array([2.0, 2.0, np.inf, 1.0]))


def bounded_problem(comm=MPI.COMM_WORLD, bounds=None, **options) -> LearningProblem:
    return random_problem(comm, bounds=bounds or {"kernel": (-0.3, 0.4), "bias": (-0.1, np.inf)},
                          **options)  # fmt: skip


def test_projected_gradient_is_the_derivative_of_the_projected_path() -> None:
    """d/dh P(c - h g) at h = 0+ is minus the projected gradient."""
    c, h = np.array([-1.0, 2.0, 0.5, 1.0]), 1e-3
    for g in np.random.default_rng(0).standard_normal((20, 4)):
        slope = (BOX.project(c - h * g) - c) / h
        assert np.allclose(slope, -BOX.projected_gradient(c, g), rtol=0, atol=1e-12)


def test_room_is_the_way_ahead_in_parts_of_the_width() -> None:
    c = np.array([0.5, 0.5, -1.0, 0.0])
    assert np.allclose(BOX.room(c, np.ones(4)), [0.5, 0.5, 0.0, 1.0])
    assert np.allclose(BOX.room(c, -np.ones(4)), [0.5, 0.5, 1.0, 1.0])


@pytest.mark.parametrize("mask", [False, True])
def test_the_box_holds_nodal_values(mask: bool) -> None:
    """Unequal cells and slabs: one box for values, many for coordinates; outputs are free."""
    problem = bounded_problem(loss="mse", learn_outputs=True, mask=mask, degree=1)
    controls = problem.controls
    before = controls.values(random_control(problem, scale=1.0))
    after = controls.values(controls.project(random_control(problem, scale=1.0)))
    assert np.allclose(after.kernel, np.clip(before.kernel, -0.3, 0.4), rtol=0, atol=1e-14)
    assert np.allclose(after.bias, np.maximum(before.bias, -0.1), rtol=0, atol=1e-14)
    assert np.array_equal(after.outputs, before.outputs)
    assert np.array_equal(after.offsets, before.offsets)


def test_without_finite_bounds_there_is_no_box() -> None:
    problem = random_problem(MPI.COMM_SELF)
    space, levels = problem.network.space, problem.network.levels
    for bounds in (None, {}, {"kernel": (-np.inf, np.inf)}):
        controls = ControlSpace(space, levels, bounds=bounds)
        vector = controls.random(0)
        assert controls.box is None and controls.project(vector) is vector


def test_active_set_by_hand() -> None:
    """One entry of each kind; fractions are measures, not counts."""
    problem = bounded_problem(MPI.COMM_SELF, {"bias": (0.0, 1.0)}, kernel=False)
    controls = problem.controls
    control = controls.constant(bias=0.5)
    control[0], control[1] = 0.0, controls.scale[1]
    at = problem.linearise(control)
    gradient = np.zeros(controls.n_local)
    gradient[0], gradient[2] = 1.0, 0.25 * controls.scale[2]
    at.gradient = gradient
    active = ActiveSet.of(at)
    assert active is not None
    assert list(np.flatnonzero(~active.inactive)) == [0, 1]
    measure = controls.scale**2
    assert active.fractions() == pytest.approx({"bias": measure[:2].sum() / measure.sum()})
    assert active.complementarity() == pytest.approx(0.25 * 0.5)
    assert active.free_count == controls.n_global - 1 and active.weak_count == 1


def test_the_same_on_any_number_of_ranks() -> None:
    found = []
    for comm in (MPI.COMM_WORLD, MPI.COMM_SELF):
        problem = bounded_problem(comm)
        at = problem.linearise(problem.controls.project(random_control(problem, scale=0.3)))
        active = ActiveSet.of(at)
        assert active is not None
        numbers = [*active.fractions().values(), active.complementarity(), at.gradient_norm]
        found.append((numbers, everywhere(problem, at.projected_gradient), active.free_count))
    assert np.allclose(found[0][0], found[1][0], rtol=1e-12, atol=0)
    assert np.allclose(found[0][1], found[1][1], rtol=0, atol=1e-12)
    assert found[0][2] == found[1][2]
