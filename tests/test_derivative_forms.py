"""The forms of derivatives: consistent, semi-definite, with the natural conditions."""

from itertools import pairwise

import dolfinx
import numpy as np
import pytest
from helpers import fitted_order, make_network, width_space
from mpi4py import MPI

from fem_dnn.depth import SCHEMES, DepthLevels
from fem_dnn.derivative_forms import InconsistentFlux, depth_form, width_form
from fem_dnn.mesh import MeshArrays, interval, rectangle
from fem_dnn.width import WidthSpace

SELF = MPI.COMM_SELF
EXACT = np.pi**2 / 2
"""int_0^1 |d/dt cos(pi t)|^2 dt; its derivative vanishes at both ends."""


def graded(layers: int) -> np.ndarray:
    return np.linspace(0, 1, layers + 1) ** 1.2


@pytest.mark.parametrize(("scheme", "order"), [("dg0", 2), ("dg1", 2), ("dg2", 4)])
def test_depth_form_is_consistent(scheme: str, order: int) -> None:
    layers, errors = [8, 16, 32], []
    for n in layers:
        levels = DepthLevels(SCHEMES[scheme], graded(n))
        f = np.cos(np.pi * levels.t)
        errors.append(abs(f @ depth_form(levels) @ f - EXACT))
    assert abs(fitted_order(layers, errors) - order) < 0.15


@pytest.mark.parametrize("scheme", ["resnet", "dg0"])
def test_one_level_per_slab_pays_for_jumps(scheme: str) -> None:
    """The sum of |jump|^2 / (distance of the levels), as theory.md has it."""
    levels = DepthLevels(SCHEMES[scheme], np.array([0.0, 0.3, 0.5, 1.1, 1.2]))
    f = np.random.default_rng(0).standard_normal(levels.count)
    expected = sum(
        (b - a) ** 2 / (t - s)
        for (a, b), (s, t) in zip(pairwise(f), pairwise(levels.t), strict=True)
    )
    assert abs(f @ depth_form(levels) @ f - expected) < 1e-13 * expected


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("points", [[0.0, 2.0], [0.0, 0.3, 0.5, 1.1], [0.0, 1e-3, 1.001, 1.002]])
def test_depth_form_is_semi_definite_on_any_grading(scheme: str, points) -> None:
    form = depth_form(DepthLevels(SCHEMES[scheme], np.asarray(points))).toarray()
    eigenvalues = np.linalg.eigvalsh(form)
    scale = max(1.0, eigenvalues[-1])
    assert np.max(np.abs(form - form.T)) < 1e-14 * scale
    assert np.max(np.abs(form.sum(axis=1))) < 1e-12 * scale  # constants are free
    assert eigenvalues[0] > -1e-12 * scale
    assert np.all(eigenvalues[1:] > 1e-9)  # and nothing else is


@pytest.mark.parametrize("scheme", ["dg1", "dg2"])
def test_linear_functions_are_exact_up_to_the_boundary(scheme: str) -> None:
    """A continuous polynomial of the slab's degree has no jumps: its seminorm is exact."""
    levels = DepthLevels(SCHEMES[scheme], np.array([0.0, 0.3, 0.5, 1.1]))
    f = 3.0 * levels.t
    assert abs(f @ depth_form(levels) @ f - 9 * 1.1) < 1e-12


WIDTHS = {
    "interval": lambda n: interval(SELF, 2 * n),
    "rectangle": lambda n: rectangle(SELF, (n, n)),
    "triangles": lambda n: dolfinx.mesh.create_unit_square(SELF, n, n),
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("degree", "order"), [(0, 2), (1, 2), (2, 4)])
def test_width_form_is_consistent_and_semi_definite(width: str, degree: int, order: int) -> None:
    if width == "triangles" and degree == 0:
        pytest.skip("the two-point flux is not consistent there: see the next test")
    cells, errors = [4, 8, 16], []
    for n in cells:
        arrays = MeshArrays.of(WIDTHS[width](n))
        form = width_form(arrays, degree)
        f = np.cos(np.pi * WidthSpace(arrays.mesh(SELF), degree).nodes[:, 0])
        errors.append(abs(f @ form @ f - EXACT))
        if n == 4:
            eigenvalues = np.linalg.eigvalsh(form.toarray())
            assert abs(form - form.T).max() < 1e-12
            assert np.max(np.abs(form.sum(axis=1))) < 1e-11
            assert eigenvalues[0] > -1e-11 and eigenvalues[1] > 1e-4
    assert abs(fitted_order(cells, errors) - order) < 0.25


def test_two_point_flux_refuses_skew_meshes() -> None:
    arrays = MeshArrays.of(dolfinx.mesh.create_unit_square(SELF, 2, 3))
    with pytest.raises(InconsistentFlux, match="right angles"):
        width_form(arrays, 0)


@pytest.mark.mpi
@pytest.mark.parametrize(("cells", "degree"), [(7, 0), (4, 1), ((3, 4), 0), ((2, 3), 2)])
def test_width_form_does_not_depend_on_the_ranks(cells, degree: int) -> None:
    forms = []
    for comm in (MPI.COMM_WORLD, SELF):
        network = make_network(width_space(comm, cells, degree), "dg0")
        forms.append(width_form(network.space.mesh_arrays, degree).toarray())
    assert np.array_equal(*forms)
