"""M c and <c, M c> by the levels of an array, some entries at a time."""

import numpy as np
import pytest
import scipy.sparse as sparse
from helpers import relative

from fem_dnn import level_coupling, team
from fem_dnn.level_coupling import LevelCoupling

LEVELS, ENTRIES = 7, 50


def banded(rng: np.random.Generator) -> sparse.csr_array:
    """Symmetric, two levels to either side, one of which is coupled to nothing."""
    diagonals = [rng.standard_normal(LEVELS - k) for k in range(3)]
    upper = sparse.diags_array(diagonals, offsets=range(3)).toarray()
    matrix = upper + upper.T
    matrix[4], matrix[:, 4] = 0.0, 0.0
    return sparse.csr_array(matrix)


@pytest.fixture(params=[0.0, np.inf], ids=["level by level", "at once"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As arrays are taken that are large, and as those that are small."""
    monkeypatch.setattr(level_coupling, "FEW_BYTES", request.param)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("at_once", [1, 7, 1 << 16])
def test_all_entries_are_met_once(
    at_once: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are taken at a time, in whatever shape."""
    monkeypatch.setattr(team, "AT_ONCE", at_once)
    rng = np.random.default_rng(1)
    matrix, c, out = banded(rng), *rng.standard_normal((2, LEVELS, 5, ENTRIES // 5))
    coupling = LevelCoupling(matrix)
    product = np.einsum("kl,lyx->kyx", matrix.toarray(), c)
    expected, kept = out + product, c.copy()
    with team.team(threads):
        coupling.add(c.reshape(-1), out)
    assert relative(out, expected) < 1e-15
    assert abs(coupling.square(c) - np.sum(c * product)) < 1e-14 * np.linalg.norm(product)
    assert np.array_equal(c, kept)


@pytest.mark.usefixtures("either_way")
def test_small_differences_of_many_levels_keep_their_accuracy() -> None:
    """|d_t c|^2 of c = 1 + epsilon t: a sum of products of levels would leave no digit of it."""
    slabs, epsilon = 128, 1e-5
    step = 1 / slabs
    ends = np.array([1.0, *np.full(slabs - 2, 2.0), 1.0]) / step
    sides = np.full(slabs - 1, -1 / step)
    form = sparse.csr_array(sparse.diags_array([sides, ends, sides], offsets=[-1, 0, 1]))
    c = np.multiply.outer(1 + epsilon * step * np.arange(slabs), np.ones(1000))
    exact = (slabs - 1) * step * epsilon**2 * 1000
    assert LevelCoupling(form).square(c) == pytest.approx(exact, rel=1e-3)
