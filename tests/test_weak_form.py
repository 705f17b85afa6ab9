"""The factor path solves the weak form that UFL defines, to round-off."""

import numpy as np
import pytest
import ufl
from dolfinx import fem
from mpi4py import MPI

from fem_dnn.activations import ACTIVATIONS
from fem_dnn.depth import SCHEMES, DepthLevels, dg_time_matrix
from fem_dnn.mesh import DepthWidthMesh, MeshArrays, interval, rectangle
from fem_dnn.network import LayerWeights, Network
from fem_dnn.nonlocal_operator import NonlocalOperator, kernel_coefficients
from fem_dnn.state import solve_state
from fem_dnn.weak_form import (
    CylinderSpace,
    adjoint_transport_form,
    state_form,
    transport_form,
)
from fem_dnn.width import WidthSpace

pytestmark = pytest.mark.mpi

POINTS = np.array([0.0, 0.2, 0.5, 0.6, 1.1])

SKEW = MeshArrays.sorted(
    "quadrilateral",
    np.array([[0, 0], [1, 0.2], [2, 0], [-0.1, 1], [1.3, 1.2], [2.2, 1.5], [0.2, 2], [1, 2.3]]),
    np.array([[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7]]),
)
WIDTHS = {
    "interval": lambda: interval(MPI.COMM_WORLD, 5, start=-0.5, length=2.0),
    "rectangle": lambda: rectangle(MPI.COMM_WORLD, (3, 4), length=(1.0, 2.0)),
    "quadrilaterals": lambda: SKEW.mesh(MPI.COMM_WORLD),
}


def spaces(width: str, degree: int, scheme: str) -> CylinderSpace:
    mesh = DepthWidthMesh(WIDTHS[width](), POINTS)
    return CylinderSpace(mesh, WidthSpace(mesh.width, degree), SCHEMES[scheme])


def dense_local(form: ufl.Form) -> np.ndarray:
    """This rank's matrix; columns are whole, so no entry couples two ranks."""
    return fem.assemble_matrix(fem.form(form)).to_scipy().toarray()


def factors(space: CylinderSpace) -> tuple[np.ndarray, np.ndarray]:
    """D_t with its upwind coupling, (levels, levels), and the diagonal of M_x, (n_local,)."""
    scheme, layers = space.scheme, space.mesh.layers
    q1 = scheme.levels
    # Outgoing trace sum_j phi_j(1) F_j; incoming test function phi_i(0).
    dg = scheme if not scheme.explicit else SCHEMES["dg0"]
    G = dg_time_matrix(q1 - 1)
    at_start = G.sum(axis=1)  # G 1 = phi(0)
    at_end = dg.weights @ np.linalg.inv(dg.stages) if q1 > 1 else np.ones(1)
    # f(1) = f(0) + w A^{-1} (F - f(0) 1) and w A^{-1} 1 = 1: the trace of the nodal basis.
    D = np.kron(np.eye(layers), G) - np.kron(np.eye(layers, k=-1), np.outer(at_start, at_end))
    return D, space.width.local_weights


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("width", "degree"), [("interval", 0), ("interval", 2), ("rectangle", 1), ("quadrilaterals", 1)]
)
def test_transport_is_the_kronecker_product(width: str, degree: int, scheme: str) -> None:
    space = spaces(width, degree, scheme)
    f, v = ufl.TrialFunction(space.function_space), ufl.TestFunction(space.function_space)
    assembled = dense_local(transport_form(space, f, v))
    D, M = factors(space)
    dofs = space.dofs.ravel()
    expected = np.kron(D, np.diag(M))
    assert np.allclose(assembled[np.ix_(dofs, dofs)], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("width", "degree"), [("interval", 1), ("rectangle", 0)])
def test_nodal_mass_is_the_product_of_the_weights(width: str, degree: int, scheme: str) -> None:
    space = spaces(width, degree, scheme)
    f, v = ufl.TrialFunction(space.function_space), ufl.TestFunction(space.function_space)
    assembled = dense_local(f * v * space.dx_nodal)
    levels = DepthLevels(space.scheme, POINTS)
    expected = np.diag(np.outer(levels.weights, space.width.local_weights).ravel())
    dofs = space.dofs.ravel()
    assert np.allclose(assembled[np.ix_(dofs, dofs)], expected, rtol=0, atol=1e-15)
    exact = dense_local(f * v * space.dx)
    assert np.allclose(assembled, exact, rtol=0, atol=1e-15)  # M is diagonal, not just lumped


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_adjoint_transport_is_the_transpose(width: str, scheme: str) -> None:
    """Adjoint consistency: integrating by parts and transposing are the same."""
    space = spaces(width, 1, scheme)
    f, v = ufl.TrialFunction(space.function_space), ufl.TestFunction(space.function_space)
    forward = dense_local(transport_form(space, f, v))
    backward = dense_local(adjoint_transport_form(space, f, v))
    assert np.allclose(forward.T, backward, rtol=0, atol=1e-14)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("width", "degree"), [("interval", 2), ("rectangle", 1), ("quadrilaterals", 1)]
)
def test_sweep_solves_the_weak_form(width: str, degree: int, scheme: str, activation: str) -> None:
    space = spaces(width, degree, scheme)
    V, levels = space.width, DepthLevels(space.scheme, POINTS)
    rng = np.random.default_rng(1)
    kernel = rng.standard_normal((levels.count, V.n_nodes, V.n_nodes))
    operator = NonlocalOperator(V, levels.weights, kernel_coefficients(V, levels.weights, kernel))
    bias = V.from_file_order(rng.standard_normal((levels.count, V.n_nodes)))[:, :, None]
    inputs = V.from_file_order(rng.standard_normal((1, V.n_nodes))).T.copy()
    network = Network(V, levels, ACTIVATIONS[activation])
    state = solve_state(network, LayerWeights(operator, bias), inputs)

    # The stages at the levels: what the nonlocal operator was applied to. For resnet that is the
    # incoming trace, while the dg0 function on a slab is its outgoing value.
    if space.scheme.explicit:
        stages = state.ends[1:, :, 0]
    else:
        assert state.gathered is not None
        stages = state.gathered[:, V.owned, 0] / V.sqrt_weights[V.owned]
    f = space.function(stages)
    u = space.function(state.u[:, :, 0])
    f_I = space.on_depth_ends(inputs[:, 0])
    v = ufl.TestFunction(space.function_space)
    residual = fem.assemble_vector(fem.form(state_form(space, f, u, f_I, v, activation))).array
    assert np.max(np.abs(residual)) < 1e-13 * max(1.0, np.max(np.abs(stages)))
