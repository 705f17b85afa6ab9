"""The products with features in C are those in NumPy, to round-off, and adjoint to each other."""

import numpy as np
import pytest

from fem_dnn.features import Features, Numbers
from fem_dnn.native import CompiledFeatures, compiled_features
from fem_dnn.native.library import why_not
from fem_dnn.team import team

pytestmark = pytest.mark.skipif(why_not() is not None, reason=f"nothing in C: {why_not()}")

PARTS = [(True, True), (True, False), (False, True)]
"""Whether there is a kernel, and a bias."""

# Levels, nodes of this rank, nodes of all, features.
SIZES = [
    (3, 6, 6, 4),
    (2, 5, 9, 1),
    (4, 33, 33, 16),
    (1, 200, 200, 7),
    (2, 1, 600, 4),
    (2, 1, 600, 1),
]


def products(
    size: tuple[int, ...], kernel: bool, bias: bool
) -> tuple[CompiledFeatures, Features, tuple[Numbers | None, Numbers | None], Numbers, Numbers]:
    """Products compiled and not; random (kernel, bias), z and y."""
    levels, n, N, rank = size
    rng = np.random.default_rng(0)
    psi = rng.standard_normal((levels, N * kernel + bias, rank))
    M = rng.standard_normal((levels, n, rank, rank))
    c = [rng.standard_normal(shape) for shape in ((levels, N, n), (levels, n))]
    z, y = rng.standard_normal((2, levels, n, rank))
    ours = compiled_features(psi, M)
    assert ours is not None
    return ours, Features(psi, M, None), (c[0] if kernel else None, c[1] if bias else None), z, y


@pytest.mark.parametrize(("kernel", "bias"), PARTS)
@pytest.mark.parametrize("size", SIZES)
def test_compiled_and_not(size: tuple[int, ...], kernel: bool, bias: bool) -> None:
    ours, theirs, (a, b), z, y = products(size, kernel, bias)
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
        change = (np.einsum("lnij,lni->lnj", theirs.matrices, z) if reduced else z) - y
        inner = sum(
            np.sum((after - before) * before)
            for after, before in zip(moved, (a, b), strict=True)
            if after is not None and before is not None
        )
        assert inner == pytest.approx(np.sum(change * found), rel=1e-10)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(("kernel", "bias"), PARTS)
@pytest.mark.parametrize("size", SIZES)
def test_in_single_precision(
    size: tuple[int, ...], kernel: bool, bias: bool, compiled: bool
) -> None:
    """The same by its round-off, and nothing is made in double."""
    ours, theirs, parts, z, y = products(size, kernel, bias)
    of = (ours if compiled else theirs).single()
    a, b = (None if values is None else values.astype(np.float32) for values in parts)
    z, y = z.astype(np.float32), y.astype(np.float32)
    pairs = [(of.along(a, b), theirs.along(a, b)), (of.reduced(y), theirs.reduced(y))]
    for reduced in (False, True):
        moved = [None if values is None else values.copy() for values in (a, b)]
        expected = [None if values is None else values.astype(float) for values in (a, b)]
        of.move(*moved, z, y, reduced=reduced)
        theirs.move(*expected, z, y, reduced=reduced)
        pairs += [pair for pair in zip(moved, expected, strict=True) if pair[0] is not None]
    for found, exact in pairs:
        assert found.dtype == np.float32
        assert np.max(np.abs(found - exact)) < 1e-5 * np.max(np.abs(exact))


def test_arrays_that_c_would_misread_are_refused() -> None:
    psi, M = np.ones((2, 6, 3)), np.ones((2, 4, 3, 3))
    of = compiled_features(psi, M)
    assert of is not None
    kernel, bias, z = np.ones((2, 5, 4)), np.ones((2, 4)), np.ones((2, 4, 3))
    of.along(kernel, bias)
    kernels = [None, kernel[:, :4], np.ones((2, 6, 4)), np.ones((2, 5, 3))]
    for a, b in [*((a, bias) for a in kernels), (kernel, None), (kernel, bias[:, :3])]:
        with pytest.raises(ValueError, match=r"rows that neither|has shape"):
            of.along(a, b)
        with pytest.raises(ValueError, match=r"rows that neither|has shape"):
            of.move(a, b, z, z, reduced=True)
    for other in (kernel.astype(np.float32), np.ones((2, 4, 5)).swapaxes(1, 2)):
        with pytest.raises(ValueError, match="contiguous numbers in double precision"):
            of.along(other, bias)
    with pytest.raises(ValueError, match="coordinates has shape"):
        of.reduced(z[:, :3])
    with pytest.raises(ValueError, match="M has shape"):
        compiled_features(psi, M[..., :2])
    with pytest.raises(ValueError, match="Psi has shape"):
        compiled_features(psi[:1], M)
