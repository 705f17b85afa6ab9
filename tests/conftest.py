"""What every test module shares."""

import gc
from collections.abc import Iterator

import pytest


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
