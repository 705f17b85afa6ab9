"""Inverse Cholesky factors in C are those of LAPACK, to round-off."""

import numpy as np
import pytest

from fem_dnn.native import compiled_inverse_factors
from fem_dnn.native.library import why_not
from fem_dnn.team import team

pytestmark = pytest.mark.skipif(why_not() is not None, reason=f"nothing in C: {why_not()}")


@pytest.mark.parametrize("shape", [(3, 7), (1,), (64,), (0, 5)])
@pytest.mark.parametrize("n", [1, 2, 5, 16, 33])
@pytest.mark.parametrize("threads", [1, 2])
def test_factors(shape: tuple[int, ...], n: int, threads: int) -> None:
    factor = np.random.default_rng(n).standard_normal((*shape, n, n + 1))
    matrices = factor @ factor.swapaxes(-1, -2)
    with team(threads):
        found = compiled_inverse_factors(matrices)
    expected = np.linalg.inv(np.linalg.cholesky(np.eye(n) + matrices))
    assert found is not None and found.shape == matrices.shape
    assert np.allclose(found, expected, rtol=0, atol=1e-12)
    # Only the lower triangles are read, and written.
    assert not np.any(np.triu(found, 1))
    other = compiled_inverse_factors(np.tril(matrices))
    assert other is not None and np.array_equal(other, found)


def test_where_there_is_none() -> None:
    """I there, and nothing changes for the others."""
    matrices = np.zeros((11, 3, 3))
    matrices[:, 0, 1] = matrices[:, 1, 0] = np.linspace(0, 2, 11)
    matrices[4] = np.nan
    matrices[5, 2, 2] = np.inf
    matrices[6] = -2 * np.eye(3)
    found = compiled_inverse_factors(matrices)
    assert found is not None
    expected = np.tile(np.eye(3), (11, 1, 1))  # beyond an entry of 1 nothing is positive definite
    expected[:4] = np.linalg.inv(np.linalg.cholesky(np.eye(3) + matrices[:4]))
    assert np.allclose(found, expected, rtol=0, atol=1e-14)
