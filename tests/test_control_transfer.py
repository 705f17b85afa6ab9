"""Controls between networks: depth projection, nodal values, distributed vectors."""

import numpy as np
import pytest
from helpers import GRADED, everywhere, random_control, random_problem, relative
from mpi4py import MPI

from fem_dnn.control_transfer import transfer_control, transfer_values
from fem_dnn.controls import ControlValues
from fem_dnn.depth import SCHEMES, DepthLevels
from fem_dnn.depth_projection import depth_projection
from fem_dnn.width_projection import width_projection

pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF
FINER = np.array([0.0, 0.1, 0.3, 0.4, 0.5, 0.8, 1.1])
"""Holds all ends of GRADED."""
OTHER = np.array([0.0, 0.25, 0.6, 1.1])


def levels(scheme: str, points: np.ndarray) -> DepthLevels:
    return DepthLevels(SCHEMES[scheme], points)


@pytest.mark.parametrize("schemes", [("dg1", "dg1"), ("dg0", "resnet"), ("dg1", "dg2")])
def test_depth_nested(schemes: tuple[str, str]) -> None:
    coarse, fine = levels(schemes[0], GRADED), levels(schemes[1], FINER)
    prolong, restrict = depth_projection(coarse, fine), depth_projection(fine, coarse)
    assert np.allclose(restrict @ prolong, np.eye(coarse.count), rtol=0, atol=1e-14)


@pytest.mark.parametrize("schemes", [("dg2", "resnet"), ("dg1", "dg2"), ("resnet", "dg1")])
def test_depth_restriction_is_the_adjoint(schemes: tuple[str, str]) -> None:
    """On slabs of which neither set refines the other."""
    one, other = levels(schemes[0], GRADED), levels(schemes[1], OTHER)
    there, back = depth_projection(one, other), depth_projection(other, one)
    assert np.allclose(
        other.weights[:, None] * there, (one.weights[:, None] * back).T, rtol=0, atol=1e-15
    )
    assert np.allclose(there.sum(axis=1), 1, rtol=0, atol=1e-14)


def test_depth_moments() -> None:
    """A linear function of t keeps its integral over every slab of the target."""
    source, target = levels("dg1", GRADED), levels("resnet", OTHER)
    assert np.allclose(
        depth_projection(source, target) @ (2 + 3 * source.t),
        2 + 3 * (OTHER[:-1] + OTHER[1:]) / 2,
        rtol=0,
        atol=1e-14,
    )


def test_another_depth_is_refused() -> None:
    with pytest.raises(ValueError, match=r"depths differ: 1\.1 and 2"):
        depth_projection(levels("dg1", GRADED), levels("dg1", np.array([0.0, 2.0])))


PAIRS = [
    ({"cells": 4, "degree": 1}, {"cells": 3, "degree": 2, "points": OTHER, "scheme": "dg2"}),
    ({"cells": (3, 2)}, {"cells": (4, 3), "points": OTHER, "scheme": "resnet"}),
    ({"cells": 4, "mask": True}, {"cells": 6, "mask": True, "points": FINER}),
]
COMMON = {"loss": "mse", "learn_outputs": True}


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_vectors_and_values_agree_on_any_ranks(first: dict, second: dict) -> None:
    here, there = (
        random_problem(WORLD, **COMMON, **first),
        random_problem(WORLD, **COMMON, **second),
    )
    vector = random_control(here)
    moved = transfer_control(here.controls, vector, there.controls)
    values = transfer_values(
        here.controls.values(vector),
        width_projection(here.network.space, there.network.space),
        depth_projection(here.network.levels, there.network.levels),
    )
    assert relative(moved, there.controls.coordinates(values)) < 1e-13
    serial = random_problem(SELF, **COMMON, **first), random_problem(SELF, **COMMON, **second)
    alone = transfer_control(serial[0].controls, random_control(serial[0]), serial[1].controls)
    assert relative(everywhere(there, moved), everywhere(serial[1], alone)) < 1e-13


def test_kernel_is_projected_in_both_arguments() -> None:
    """A product of functions goes to the product of their projections."""
    here, there = random_problem(WORLD, cells=4), random_problem(WORLD, cells=3, degree=1)
    P = width_projection(here.network.space, there.network.space)
    rng = np.random.default_rng(0)
    phi, psi = rng.standard_normal((2, here.network.space.n_nodes))
    alpha = rng.standard_normal(here.network.levels.count)
    values = ControlValues(kernel=alpha[:, None, None] * np.outer(phi, psi))
    moved = transfer_values(values, P, np.eye(len(alpha)))
    expected = alpha[:, None, None] * np.outer(P @ phi, P @ psi)
    assert moved.kernel is not None and relative(moved.kernel, expected) < 1e-14


@pytest.mark.parametrize("points", [GRADED, FINER])
def test_prolongation_keeps_norms_and_restriction_is_its_adjoint(points: np.ndarray) -> None:
    coarse = random_problem(WORLD, **COMMON, cells=3, degree=1)
    fine = random_problem(WORLD, **COMMON, cells=6, degree=1, points=points)
    a, b = random_control(coarse, 1), random_control(fine, 2)
    up = transfer_control(coarse.controls, a, fine.controls)
    down = transfer_control(fine.controls, b, coarse.controls)
    assert abs(fine.controls.norm(up) / coarse.controls.norm(a) - 1) < 1e-13
    left, right = fine.controls.dot(up, b), coarse.controls.dot(a, down)
    assert abs(left - right) < 1e-12 * fine.controls.norm(b) * fine.controls.norm(up)
    back = transfer_control(fine.controls, up, coarse.controls)
    assert coarse.controls.norm(back - a) < 1e-13 * coarse.controls.norm(a)


def test_other_numbers_of_outputs_are_refused() -> None:
    here = random_problem(WORLD, **COMMON)
    there = random_problem(WORLD, **COMMON, outputs=3)
    with pytest.raises(ValueError, match="outputs differ: 2 and 3"):
        transfer_control(here.controls, random_control(here), there.controls)
