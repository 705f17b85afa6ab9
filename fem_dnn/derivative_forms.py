"""Consistent discontinuous forms of derivatives in depth and width (theory.md section 2).

Controls are discontinuous in depth and in width, so that their H1 seminorms are understood through
forms that are consistent with int f' g' and whose natural conditions are those of Neumann:

    one level per slab (resnet, dg0)   sum over slab faces of [f][g] / (distance of the levels),
    degree 0 in width                  the two-point flux sum over facets of |F| [f][g] / d,
    higher degrees                     the symmetric interior penalty form

        sum_K int_K grad f . grad g - sum_F int_F ({d_n f}[g] + {d_n g}[f] - penalty [f][g]).

The penalty is large enough for the form to be positive semi-definite with the constants as its
kernel: penalty_F = max over the two cells of C |dK| / |K| with the constant C of the inverse trace
inequality (Warburton & Hesthaven, Comput. Methods Appl. Mech. Engrg. 192, 2003), against which
Young's inequality leaves half of int |grad f|^2.

Source of the forms: Arnold, Brezzi, Cockburn & Marini, SIAM J. Numer. Anal. 39 (2002); Eymard,
Gallouet & Herbin, Finite Volume Methods (2000).
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sparse
import ufl
from dolfinx import fem, mesh
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.depth import DepthLevels, lagrange_basis
from fem_dnn.errors import FemDnnError
from fem_dnn.mesh import MeshArrays
from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]

ORTHOGONAL = 1e-8
"""Sine of the angle between a facet's normal and the line through its cells' centres, at most."""


class InconsistentFlux(FemDnnError):
    """The two-point flux is not consistent on a width mesh."""

    def __str__(self) -> str:
        return (
            "the two-point flux of degree 0 is not consistent on this width mesh: lines between "
            "the centres of neighbouring cells do not meet their faces at right angles"
        )


def depth_form(levels: DepthLevels) -> sparse.csr_array:
    """The form of int_0^T f' g' dt on the control levels.

    Args:
        levels: Control levels.

    Returns:
        Symmetric positive semi-definite, shape (levels.count, levels.count), banded.
    """
    if levels.scheme.levels > 1:
        return _depth_interior_penalty(levels)
    flux = 1.0 / np.diff(levels.t)
    jump = sparse.diags_array([-1.0, 1.0], offsets=[0, 1], shape=(levels.count - 1, levels.count))
    return sparse.csr_array(jump.T @ sparse.diags_array(flux) @ jump)


def _depth_interior_penalty(levels: DepthLevels) -> sparse.csr_array:
    scheme, tau = levels.scheme, levels.steps
    basis = lagrange_basis(scheme.points)
    slope: Array = np.stack([phi.deriv()(scheme.points) for phi in basis])  # (basis, point)
    stiffness = (slope * scheme.weights) @ slope.T
    form = sparse.block_diag([stiffness / step for step in tau]).tolil()
    # Traces of a slab's polynomial and of its derivative (by reference depth) at both of its ends.
    value = {end: np.array([phi(end) for phi in basis]) for end in (0.0, 1.0)}
    normal = {end: np.array([phi.deriv()(end) for phi in basis]) for end in (0.0, 1.0)}
    for n in range(levels.layers - 1):
        before, after = tau[n], tau[n + 1]
        jump = np.concatenate([value[1.0], -value[0.0]])
        mean = 0.5 * np.concatenate([normal[1.0] / before, normal[0.0] / after])
        penalty = scheme.levels**2 / min(before, after)
        face = penalty * np.outer(jump, jump) - np.outer(mean, jump) - np.outer(jump, mean)
        both = slice(n * scheme.levels, (n + 2) * scheme.levels)
        form[both, both] += face
    return sparse.csr_array(form)


def width_form(arrays: MeshArrays, degree: int) -> sparse.csr_array:
    """The form of int_Y grad f . grad g dx on the nodes of a width space, in file order.

    One process: it is made on a copy of the mesh, so that it does not depend on the ranks.

    Args:
        arrays: The width mesh.
        degree: Degree of the width space.

    Returns:
        Symmetric positive semi-definite, shape (nodes, nodes).

    Raises:
        InconsistentFlux: Degree 0 on a mesh whose cells are not orthogonal.
    """
    domain = arrays.mesh(MPI.COMM_SELF)
    space = WidthSpace(domain, degree)
    f, g = ufl.TrialFunction(space.function_space), ufl.TestFunction(space.function_space)
    form = _two_point_flux(domain, f, g) if degree == 0 else _interior_penalty(space, f, g)
    matrix = fem.assemble_matrix(fem.form(form)).to_scipy()
    return sparse.csr_array(matrix)[space.file_order][:, space.file_order]


def _two_point_flux(domain: mesh.Mesh, f: ufl.core.expr.Expr, g: ufl.core.expr.Expr) -> ufl.Form:
    dim = domain.geometry.dim
    centre = fem.Function(fem.functionspace(domain, ("DG", 0, (dim,))))
    cells = np.arange(domain.topology.index_map(domain.topology.dim).size_local, dtype=np.int32)
    middles = mesh.compute_midpoints(domain, domain.topology.dim, cells)
    centre.x.array[:] = middles[:, :dim].ravel()
    across = centre("+") - centre("-")
    distance = ufl.sqrt(ufl.dot(across, across))
    normal = ufl.FacetNormal(domain)("+")
    cosine = ufl.dot(normal, across) / distance
    skew = fem.assemble_scalar(fem.form(abs(1 - cosine**2) * ufl.dS(domain=domain)))
    total = fem.assemble_scalar(fem.form(fem.Constant(domain, 1.0) * ufl.dS(domain=domain)))
    if skew > ORTHOGONAL**2 * total:
        raise InconsistentFlux
    return ufl.jump(f) * ufl.jump(g) / distance * ufl.dS


def _interior_penalty(space: WidthSpace, f: ufl.core.expr.Expr, g: ufl.core.expr.Expr) -> ufl.Form:
    domain, k, d = space.mesh, space.degree, space.dimension
    piecewise = fem.functionspace(domain, ("DG", 0))
    v = ufl.TestFunction(piecewise)
    volume = fem.assemble_vector(fem.form(v * ufl.dx)).array
    surface = fem.assemble_vector(fem.form(v * ufl.ds + 2 * ufl.avg(v) * ufl.dS)).array
    simplex = domain.topology.cell_name() in ("triangle", "tetrahedron")
    constant = (k + 1) * (k + d) / d if simplex else (k + 1) ** 2
    strength = fem.Function(piecewise)
    strength.x.array[:] = constant * surface / volume
    penalty = ufl.max_value(strength("+"), strength("-"))
    normal = ufl.FacetNormal(domain)

    def flux(h: ufl.core.expr.Expr) -> ufl.core.expr.Expr:
        return ufl.dot(ufl.avg(ufl.grad(h)), normal("+"))

    def jump(h: ufl.core.expr.Expr) -> ufl.core.expr.Expr:
        return h("+") - h("-")

    faces = penalty * jump(f) * jump(g) - flux(f) * jump(g) - flux(g) * jump(f)
    return ufl.dot(ufl.grad(f), ufl.grad(g)) * ufl.dx + faces * ufl.dS
