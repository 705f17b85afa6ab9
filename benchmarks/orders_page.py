"""docs/orders.md: the page around the tables of `benchmarks.orders`."""

from __future__ import annotations

from benchmarks.orders import DEPTH_CASES, WIDTH_CASES, Row, as_markdown, summary

INTRODUCTION = """# Orders of convergence

*Written by `environment/enter python3 benchmarks/orders.py`; the numbers behind it are in
[orders.json](orders.json). `tests/test_orders.py` asserts slopes measured by the same code.*

The discretisation is discontinuous Galerkin in depth, degree q, and in width, degree r. What
should be expected of it:

| | resnet | dg q | width degree r |
|---|---|---|---|
| in L2 (between the nodes) | 1 | q + 1 | r + 1 |
| at the slab ends | 1 | 2q + 1 | r + 1 in L2(Y) |
| functionals: objective, derivative of the objective in a direction | 1 | 2q + 1 | 2r + 2 |

*Why.* In depth, dg q with its nonlinear terms at the q + 1 Gauss points is a Runge-Kutta method
of order 2q + 1 (`fem_dnn/depth.py`); between the slab ends it is a polynomial of degree q, which
cannot do better than q + 1. The adjoint is the same method run backwards (below), so it has the
same orders, and so has everything made of both. In width no derivative occurs: the equations hold
at the nodes, and the only error is that of the integrals over Y, computed by the nodes'
quadrature rule. With Gauss points on tensor cells it has order 2r + 2, for everything at the
nodes and for every functional. In L2(Y) the distance to the polynomials of degree r is left, of
order r + 1.

On triangles the rule of the nodes is exact to degree 2r (r = 1, 2), so 2r + 1 is what an arbitrary
mesh guarantees; where neighbouring triangles mirror each other, as in these refinement families,
the leading terms cancel, and 2r + 2 is seen. The centre's rule (r = 0) has order 2 everywhere.

## How it is measured

A slope is fitted to the logarithms of the errors on three meshes. Errors are L2 norms over
samples and Y, taken *between* the nodes: at Gauss nodes a discontinuous function superconverges
and hides its order. "Gradient" and "control" are kernel and bias together, in L2(Y x Y x (0, T))
and L2(Y x (0, T)).

**A manufactured optimum.** Choose trajectories f_s with |d_t f_s| < 1. For tanh, u_s = atanh(d_t
f_s) are their pre-activations, and the Gram formulas (q = K^-1 u, a = sum_s q_s (x) f_s /
lambda_a, b = sum_s q_s / lambda_b) give controls that carry all of them along. These controls are
*optimal* if q_s + w_s sigma'(u_s) p_s = 0. That chooses the adjoint p_s, and the adjoint equation
then chooses the data: the terminal targets f_s(T) - p_s(T) and the tracking targets. So the whole
optimality system, nonlinear and nonlocal, with two samples of unequal weight, has a known
solution, on any domain (`benchmarks/manufactured.py`). A detour added to p_s gives controls that
are not optimal, with a known gradient that does not vanish. The learning problem is then solved
by Newton's method, started at the interpolated optimum: what is measured is the distance of the
discrete optimum, not the path to it.

**Depth and width apart.** For orders in depth, integrals over Y are replaced by the nodal sums of
a small width space, in the discretisation and in the exact solution alike: a finite network with
a known solution, and no error in width. For orders in width the trajectories are straight, so dg1
follows them exactly, and the tracking targets are those for which dg1's adjoint is p at the
levels: no error in depth.

**The disc** has no geometric error here. Its meshes are polygons that follow the circle as they
are refined, and the exact solution on each is that of the polygon: formulas that hold point by
point, with the polygon's own integrals (by a rule two orders finer than the error). Against the
true disc, every functional that integrates over Y has the error of the area besides, of order 2
for straight cells.

**Closed forms.** theory 9.1 (rank-one kernel, tanh: state, adjoint, gradient, objective), 9.4
(linear, rotating kernel: state) in depth; 9.2 and 9.3 (learned bias, three samples) in width.
Straight manufactured trajectories are 9.7. More of them are in `tests/test_exact_*.py`: other
activations for 9.1, the learned kernel of 9.4.

A functional's error is one signed number. Where its leading coefficient is small by accident, the
fitted slope on coarse meshes shows the next term as well: such slopes scatter more than those of
norms."""

ADJOINT = """
## Adjoint consistency

To optimise, then discretise: the adjoint equation -d_t p = K'(sigma'(u) p) + mu (f - g) gets a
weak form of its own (`weak_form.adjoint_form`), upwind in the other direction. To discretise,
then optimise: UFL differentiates the discrete state equation and the discrete objective. For dg0,
dg1 and dg2 both are the same matrices, transposed, nonlocal term included, because upwind fluxes
transpose into upwind fluxes and both integrate the nonlinear term at the same Gauss points.
`tests/test_adjoint_consistency.py` shows, to round-off, on intervals and rectangles, that the
solver's adjoint solves the weak form, that the matrices are transposes, and that the gradient of
both routes is the solver's. This is why the adjoint below has order 2q + 1, and the control error
no order less than the state's.

resnet is not the explicit reading of dg0 on both sides: its state sees f(t_n^-), the incoming
trace, so the transposed nonlocal term is tested with the trace of the slab *before*. What results
is backpropagation through the layers (`weak_form.layered_adjoint_form`): explicit from T,
consistent of order 1, and exactly the gradient of the layered network."""


def page(tables: dict[str, dict[str, list[Row]]]) -> str:
    """The whole page."""
    parts = [INTRODUCTION, ADJOINT]
    for axis, cases, method in (("depth", DEPTH_CASES, "scheme"), ("width", WIDTH_CASES, "degree")):
        parts.append(f"\n## Orders in {axis}\n")
        parts.append(
            f"**Expected**: fitted on interval, square, disc; by {method}"
            + (", r.\n" if axis == "width" else ".\n")
        )
        for case, title in cases.items():
            parts.append(f"\n### {title}\n\n{summary(tables[axis][case])}\n")
            parts.append(
                "\n<details><summary>Errors</summary>\n\n"
                f"{as_markdown(tables[axis][case], method)}\n\n</details>\n"
            )
    return "".join(parts)
