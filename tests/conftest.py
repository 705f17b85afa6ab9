"""What every test module shares."""

import gc
from collections.abc import Iterator

import pytest
from mpi4py import MPI
from program import without_pictures


@pytest.fixture(autouse=True, scope="module")
def collect_on_all_ranks_alike() -> Iterator[None]:
    """Meshes and PETSc objects free communicators collectively.

    Python's cyclic collector would come at different moments on different ranks, which deadlocks:
    it rests while a module runs, and then works at the same place on every rank.
    """
    gc.disable()
    yield
    gc.collect()
    gc.enable()


@pytest.fixture(scope="module")
def no_pictures() -> Iterator[None]:
    """`--out` draws no standard pictures while a module runs that does not look at them."""
    with without_pictures():
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked as telling nothing on so many ranks."""
    marker = "several_ranks" if MPI.COMM_WORLD.size == 1 else "one_rank"
    left_out = [item for item in items if item.get_closest_marker(marker)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
