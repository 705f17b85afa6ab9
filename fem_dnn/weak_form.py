"""The weak forms of state, tangent and adjoint in UFL on the depth-width cylinder.

Discontinuous in depth, upwind at the slab faces (theory.md section 1): find f such that for all v

    sum_n int_{I_n} int_Y (d_t f - sigma(u)) v dx dt
      + sum_{n>=1} int_Y (f(t_n^+) - f(t_n^-)) v(t_n^+) dx
      + int_Y (f(0^+) - f_I) v(0^+) dx = 0,            u = Kf + b.

The trial space is the product of a depth element (degree q, nodal at Gauss-Legendre points) and
the width element (degree r), a custom element on the extruded cell. Nonlocal terms enter as
coefficients. The solver itself works with the Kronecker factors of these forms (`depth`, `width`);
the tests assert that both agree to round-off.

Adjoint consistency: `adjoint_form` is the adjoint equation, discretised, and it is the transpose of
the state form's derivative. To optimise and then discretise is therefore to discretise and then
optimise, for dg0, dg1 and dg2. For resnet it is not: the state's nonlocal term sees the incoming
trace, so the transposed one sees what comes in from T (`layered_adjoint_form`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import product

import basix
import basix.ufl
import numpy as np
import ufl
from dolfinx import fem
from numpy.typing import NDArray

from fem_dnn.depth import DepthScheme, gauss_legendre
from fem_dnn.mesh import DepthWidthMesh
from fem_dnn.width import WidthSpace
from fem_dnn.width_element import nodal_element, width_element

Array = NDArray[np.float64]

UFL_ACTIVATIONS: dict[str, Callable[[ufl.core.expr.Expr], ufl.core.expr.Expr]] = {
    "tanh": ufl.tanh,
    "sigmoid": lambda u: 1 / (1 + ufl.exp(-u)),
    "relu": lambda u: ufl.max_value(u, 0.0),
    "softplus": lambda u: ufl.ln(1 + ufl.exp(u)),
    "gelu": lambda u: u * (1 + ufl.erf(u / np.sqrt(2))) / 2,
    "linear": lambda u: u,
}
"""The activations as UFL expressions."""


def cylinder_element(
    cell: str, width_degree: int, depth_degree: int
) -> tuple[basix.ufl._ElementBase, Array, Array]:
    """The product of width and depth elements on an extruded cell.

    Args:
        cell: quadrilateral or hexahedron; the last reference coordinate is depth.
        width_degree: Degree in each width direction.
        depth_degree: Degree in depth.

    Returns:
        The element, its nodes on the reference cell, depth slowest and otherwise in the order of
        the width element's nodes, and the weights of the quadrature rule at these nodes.
    """
    cell_type = getattr(basix.CellType, cell)
    dim = 2 if cell == "quadrilateral" else 3
    degrees = [width_degree] * (dim - 1) + [depth_degree]
    highest = max(degrees)

    # Basix's polynomial set on tensor cells is the product of orthonormal Legendre polynomials,
    # first coordinate slowest; ours spans those with the wanted degree in each direction.
    exponents = list(product(range(highest + 1), repeat=dim))
    kept = [
        k
        for k, powers in enumerate(exponents)
        if all(p <= d for p, d in zip(powers, degrees, strict=True))
    ]
    wcoeffs = np.zeros((len(kept), len(exponents)))
    wcoeffs[np.arange(len(kept)), kept] = 1.0

    base = "interval" if dim == 2 else "quadrilateral"
    width = width_element(base, width_degree).basix_element.points
    depth = gauss_legendre(depth_degree + 1)[0]
    nodes = np.concatenate(
        [np.tile(width, (len(depth), 1)), np.repeat(depth, len(width))[:, None]], axis=1
    )
    element = nodal_element(cell_type, nodes, wcoeffs, min(degrees), highest)
    return element, nodes, _rule(nodes, degrees)


def _rule(nodes: Array, degrees: list[int]) -> Array:
    """Weights of the tensor Gauss-Legendre rule at its nodes."""
    weights = np.ones(len(nodes))
    for axis, degree in enumerate(degrees):
        points, w = gauss_legendre(degree + 1)
        weights *= w[np.argmin(np.abs(nodes[:, axis, None] - points), axis=1)]
    return weights


class CylinderSpace:
    """Functions on the depth-width cylinder: depth element times width space.

    Args:
        mesh: The depth-width mesh; its width must be extrudable.
        width: Width space on `mesh.width`.
        scheme: Depth scheme; resnet uses degree 0.
    """

    def __init__(self, mesh: DepthWidthMesh, width: WidthSpace, scheme: DepthScheme) -> None:
        self.mesh, self.width, self.scheme = mesh, width, scheme
        self.element, self._nodes, weights = cylinder_element(
            mesh.cylinder.topology.cell_name(), width.degree, scheme.levels - 1
        )
        self.function_space = fem.functionspace(mesh.cylinder, self.element)
        nodal = {
            "quadrature_rule": "custom",
            "quadrature_points": self._nodes,
            "quadrature_weights": weights,
        }
        cylinder = mesh.cylinder
        self.dx_nodal = ufl.Measure("dx", domain=cylinder, metadata=nodal)
        """Volume measure with the scheme's nodal quadrature, for nonlinear terms."""
        self.dx = ufl.Measure("dx", domain=cylinder)
        top, bottom = self._faces()
        above = np.stack([mesh.columns[:, 1:], np.full_like(mesh.columns[:, 1:], bottom)], axis=-1)
        below = np.stack([mesh.columns[:, :-1], np.full_like(mesh.columns[:, :-1], top)], axis=-1)
        faces = np.concatenate([above, below], axis=-1).reshape(-1).astype(np.int32)
        self.dS = ufl.Measure("dS", domain=cylinder, subdomain_data=[(1, faces)])(1)
        """Slab faces t_n, n >= 1; '+' is the later slab, '-' the earlier one."""
        first, last = mesh.columns[:, 0], mesh.columns[:, -1]
        inflow = np.stack([first, np.full_like(first, bottom)], axis=-1).reshape(-1)
        outflow = np.stack([last, np.full_like(last, top)], axis=-1).reshape(-1)
        ends = ufl.Measure(
            "ds",
            domain=cylinder,
            subdomain_data=[(1, inflow.astype(np.int32)), (2, outflow.astype(np.int32))],
        )
        self.ds_start, self.ds_end = ends(1), ends(2)
        """The faces t = 0 and t = T."""

    def _faces(self) -> tuple[int, int]:
        """Local numbers of a cell's faces at later and earlier depth."""
        topology = basix.topology(self.element.cell_type)
        facets = [sorted(f) for f in topology[-2]]
        n = len(topology[0])
        return facets.index(list(range(n // 2, n))), facets.index(list(range(n // 2)))

    @cached_property
    def dofs(self) -> NDArray[np.int32]:
        """Cylinder degree of freedom of each (level, width node), shape (levels, n_local)."""
        nw = len(self._nodes) // self.scheme.levels
        of_cell = self.function_space.dofmap.list[self.mesh.columns]  # (cells, layers, q+1 * nw)
        cells, layers = self.mesh.columns.shape
        of_cell = of_cell.reshape(cells, layers, self.scheme.levels, nw)
        dofs = np.empty((layers, self.scheme.levels, self.width.n_local), dtype=np.int32)
        width_dofs = self.width.function_space.dofmap.list[:cells]
        dofs[:, :, width_dofs] = of_cell.transpose(1, 2, 0, 3)
        return dofs.reshape(layers * self.scheme.levels, -1)

    def function(self, values: Array, name: str = "f") -> fem.Function:
        """The function with the given nodal values, shape (levels, n_local), one sample."""
        f = fem.Function(self.function_space, name=name)
        f.x.array[self.dofs] = values
        return f

    def values(self, vector: Array) -> Array:
        """Entries of a local vector as (level, width node)."""
        return vector[self.dofs]

    @cached_property
    def thickness(self) -> fem.Function:
        """The slab thickness tau, constant on every slab."""
        steps = np.repeat(self.mesh.steps, self.scheme.levels)
        return self.function(np.broadcast_to(steps[:, None], self.dofs.shape), name="tau")

    def on_depth_ends(self, start: Array) -> fem.Function:
        """A function on Y (values shape (n_local,)) carried constant through the depth."""
        return self.function(np.tile(start, (self.mesh.layers * self.scheme.levels, 1)))


def _d_t(f: ufl.core.expr.Expr, space: CylinderSpace) -> ufl.core.expr.Expr:
    return ufl.grad(f)[space.mesh.cylinder.geometry.dim - 1]


def transport_form(space: CylinderSpace, f: ufl.core.expr.Expr, v: ufl.core.expr.Expr) -> ufl.Form:
    """sum_n int d_t f v + sum_{n>=1} int [f] v(t_n^+) + int f(0^+) v(0^+): D = D_t x M_x."""
    volume = _d_t(f, space) * v * space.dx
    jumps = (f("+") - f("-")) * v("+") * space.dS
    return volume + jumps + f * v * space.ds_start


def state_form(
    space: CylinderSpace,
    f: ufl.core.expr.Expr,
    u: ufl.core.expr.Expr,
    inputs: ufl.core.expr.Expr,
    v: ufl.core.expr.Expr,
    activation: str,
) -> ufl.Form:
    """The weak form of the state equation, the pre-activation u = Kf + b being a coefficient."""
    sigma = UFL_ACTIVATIONS[activation](u)
    return transport_form(space, f, v) - sigma * v * space.dx_nodal - inputs * v * space.ds_start


def activation_slope(u: ufl.core.expr.Expr, activation: str) -> ufl.core.expr.Expr:
    """sigma'(u), by UFL's own differentiation."""
    at = ufl.variable(u)
    return ufl.diff(UFL_ACTIVATIONS[activation](at), at)


def tangent_form(
    space: CylinderSpace,
    df: ufl.core.expr.Expr,
    u: ufl.core.expr.Expr,
    du: ufl.core.expr.Expr,
    v: ufl.core.expr.Expr,
    activation: str,
) -> ufl.Form:
    """The weak form of d_t df = sigma'(u) du, df(0) = 0, with du = K df + dK f + db given."""
    slope = activation_slope(u, activation)
    return transport_form(space, df, v) - slope * du * v * space.dx_nodal


def adjoint_transport_form(
    space: CylinderSpace, p: ufl.core.expr.Expr, v: ufl.core.expr.Expr
) -> ufl.Form:
    """-sum_n int d_t p v + sum_{n>=1} int (p(t_n^-) - p(t_n^+)) v(t_n^-) + int p(T^-) v(T^-)."""
    volume = -_d_t(p, space) * v * space.dx
    jumps = (p("-") - p("+")) * v("-") * space.dS
    return volume + jumps + p * v * space.ds_end


def adjoint_form(
    space: CylinderSpace,
    p: ufl.core.expr.Expr,
    transposed: ufl.core.expr.Expr,
    residual: ufl.core.expr.Expr,
    terminal: ufl.core.expr.Expr,
    v: ufl.core.expr.Expr,
) -> ufl.Form:
    """The weak form of -d_t p = K'(sigma'(u) p) + mu (f - g), p(T) = grad ell(f(T)).

    Args:
        space: Functions on the cylinder; a dg scheme's.
        p: Adjoint of one sample.
        transposed: K'(sigma'(u) p).
        residual: mu (f - g).
        terminal: grad ell(f(T)), carried into the depth.
        v: Test function.
    """
    source = (transposed + residual) * v * space.dx_nodal
    return adjoint_transport_form(space, p, v) - source - terminal * v * space.ds_end


def layered_adjoint_form(
    space: CylinderSpace,
    p: ufl.core.expr.Expr,
    transposed: ufl.core.expr.Expr,
    residual: ufl.core.expr.Expr,
    terminal: ufl.core.expr.Expr,
    v: ufl.core.expr.Expr,
) -> ufl.Form:
    """The adjoint of the layered network: resnet's counterpart of `adjoint_form`, explicit from T.

    The state's nonlocal term in slab n is K f(t_n^-): its transpose meets v(t_n^-), the test
    function of the slab before. The tracking term reads (f(t_n^-) + f(t_{n+1}^-)) / 2 in slab n,
    so half of the residual falls to each of the two slabs. Arguments as in `adjoint_form`.
    """
    passed_on = (space.thickness * (transposed + residual / 2))("+") * v("-") * space.dS
    kept = residual / 2 * v * space.dx_nodal
    end = terminal * v * space.ds_end
    return adjoint_transport_form(space, p, v) - passed_on - kept - end


def bias_stationarity_form(
    space: CylinderSpace,
    bias: ufl.core.expr.Expr,
    pairs: list[tuple[float, ufl.core.expr.Expr, ufl.core.expr.Expr]],
    weight: float,
    v: ufl.core.expr.Expr,
    activation: str,
) -> ufl.Form:
    """The weak form of lambda_b b + sum_s w_s sigma'(u_s) p_s.

    Args:
        space: Functions on the cylinder.
        bias: b.
        pairs: (w_s, u_s, p_s) of every sample.
        weight: lambda_b.
        v: Test function.
        activation: Name of sigma.
    """
    q = sum((w * activation_slope(u, activation) * p for w, u, p in pairs), start=weight * bias)
    return q * v * space.dx_nodal
