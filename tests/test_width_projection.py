"""The L2 projection between width spaces: exact where it can be, of full order where not."""

from collections.abc import Callable

import numpy as np
import pytest
from dolfinx.mesh import CellType, create_unit_square
from helpers import fitted_order, width_space
from mpi4py import MPI

from fem_dnn.cell_maps import CellMaps
from fem_dnn.mesh import MeshArrays
from fem_dnn.width import WidthSpace, width_element
from fem_dnn.width_projection import StoredWidth, width_projection

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF


def distorted(n: int, amount: float, cell: CellType = CellType.triangle) -> MeshArrays:
    """A square of n x n (halved) cells, its inner points moved smoothly."""
    plain = MeshArrays.of(create_unit_square(SELF, n, n, cell))
    move = amount * np.sin(np.pi * plain.points).prod(axis=1)
    points = plain.points + np.stack([move, -move], axis=1)
    return MeshArrays.sorted(plain.cell, points, plain.cells)


def halved(mesh: MeshArrays) -> MeshArrays:
    """Every triangle cut into four."""
    corners = mesh.points[mesh.cells]
    middle = (corners[:, [1, 2, 0]] + corners[:, [2, 0, 1]]) / 2  # opposite corner 0, 1, 2
    a, b, c = corners.transpose(1, 0, 2)
    u, v, w = middle.transpose(1, 0, 2)
    triangles = np.concatenate(
        [np.stack(three, axis=1) for three in ((a, w, v), (w, b, u), (v, u, c), (u, v, w))]
    )
    flat = triangles.reshape(-1, 2)
    _, first, number = np.unique(np.round(flat, 10), axis=0, return_index=True, return_inverse=True)
    return MeshArrays.sorted("triangle", flat[first], number.reshape(-1, 3))


NESTED = [
    (width_space(SELF, 3, 0), width_space(SELF, 6, 0)),
    (width_space(SELF, 3, 1), width_space(SELF, 9, 2)),
    (width_space(SELF, (2, 3), 1), width_space(SELF, (4, 6), 1)),
    (
        WidthSpace(distorted(3, 0.1).mesh(SELF), 0),
        WidthSpace(halved(distorted(3, 0.1)).mesh(SELF), 0),
    ),
    (
        WidthSpace(distorted(3, 0.1).mesh(SELF), 1),
        WidthSpace(halved(distorted(3, 0.1)).mesh(SELF), 1),
    ),
]


def mass(space: WidthSpace) -> np.ndarray:
    """The exact mass matrix in file order, by the identity's own route: not from node weights."""
    import ufl
    from dolfinx import fem

    u, v = ufl.TrialFunction(space.function_space), ufl.TestFunction(space.function_space)
    matrix = fem.assemble_matrix(fem.form(u * v * ufl.dx)).to_dense()
    return matrix[np.ix_(space.file_order, space.file_order)]


def l2_distance(
    space: WidthSpace, values: np.ndarray, f: Callable[[np.ndarray], np.ndarray]
) -> float:
    """|f_h - f| in L2, between the nodes too."""
    maps = CellMaps(space.mesh_arrays)
    x, weights, cell = maps.quadrature(2 * space.degree + 3, np.arange(len(maps.corners)))
    element = width_element(space.mesh_arrays.cell, space.degree)
    basis = element.tabulate(0, maps.pull_back(cell, x))[0]
    there = np.sum(basis * values[space.cell_nodes[cell]], axis=1)
    return float(np.sqrt(weights @ (there - f(x)) ** 2))


@pytest.mark.parametrize(("coarse", "fine"), NESTED)
def test_nested_meshes(coarse: WidthSpace, fine: WidthSpace) -> None:
    """Restriction undoes prolongation and is its adjoint in L2; constants stay."""
    prolong = width_projection(coarse, fine).toarray()
    restrict = width_projection(fine, coarse).toarray()
    assert np.allclose(restrict @ prolong, np.eye(coarse.n_nodes), rtol=0, atol=1e-13)
    assert np.allclose(mass(fine) @ prolong, restrict.T @ mass(coarse), rtol=0, atol=1e-15)
    assert np.allclose(prolong.sum(axis=1), 1, rtol=0, atol=1e-13)
    assert np.allclose(restrict.sum(axis=1), 1, rtol=0, atol=1e-13)


@pytest.mark.parametrize("cells", [5, (3, 4)])
@pytest.mark.parametrize("degrees", [(0, 0), (1, 2), (2, 1)])
def test_intervals_and_grids_that_are_not_nested(cells, degrees: tuple[int, int]) -> None:
    """Exact all the same: adjoint to each other, and constants stay."""
    source = width_space(SELF, cells, degrees[0], start=2.0 if cells == 5 else (2.0, -1.0))
    other = 7 if cells == 5 else (5, 2)
    target = width_space(SELF, other, degrees[1], start=2.0 if cells == 5 else (2.0, -1.0))
    there, back = width_projection(source, target), width_projection(target, source)
    assert np.allclose(
        there.toarray() * target.node_weights[:, None],
        (back.toarray() * source.node_weights[:, None]).T,
        rtol=0,
        atol=1e-15,
    )
    assert np.allclose(there.sum(axis=1), 1, rtol=0, atol=1e-13)


def test_cell_means_of_an_interval() -> None:
    """Two cells onto three: the middle one sees half of each."""
    P = width_projection(width_space(SELF, 2), width_space(SELF, 3)).toarray()
    assert np.allclose(P, [[1, 0], [0.5, 0.5], [0, 1]], rtol=0, atol=1e-15)


@pytest.mark.parametrize("cell", [CellType.triangle, CellType.quadrilateral])
@pytest.mark.parametrize("degree", [0, 1, 2])
def test_same_mesh(cell: CellType, degree: int) -> None:
    space = WidthSpace(distorted(3, 0.1, cell).mesh(SELF), degree)
    P = width_projection(space, space)
    assert np.allclose(P.toarray(), np.eye(space.n_nodes), rtol=0, atol=1e-13)


@pytest.mark.parametrize("cell", [CellType.triangle, CellType.quadrilateral])
@pytest.mark.parametrize("degree", [0, 1, 2])
def test_order_between_meshes_that_are_not_nested(cell: CellType, degree: int) -> None:
    """Degree + 1 both ways, for meshes of which neither refines the other."""

    def f(x: np.ndarray) -> np.ndarray:
        return np.sin(3 * x[:, 0] + x[:, 1])

    sizes = [4, 8, 12]
    errors: dict[str, list[float]] = {"finer": [], "coarser": []}
    for n in sizes:
        coarse = WidthSpace(distorted(n, 0.06, cell).mesh(SELF), degree)
        fine = WidthSpace(distorted(3 * n // 2, -0.03, cell).mesh(SELF), degree)
        for name, source, target in (("finer", coarse, fine), ("coarser", fine, coarse)):
            P = width_projection(source, target)
            assert np.allclose(P.sum(axis=1), 1, rtol=0, atol=1e-12)
            errors[name].append(l2_distance(target, P @ f(source.nodes), f))
    assert fitted_order(sizes, errors["finer"]) > degree + 0.85
    assert fitted_order(sizes, errors["coarser"]) > degree + 0.85


def test_a_mesh_that_is_finer_on_one_side_only() -> None:
    """More cells in total, fewer on the left: the few points there must not be all there is."""
    stretched = distorted(6, 0.0)
    left = stretched.points ** [3.0, 1.0]
    source = WidthSpace(
        MeshArrays.sorted("triangle", 1 - left[:, ::-1], stretched.cells).mesh(SELF), 1
    )
    target = WidthSpace(
        MeshArrays.sorted("triangle", stretched.points[:, ::-1], stretched.cells[:-1]).mesh(SELF),
        1,
    )
    P = width_projection(source, target)
    f = 1 + 2 * source.nodes[:, 0] - source.nodes[:, 1]
    g = 1 + 2 * target.nodes[:, 0] - target.nodes[:, 1]
    assert np.allclose(P @ f, g, rtol=0, atol=1e-12)


def test_curved_boundary() -> None:
    """Two polygons for one disc: what sticks out takes the nearest cell."""

    def disc(n: int) -> WidthSpace:
        square = distorted(n, 0.0).points * 2 - 1
        radius, angle = np.abs(square).max(axis=1), np.arctan2(square[:, 1], square[:, 0])
        points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return WidthSpace(
            MeshArrays.sorted("triangle", points, distorted(n, 0.0).cells).mesh(SELF), 1
        )

    coarse, fine = disc(4), disc(10)
    for source, target in ((coarse, fine), (fine, coarse)):
        P = width_projection(source, target)
        assert np.allclose(P @ source.nodes, target.nodes, rtol=0, atol=1e-12)


@pytest.mark.mpi
@pytest.mark.parametrize("degree", [0, 1])
def test_any_number_of_ranks(degree: int) -> None:
    shapes = [(7, 5), ((4, 3), (3, 5))]
    for first, second in shapes:
        spread = width_projection(
            width_space(WORLD, first, degree), width_space(WORLD, second, degree)
        )
        alone = width_projection(
            width_space(SELF, first, degree), width_space(SELF, second, degree)
        )
        assert np.allclose(spread.toarray(), alone.toarray(), rtol=0, atol=1e-14)
    meshes = distorted(3, 0.1), distorted(4, 0.1)
    spread = width_projection(*(WidthSpace(mesh.mesh(WORLD), degree) for mesh in meshes))
    alone = width_projection(*(WidthSpace(mesh.mesh(SELF), degree) for mesh in meshes))
    assert np.allclose(spread.toarray(), alone.toarray(), rtol=0, atol=1e-13)


@pytest.mark.mpi
def test_a_space_from_a_file_serves_as_well() -> None:
    space, target = width_space(WORLD, 6, 1), width_space(WORLD, 4, 1)
    stored = StoredWidth(space.mesh_arrays, space.cell_nodes, space.degree)
    there, again = width_projection(space, target), width_projection(stored, target)
    assert np.array_equal(there.toarray(), again.toarray())


@pytest.mark.mpi
@pytest.mark.parametrize("other", [{"length": 2.0}, {"start": 0.5}])
def test_other_domains_are_refused(other: dict) -> None:
    with pytest.raises(ValueError, match="different domains"):
        width_projection(width_space(WORLD, 4), width_space(WORLD, 4, **other))
    with pytest.raises(ValueError, match="dimension"):
        width_projection(width_space(WORLD, 4), width_space(WORLD, (2, 2)))


def test_projection_is_the_best_approximation() -> None:
    """The residual is orthogonal to the target space, by quadrature on a much finer mesh."""
    source, target = width_space(SELF, 5, 2), width_space(SELF, 3, 1)
    f = np.sin(3 * source.nodes[:, 0])
    finer = width_space(SELF, 15, 2)
    up_source = width_projection(source, finer) @ f
    residual = up_source - width_projection(target, finer) @ (width_projection(source, target) @ f)
    tests = width_projection(target, finer).toarray()
    assert np.allclose(tests.T @ (finer.node_weights * residual), 0, rtol=0, atol=1e-15)
