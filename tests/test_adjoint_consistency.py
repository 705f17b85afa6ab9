"""Adjoint consistency: to optimise, then discretise, is to discretise, then optimise.

First optimise: the adjoint equation and the stationarity conditions are forms of their own,
written in UFL from theory.md section 3. First discretise: UFL differentiates the discrete state
equation and the discrete objective. The solver has to agree with both, to round-off.
"""

import numpy as np
import pytest
import ufl
from dolfinx import fem
from helpers import GRADED, random_control, random_problem, relative
from mpi4py import MPI

from fem_dnn.depth import SCHEMES
from fem_dnn.mesh import DepthWidthMesh
from fem_dnn.problem import Linearisation
from fem_dnn.state import solve_tangent
from fem_dnn.weak_form import (
    CylinderSpace,
    adjoint_form,
    bias_stationarity_form,
    layered_adjoint_form,
    state_form,
    tangent_form,
    transport_form,
)

pytestmark = pytest.mark.mpi

DG = ["dg0", "dg1", "dg2"]
WIDTHS = [(5, 2), ((2, 3), 1)]
"""Cells and degree: intervals and rectangles."""


def linearisation(comm, scheme, cells=3, degree=1) -> Linearisation:
    """Random data and controls, tracking, an l2 loss of weight 1.3, samples of unequal weight."""
    problem = random_problem(
        comm,
        scheme=scheme,
        cells=cells,
        degree=degree,
        tracking=True,
        samples=2,
    )
    return problem.linearise(random_control(problem))


def cylinder(at: Linearisation) -> CylinderSpace:
    width = at.problem.network.space
    return CylinderSpace(
        DepthWidthMesh(width.mesh, GRADED), width, at.problem.network.levels.scheme
    )


def assembled(space: CylinderSpace, form: ufl.Form) -> np.ndarray:
    """(level, width node)"""
    return space.values(fem.assemble_vector(fem.form(form)).array)


def matrix(space: CylinderSpace, form: ufl.Form) -> np.ndarray:
    """Rows and columns ordered by level, then width node."""
    dofs = space.dofs.ravel()
    return fem.assemble_matrix(fem.form(form)).to_scipy().toarray()[np.ix_(dofs, dofs)]


def nodal_weights(space: CylinderSpace) -> np.ndarray:
    return assembled(space, ufl.TestFunction(space.function_space) * space.dx_nodal)


def residuals(at: Linearisation) -> np.ndarray:
    """mu (f - g) at the tracking points, one per level."""
    tracking = at.problem.tracking
    return tracking.weight * (at.state.tracked - tracking.targets)


def transposed(at: Linearisation, q: np.ndarray) -> np.ndarray:
    return np.stack([at.weights.operator.apply_transpose(k, q_k) for k, q_k in enumerate(q)])


def adjoint_defect(at: Linearisation, form) -> float:
    """Relative residual of the solver's adjoint in a weak form, the largest over the samples."""
    space = cylinder(at)
    v = ufl.TestFunction(space.function_space)
    zero, weights = space.function(np.zeros(space.dofs.shape)), nodal_weights(space)
    worst = 0.0
    for s in range(at.adjoint.ends.shape[2]):
        p, u = (space.function(a[:, :, s]) for a in (at.adjoint.levels, at.state.u))
        # sigma'(u) p at the nodes as UFL knows it, not as the sweep does
        product = bias_stationarity_form(space, zero, [(1.0, u, p)], 0.0, v, "tanh")
        q = assembled(space, product) / weights
        defect = form(
            space,
            p,
            space.function(transposed(at, q[:, :, None])[:, :, 0]),
            space.function(residuals(at)[:, :, s]),
            space.on_depth_ends(at.loss_point.terminal[:, s]),
            v,
        )
        scale = np.max(np.abs(at.adjoint.levels[:, :, s])) * np.max(space.width.local_weights)
        worst = max(worst, np.max(np.abs(assembled(space, defect))) / scale)
    return space.mesh.comm.allreduce(worst, op=MPI.MAX)


@pytest.mark.parametrize("scheme", DG)
@pytest.mark.parametrize(("cells", "degree"), WIDTHS)
def test_the_discrete_adjoint_solves_the_adjoint_equation(cells, degree, scheme) -> None:
    at = linearisation(MPI.COMM_WORLD, scheme, cells, degree)
    assert adjoint_defect(at, adjoint_form) < 1e-13


@pytest.mark.parametrize(("cells", "degree"), WIDTHS)
def test_resnet_solves_the_layered_adjoint_instead(cells, degree) -> None:
    """Explicit from T; against the adjoint equation in dg0 the defect is of first order, not 0."""
    at = linearisation(MPI.COMM_WORLD, "resnet", cells, degree)
    assert adjoint_defect(at, layered_adjoint_form) < 1e-13
    assert adjoint_defect(at, adjoint_form) > 1e-3
    assert adjoint_defect(linearisation(MPI.COMM_WORLD, "dg0"), layered_adjoint_form) > 1e-3


def levels_of(at: Linearisation, gathered: np.ndarray) -> np.ndarray:
    """f at the levels of this rank's nodes from what the nonlocal operator was applied to."""
    width = at.problem.network.space
    return gathered[:, width.owned] / width.sqrt_weights[width.owned, None]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("cells", "degree"), WIDTHS)
def test_the_tangent_solves_the_linearised_state_equation(cells, degree, scheme) -> None:
    """The tangent's form is the state form's derivative, and the sweep solves it."""
    at = linearisation(MPI.COMM_WORLD, scheme, cells, degree)
    problem, space = at.problem, cylinder(at)
    direction = problem.controls.random_direction(2)
    change = problem.direction(problem.controls.split(direction))
    tangent = solve_tangent(problem.network, at.weights, at.state, change)
    if space.scheme.explicit:  # a piecewise constant is its outgoing value
        f, df = at.state.ends[1:], tangent.ends[1:]
    else:
        f, df = (levels_of(at, trajectory.gathered) for trajectory in (at.state, tangent))
    f, df, u, du = (space.function(array[:, :, 0]) for array in (f, df, at.state.u, tangent.u))
    v = ufl.TestFunction(space.function_space)
    linearised = assembled(space, tangent_form(space, df, u, du, v, "tanh"))
    assert np.max(np.abs(linearised)) < 1e-14

    f_I = space.on_depth_ends(problem.inputs[:, 0])
    F = state_form(space, f, u, f_I, v, "tanh")
    derivative = ufl.derivative(F, f, df) + ufl.derivative(F, u, du)
    # away from the solution too: with du doubled neither vanishes
    du.x.array[:] *= 2
    other = assembled(space, tangent_form(space, df, u, du, v, "tanh"))
    assert np.allclose(assembled(space, derivative), other, rtol=0, atol=1e-15)
    assert np.max(np.abs(other)) > 1e-4


class Discretised:
    """The whole discrete problem of one sample as dense matrices, on one rank."""

    def __init__(self, at: Linearisation, space: CylinderSpace, sample: int = 0) -> None:
        self.at, self.space = at, space
        V = space.function_space
        self.f = space.function(levels_of(at, at.state.gathered)[:, :, sample])
        self.u = space.function(at.state.u[:, :, sample])
        self.v, self.trial = ufl.TestFunction(V), ufl.TrialFunction(V)
        f_I = space.on_depth_ends(at.problem.inputs[:, sample])
        self.F = state_form(space, self.f, self.u, f_I, self.v, "tanh")
        self.misfit = self.f - space.function(at.problem.tracking.targets[:, :, sample])
        self.target = space.on_depth_ends(at.problem.loss.targets[:, sample])

    @property
    def K(self) -> np.ndarray:
        """Nodal values of f to those of Kf, from the kernel's values: block diagonal in depth."""
        values = self.at.problem.controls.values(self.at.control).kernel
        width = self.space.width
        blocks = values[:, width.file_position][:, :, width.file_position] * width.local_weights
        levels, N, _ = blocks.shape
        return np.einsum("kxy,kl->kxly", blocks, np.eye(levels)).reshape(levels * N, -1)

    @property
    def state_jacobian(self) -> np.ndarray:
        """dF/df + dF/du K: rows are test functions."""
        by_f = ufl.derivative(self.F, self.f, self.trial)
        by_u = ufl.derivative(self.F, self.u, self.trial)
        return matrix(self.space, by_f) + matrix(self.space, by_u) @ self.K

    @property
    def adjoint_matrix(self) -> np.ndarray:
        """The adjoint form as a matrix: p -> local part, less K'(sigma'(u) p) tested."""
        space, V = self.space, self.space.function_space
        zero = fem.Function(V)
        local = adjoint_form(space, self.trial, zero, zero, zero, self.v)
        p = bias_stationarity_form(space, zero, [(1.0, self.u, self.trial)], 0.0, self.v, "tanh")
        mass = np.diag(nodal_weights(space).ravel())
        slopes = np.linalg.solve(mass, matrix(space, ufl.lhs(p)))
        columns = [
            transposed(self.at, column.reshape(*space.dofs.shape, 1)).ravel() for column in slopes.T
        ]
        return matrix(space, ufl.lhs(local)) - mass @ np.array(columns).T

    @property
    def objective(self) -> ufl.Form:
        """The sample's loss: terminal and tracking, with the scheme's quadrature."""
        space, tracking = self.space, self.at.problem.tracking.weight
        terminal = 1.3 / 2 * (self.f - self.target) ** 2 * space.ds_end
        return terminal + tracking / 2 * self.misfit**2 * space.dx_nodal


DENSE = [(2, 2), ((2, 1), 1)]
"""The same elements on few cells."""


@pytest.mark.parametrize("scheme", DG)
@pytest.mark.parametrize(("cells", "degree"), DENSE)
def test_the_adjoint_matrix_is_the_transpose(cells, degree, scheme) -> None:
    """Of the state's Jacobian: local part by UFL's derivative, nonlocal part dense."""
    at = linearisation(MPI.COMM_SELF, scheme, cells, degree)
    space = cylinder(at)
    discrete, zero = Discretised(at, space), fem.Function(space.function_space)
    local = ufl.lhs(adjoint_form(space, discrete.trial, zero, zero, zero, discrete.v))
    by_f = matrix(space, ufl.derivative(discrete.F, discrete.f, discrete.trial))
    assert np.allclose(matrix(space, local), by_f.T, rtol=0, atol=1e-15)
    L, adjoint = discrete.state_jacobian, discrete.adjoint_matrix
    assert relative(adjoint, L.T) < 1e-14
    assert relative(by_f, L) > 1e-3  # the nonlocal part is there


@pytest.mark.parametrize("scheme", DG)
@pytest.mark.parametrize(("cells", "degree"), DENSE)
def test_both_routes_lead_to_the_same_gradient(cells, degree, scheme) -> None:
    at = linearisation(MPI.COMM_SELF, scheme, cells, degree)
    problem = at.problem
    w, lambda_b = problem.sample_weights, problem.regularization.bias
    values = problem.controls.values(at.control)
    space = cylinder(at)
    v, shape = ufl.TestFunction(space.function_space), space.dofs.shape
    first_discretise, q, pairs = 0.0, [], []
    for s in range(len(w)):
        discrete = Discretised(at, space, s)
        # Optimise, then discretise: the adjoint equation's own form, its data from the theory.
        zero = fem.Function(space.function_space)
        data = adjoint_form(
            space, zero, zero, space.function(residuals(at)[:, :, s]),
            space.on_depth_ends(at.loss_point.terminal[:, s]), v,
        )  # fmt: skip
        p = -np.linalg.solve(discrete.adjoint_matrix, assembled(space, data).ravel())
        pairs.append((float(w[s]), discrete.u, space.function(p.reshape(shape))))
        # Discretise, then optimise: dJ/db = -(dF/db)' (dF/df)^-T dJ/df.
        dJ = assembled(space, ufl.derivative(discrete.objective, discrete.f, v)).ravel()
        multiplier = -np.linalg.solve(discrete.state_jacobian.T, dJ)
        by_bias = matrix(space, ufl.derivative(discrete.F, discrete.u, discrete.trial))
        q.append((by_bias.T @ multiplier).reshape(shape) / nodal_weights(space))
        first_discretise = first_discretise + w[s] * q[s]
    b = space.function(space.width.from_file_order(values.bias))
    first_discretise += lambda_b * space.values(b.x.array)
    form = bias_stationarity_form(space, b, pairs, lambda_b, v, "tanh")
    first_optimise = assembled(space, form) / nodal_weights(space)
    of_solver = problem.controls.split(at.gradient)
    of_bias = of_solver.bias / problem.controls.bias_scale
    assert relative(first_optimise, first_discretise) < 1e-13
    assert relative(of_bias, first_discretise) < 1e-13

    # The kernel: lambda_a a + sum_s w_s sigma'(u_s) p_s (x) f_s, both ways from their own q.
    f = levels_of(at, at.state.gathered)
    kernel = problem.regularization.kernel * values.kernel
    order = space.width.file_order
    for s in range(len(w)):
        kernel += w[s] * np.einsum("kx,ky->kxy", q[s][:, order], f[:, order, s])
    of_solver = problem.controls.values(at.gradient).kernel
    assert relative(of_solver, kernel) < 1e-13


@pytest.mark.parametrize("scheme", DG)
def test_transposes_across_ranks(scheme) -> None:
    """(L df, p) = (df, L* p) for random df and p, where the nonlocal term couples the ranks."""
    at = linearisation(MPI.COMM_WORLD, scheme, (2, 3), 1)
    space, operator = cylinder(at), at.weights.operator
    v = ufl.TestFunction(space.function_space)
    rng = np.random.default_rng(4)
    df, p = (
        space.width.from_file_order(rng.standard_normal((len(space.dofs), space.width.n_nodes)))
        for _ in range(2)
    )
    K_df = [operator.apply(k, operator.gather(f[:, None]))[:, 0] for k, f in enumerate(df)]
    u, zero = space.function(at.state.u[:, :, 0]), space.function(0 * df)
    L_df = tangent_form(space, space.function(df), u, space.function(np.array(K_df)), v, "tanh")
    slope = assembled(space, bias_stationarity_form(space, zero, [(1.0, u, space.function(p))],
                                                    0.0, v, "tanh"))  # fmt: skip
    q = slope / nodal_weights(space)
    K_q = space.function(transposed(at, q[:, :, None])[:, :, 0])
    L_p = adjoint_form(space, space.function(p), K_q, zero, zero, v)
    left = space.width.sum(np.sum(assembled(space, L_df) * p))
    right = space.width.sum(np.sum(assembled(space, L_p) * df))
    assert abs(left - right) < 1e-13 * abs(left)
    local = space.width.sum(
        np.sum(assembled(space, transport_form(space, space.function(df), v)) * p)
    )
    assert abs(local - left) > 1e-3 * abs(left)  # the nonlocal part is there
