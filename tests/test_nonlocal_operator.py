"""The nonlocal operator: values, transposes, and its view as a PETSc dense matrix."""

import numpy as np
import pytest
from helpers import in_file_order, local, relative, width_space
from mpi4py import MPI

from fem_dnn.nonlocal_operator import NonlocalOperator, kernel_coefficients, kernel_values

pytestmark = pytest.mark.mpi

WORLD = MPI.COMM_WORLD
OMEGA = np.array([0.3, 0.7])
SPACES = [(7, 0), (4, 1), ((3, 2), 1)]


def build(cells, degree: int):
    """Operator, its kernel and two functions in file order."""
    space = width_space(WORLD, cells, degree)
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((len(OMEGA), space.n_nodes, space.n_nodes))
    functions = rng.standard_normal((2, 3, space.n_nodes))
    operator = NonlocalOperator(space, OMEGA, kernel_coefficients(space, OMEGA, kernel))
    return space, operator, kernel, *functions


@pytest.mark.parametrize(("cells", "degree"), SPACES)
def test_apply_is_the_integral(cells, degree: int) -> None:
    space, K, kernel, f, g = build(cells, degree)
    h = space.node_weights
    gathered = K.gather(local(space, f))
    for level in range(len(OMEGA)):
        Kf = in_file_order(space, K.apply(level, gathered))
        assert relative(Kf, (f * h) @ kernel[level].T) < 1e-14
        Ktg = in_file_order(space, K.apply_transpose(level, local(space, g)))
        assert relative(Ktg, (g * h) @ kernel[level]) < 1e-14


@pytest.mark.parametrize(("cells", "degree"), SPACES)
def test_transpose_is_exact(cells, degree: int) -> None:
    """(Kf, g) = (f, K'g) in L2, to round-off."""
    space, K, _, f, g = build(cells, degree)
    f, g = local(space, f), local(space, g)
    h = space.local_weights[:, None]
    for level in range(len(OMEGA)):
        left = space.sum(np.sum(h * K.apply(level, K.gather(f)) * g))
        right = space.sum(np.sum(h * f * K.apply_transpose(level, g)))
        assert abs(left - right) < 1e-14 * max(abs(left), 1.0)


@pytest.mark.parametrize(("cells", "degree"), SPACES)
def test_values_and_coefficients_are_inverse(cells, degree: int) -> None:
    space, K, kernel, _, _ = build(cells, degree)
    assert K.rows.shape == (len(OMEGA), space.n_local, space.n_nodes)
    assert relative(kernel_values(space, OMEGA, K.coefficients), kernel) < 1e-14
    # Euclidean norm of the coefficients = L2 norm of the kernel over depth and width.
    h = space.node_weights
    norm = np.sqrt(np.einsum("k,x,y,kxy->", OMEGA, h, h, kernel**2))
    assert abs(np.sqrt(space.sum(np.sum(K.coefficients**2))) - norm) < 1e-13 * norm


@pytest.mark.parametrize(("cells", "degree"), SPACES)
def test_outer_product(cells, degree: int) -> None:
    """sum_s q_s(x) f_s(y), the form every gradient by the kernel has."""
    space, K, _, q, f = build(cells, degree)
    coefficients = np.stack(
        [K.outer(level, local(space, q), K.gather(local(space, f))) for level in range(2)]
    )
    expected = np.einsum("sx,sy->xy", q, f)
    values = kernel_values(space, OMEGA, coefficients)
    assert relative(values[0], expected) < 1e-14
    assert relative(values[1], expected) < 1e-14


@pytest.mark.parametrize(("cells", "degree"), SPACES)
def test_petsc_view_acts_like_apply(cells, degree: int) -> None:
    space, K, _, f, g = build(cells, degree)
    root = space.sqrt_weights[space.owned]
    for level in range(len(OMEGA)):
        matrix = K.as_petsc(level)
        x, y = matrix.createVecs()
        scaled = np.sqrt(OMEGA[level]) * root
        x.array_w[:] = root * local(space, f)[:, 0]
        matrix.mult(x, y)
        expected = K.apply(level, K.gather(local(space, f)))[:, 0]
        assert np.allclose(y.array_r / scaled, expected, rtol=0, atol=1e-14)
        y.array_w[:] = root * local(space, g)[:, 0]
        matrix.multTranspose(y, x)
        expected = K.apply_transpose(level, local(space, g))[:, 0]
        assert np.allclose(x.array_r / scaled, expected, rtol=0, atol=1e-14)
        for thing in (matrix, x, y):
            thing.destroy()


def test_petsc_view_shares_memory() -> None:
    _, K, _, _, _ = build(5, 0)
    matrix = K.as_petsc(1)
    K.coefficients[1] = 7.0
    assert np.all(matrix.getDenseArray() == 7.0)
    matrix.scale(2.0)
    assert np.all(K.coefficients[1] == 14.0)
    assert not np.any(K.coefficients[0] == 14.0)
    matrix.destroy()
    assert np.all(K.coefficients[1] == 14.0)  # destroying the view leaves the memory alone
