"""The width elements' nodes are quadrature rules; where they make the mass matrix diagonal."""

from math import comb

import basix
import dolfinx
import numpy as np
import pytest
import ufl
from dolfinx import fem
from helpers import fitted_order, in_file_order
from mpi4py import MPI

from fem_dnn.errors import BadInput
from fem_dnn.mesh import MeshArrays, box
from fem_dnn.width import WidthSpace
from fem_dnn.width_element import EXACTNESS, simplex_rule, width_element

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF


def simplices(cell: str, n: int) -> dolfinx.mesh.Mesh:
    make = dolfinx.mesh.create_unit_square
    if cell == "triangle":
        return make(SELF, n, n)
    return dolfinx.mesh.create_unit_cube(SELF, n, n, n)


def mass_matrix(space: WidthSpace) -> np.ndarray:
    u, v = ufl.TrialFunction(space.function_space), ufl.TestFunction(space.function_space)
    n = space.n_local
    return fem.assemble_matrix(fem.form(u * v * ufl.dx)).to_scipy().toarray()[:n, :n]


@pytest.mark.parametrize(("cell", "degree"), EXACTNESS)
def test_moments_of_the_rules(cell: str, degree: int) -> None:
    """Exact to the degree stated, and not beyond; all points inside, all weights positive."""
    points, weights = simplex_rule(cell, degree)
    d, exact = points.shape[1], EXACTNESS[cell, degree]
    assert len(points) == comb(degree + d, d)
    assert weights.min() > 0 and points.min() > 0 and points.sum(axis=1).max() < 1
    orthonormal = basix.tabulate_polynomials(
        basix.PolynomialType.legendre, getattr(basix.CellType, cell), exact + 1, points
    )
    moments = orthonormal @ weights
    moments[0] -= np.sqrt(weights.sum())
    within = comb(exact + d, d)
    assert np.max(np.abs(moments[:within])) < 1e-15
    assert np.max(np.abs(moments[within:])) > 1e-2


@pytest.mark.parametrize(("cell", "degree"), EXACTNESS)
def test_basis_is_nodal_and_complete(cell: str, degree: int) -> None:
    """Values at the nodes are the degrees of freedom, and polynomials are reproduced."""
    element = width_element(cell, degree).basix_element
    points = element.points
    values = element.tabulate(0, points)[0, :, :, 0]
    assert np.allclose(values, np.eye(len(points)), rtol=0, atol=1e-13)
    at = basix.create_lattice(element.cell_type, 5, basix.LatticeType.equispaced, True)
    polynomial = (0.3 + points @ np.arange(1.0, points.shape[1] + 1)) ** degree
    expected = (0.3 + at @ np.arange(1.0, points.shape[1] + 1)) ** degree
    assert np.allclose(element.tabulate(0, at)[0, :, :, 0] @ polynomial, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("cell", "degree"),
    [("triangle", 0), ("triangle", 1), ("triangle", 2), ("tetrahedron", 0), ("tetrahedron", 1)],
)
def test_mass_matrix_is_diagonal(cell: str, degree: int) -> None:
    space = WidthSpace(simplices(cell, 2), degree)
    error = mass_matrix(space) - np.diag(space.local_weights)
    assert np.max(np.abs(error)) < 1e-15


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_mass_matrix_is_diagonal_on_quadrilaterals_of_any_shape(degree: int) -> None:
    points = np.array([[0.0, 0], [1, 0.2], [2, 0], [0.1, 1], [1.3, 1.2], [2.2, 1.5]])
    arrays = MeshArrays.sorted("quadrilateral", points, np.array([[0, 1, 3, 4], [1, 2, 4, 5]]))
    space = WidthSpace(arrays.mesh(SELF), degree)
    # The shoelace formula around the outline.
    x, y = points[[0, 1, 2, 5, 4, 3]].T
    area = (x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
    assert abs(space.node_weights.sum() - area) < 1e-14
    assert np.max(np.abs(mass_matrix(space) - np.diag(space.local_weights))) < 1e-15


@pytest.mark.parametrize(
    ("cell", "degree", "sizes", "order"),
    [
        ("triangle", 3, (2, 3, 4), 6),
        ("tetrahedron", 2, (2, 3, 4), 4),
        ("tetrahedron", 3, (2, 3), 6),
    ],
)
def test_quadrature_error_of_the_inner_product(
    cell: str, degree: int, sizes: tuple[int, ...], order: int
) -> None:
    """(f, g) of smooth functions by nodes and weights: the order of the table."""
    errors = []
    d = 2 if cell == "triangle" else 3
    one = (np.exp(1.5) - 1) / 1.5  # the integral of exp(1.5 x) over (0, 1)
    for n in sizes:
        space = WidthSpace(simplices(cell, n), degree)
        f, g = np.exp(space.nodes.sum(axis=1)), np.exp(space.nodes.sum(axis=1) / 2)
        errors.append(abs(space.node_weights @ (f * g) - one**d))
    assert abs(fitted_order(sizes, errors) - order) < 0.3


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(BadInput, match="4 is too high for triangle cells") as caught:
        width_element("triangle", 4)
    assert caught.value.key == "network.width_degree"
    # A triangle whose sides' middles have moved far: cubics on it get a negative weight.
    points = np.array([[0, 0], [1, 0], [0, 1], [0.5, 0.5], [0, 0.8], [0.8, 0]])
    bent = MeshArrays.sorted("triangle", points, np.arange(6)[None], degree=2).mesh(SELF)
    WidthSpace(bent, 2).require_positive_weights()
    with pytest.raises(BadInput, match="nodes without a positive weight") as caught:
        WidthSpace(bent, 3).require_positive_weights()
    assert caught.value.key == "network.width_degree"


@pytest.mark.mpi
@pytest.mark.parametrize("degree", [0, 1])
def test_boxes(degree: int) -> None:
    """A three-dimensional width is the same on any number of ranks."""
    mesh = {"start": (0.0, 1.0, 0.0), "length": (1.0, 2.0, 0.5)}
    world = WidthSpace(box(WORLD, (2, 3, 1), **mesh), degree)
    alone = WidthSpace(box(SELF, (2, 3, 1), **mesh), degree)
    assert np.allclose(world.nodes, alone.nodes, rtol=0, atol=1e-14)
    assert np.allclose(world.node_weights, alone.node_weights, rtol=0, atol=1e-15)
    assert abs(world.node_weights.sum() - 1) < 1e-14
    assert np.array_equal(world.cell_nodes, alone.cell_nodes)
    values = world.nodes @ np.array([1.0, 2.0, 3.0])
    mine = world.from_file_order(values)[:, None]
    assert np.array_equal(in_file_order(world, mine)[0], values)
