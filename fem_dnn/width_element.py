"""The width elements: discontinuous, nodal, their nodes a quadrature rule with positive weights.

(f, g) is the sum over nodes of weights times f g. How good that is follows from the rule's degree
of exactness E on affine cells: products of functions of the space have degree 2r.

| cells | degree r | nodes | E | mass matrix |
|---|---|---|---|---|
| interval, quadrilateral, hexahedron | any | (r + 1)^d | 2r + 1 per direction | diagonal |
| triangle | 0, 1, 2 | 1, 3, 6 | 1, 2, 4 | diagonal |
| tetrahedron | 0, 1 | 1, 4 | 1, 2 | diagonal |
| triangle | 3 | 10 | 5 | (f, g) by quadrature, error O(h^6) |
| tetrahedron | 2 | 10 | 3 | (f, g) by quadrature, error O(h^4) |
| tetrahedron | 3 | 20 | 5 | (f, g) by quadrature, error O(h^6) |

Diagonal means to round-off: nodes and weights integrate the mass matrix exactly. That holds on
quadrilaterals of any shape too, whose Jacobian is linear in each direction; on hexahedra that are
no parallelepipeds, and on curved cells, only degree 0 keeps it.

The rules on triangles of 3 and 6 points are those of G. Strang, G. J. Fix, *An Analysis of the
Finite Element Method* (1973), and D. A. Dunavant, Int. J. Numer. Meth. Engng. 21 (1985). As many
points as the space has dimensions cannot be exact to degree 6 (triangle, 10 points), 4 or 6
(tetrahedron, 10 and 20); the exactness above leaves families of one parameter (compare L. Shunn,
F. Ham, J. Comput. Appl. Math. 236 (2012)), of which these are members with positive weights and
an error at the next degree close to the family's smallest. They were found by least squares.
"""

from __future__ import annotations

from itertools import permutations
from math import comb

import basix
import basix.ufl
import numpy as np
from numpy.typing import NDArray

from fem_dnn.errors import BadInput

Array = NDArray[np.float64]

VARIANT = basix.LagrangeVariant.gl_isaac
"""Nodes on tensor cells: Gauss-Legendre points; the cell's centre at degree 0."""

Orbit = tuple[tuple[float, ...], float]
"""Barycentric coordinates, of which all permutations are nodes, and the weight of each."""


def _vertices(d: int, a: float, weight: float) -> Orbit:
    return (a,) * d + (1 - d * a,), weight


_ORBITS: dict[tuple[str, int], list[Orbit]] = {
    ("triangle", 1): [_vertices(2, 1 / 6, 1 / 3)],
    ("triangle", 2): [
        _vertices(2, 0.09157621350977076, 0.10995174365532187),
        _vertices(2, 0.4459484909159649, 0.22338158967801147),
    ],
    ("triangle", 3): [
        ((1 / 3,) * 3, 0.20178485302531038),
        _vertices(2, 0.05474383362311397, 0.04118096195953119),
        (
            (
                0.29478349556073813,
                0.07017901186626398,
                1 - 0.29478349556073813 - 0.07017901186626398,
            ),
            0.11244537684934933,
        ),
    ],
    ("tetrahedron", 1): [_vertices(3, 0.1381966011250105, 0.25)],
    ("tetrahedron", 2): [
        _vertices(3, 0.07471596763724168, 0.048355035798023534),
        ((0.0938297563911002,) * 2 + (0.5 - 0.0938297563911002,) * 2, 0.134429976134651),
    ],
    ("tetrahedron", 3): [
        _vertices(3, 0.04984708309757022, 0.012735555773628409),
        _vertices(3, 0.3097424899802507, 0.10030302188925456),
        (
            (
                0.061563345467957865,
                0.061563345467957865,
                0.27155625092641833,
                1 - 2 * 0.061563345467957865 - 0.27155625092641833,
            ),
            0.04565380744570568,
        ),
    ],
}

EXACTNESS = {
    ("triangle", 1): 2,
    ("triangle", 2): 4,
    ("triangle", 3): 5,
    ("tetrahedron", 1): 2,
    ("tetrahedron", 2): 3,
    ("tetrahedron", 3): 5,
}
"""Highest degree of polynomials that the nodes of a simplex integrate exactly."""


def simplex_rule(cell: str, degree: int) -> tuple[Array, Array]:
    """Nodes and weights of the element of degree 1 to 3 on the reference triangle or tetrahedron.

    Returns:
        Points (nodes, d), and weights (nodes,) whose sum is the reference cell's volume.
    """
    points, weights = [], []
    for coordinates, weight in _ORBITS[cell, degree]:
        places = {c: k for k, c in enumerate(coordinates)}
        # Equal coordinates are one and the same place: their exchange is no new point.
        for order in sorted(set(permutations(places[c] for c in coordinates))):
            points.append([coordinates[k] for k in order])
            weights.append(weight)
    d = len(points[0]) - 1
    return np.array(points)[:, 1:].copy(), np.array(weights) * (1 / 2 if d == 2 else 1 / 6)


def width_element(cell: str, degree: int) -> basix.ufl._ElementBase:
    """Discontinuous nodal element of the given degree; see the module's table.

    Raises:
        BadInput: There is no such element.
    """
    if degree == 0 or cell not in ("triangle", "tetrahedron"):
        return basix.ufl.element(
            "Lagrange", cell, degree, lagrange_variant=VARIANT, discontinuous=True
        )
    if (cell, degree) not in _ORBITS:
        raise BadInput(
            None,
            "network.width_degree",
            f"{degree} is too high for {cell} cells: no nodes are known that are a quadrature rule "
            "with positive weights",
            "0 to 3; any on intervals, quadrilaterals and hexahedra",
        )
    nodes = simplex_rule(cell, degree)[0]
    kind = getattr(basix.CellType, cell)
    d = nodes.shape[1]
    return nodal_element(kind, nodes, np.eye(comb(degree + d, d)), degree, degree)


def nodal_element(
    cell: basix.CellType, nodes: Array, wcoeffs: Array, lowest: int, highest: int
) -> basix.ufl._ElementBase:
    """Discontinuous element whose degrees of freedom are values at points inside the cell.

    Args:
        cell: Cell.
        nodes: Shape (nodes, d).
        wcoeffs: The space, each row a function in Basix's orthonormal polynomials up to `highest`.
        lowest: Highest degree whose polynomials are all in the space.
        highest: Lowest degree whose polynomials hold the space.
    """
    dim = nodes.shape[1]
    # Basix wants a list for each dimension up to three.
    boundary = basix.topology(cell)[:-1]
    x = [[np.zeros((0, dim)) for _ in entities] for entities in boundary] + [[nodes]]
    M = [[np.zeros((0, 1, 0, 1)) for _ in entities] for entities in boundary]
    M += [[np.eye(len(nodes)).reshape(len(nodes), 1, len(nodes), 1)]]
    x, M = x + [[]] * (3 - dim), M + [[]] * (3 - dim)
    return basix.ufl.custom_element(
        cell,
        [],
        wcoeffs,
        x,
        M,
        0,
        basix.MapType.identity,
        basix.SobolevSpace.L2,
        True,
        lowest,
        highest,
    )
