"""The products with features in C are those in NumPy, to round-off, and adjoint to each other."""

import numpy as np
import pytest

from fem_dnn.features import Features
from fem_dnn.native import compiled_features
from fem_dnn.native.library import why_not
from fem_dnn.team import team

pytestmark = pytest.mark.skipif(why_not() is not None, reason=f"nothing in C: {why_not()}")

# Levels, nodes of this rank, nodes of all, features.
SIZES = [(3, 6, 6, 4), (2, 5, 9, 1), (4, 33, 33, 16), (1, 200, 200, 7)]


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_compiled_and_not(size: tuple[int, ...], kernel: bool, bias: bool) -> None:
    levels, n, N, rank = size
    if not kernel and not bias:
        return
    rng = np.random.default_rng(0)
    psi = rng.standard_normal((levels, N * kernel + bias, rank))
    M = rng.standard_normal((levels, n, rank, rank))
    c = [rng.standard_normal(shape) for shape in ((levels, N, n), (levels, n))]
    a, b = (values if there else None for values, there in zip(c, (kernel, bias), strict=True))
    z, y = rng.standard_normal((2, levels, n, rank))
    ours, theirs = compiled_features(psi, M), Features(psi, M, None)
    assert ours is not None
    with team(2):
        found = ours.along(a, b)
    assert np.allclose(found, theirs.along(a, b), rtol=0, atol=1e-12)
    assert np.allclose(ours.reduced(y), theirs.reduced(y), rtol=0, atol=1e-12)
    for reduced in (False, True):
        moved = [None if values is None else values.copy() for values in (a, b)]
        expected = [None if values is None else values.copy() for values in (a, b)]
        ours.move(*moved, z, y, reduced=reduced)
        theirs.move(*expected, z, y, reduced=reduced)
        for mine, other in zip(moved, expected, strict=True):
            assert mine is None or np.allclose(mine, other, rtol=0, atol=1e-11)
        # <Psi (M' z - y), c> = <M' z - y, Psi' c>
        change = (np.einsum("lnij,lni->lnj", M, z) if reduced else z) - y
        inner = sum(
            np.sum((after - before) * before)
            for after, before in zip(moved, (a, b), strict=True)
            if after is not None and before is not None
        )
        assert inner == pytest.approx(np.sum(change * found), rel=1e-10)
