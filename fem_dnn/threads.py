"""Threads: as many as help, and where they help most.

Small matrix products lose more by waking a second thread than it brings, and on a machine that is
busy with something else they lose very much. With many samples each thread sweeps some of them by
itself (`team`); with few, or where samples are coupled, threads share the rows of matrix products.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController, threadpool_limits

from fem_dnn.problem import LearningProblem
from fem_dnn.team import team

WORTH_A_THREAD = 1e8
"""Operations of one product from which on a second thread pays."""

SAMPLES_PER_THREAD = 64
"""Samples from which on a product with the kernel is not bound by reading it."""


@contextmanager
def suitable_threads(problem: LearningProblem) -> Iterator[None]:
    """Let sweeps and matrix products use as many threads as help while a problem is solved.

    Whoever sets OMP_NUM_THREADS decides for several ranks.
    """
    space = problem.network.space
    ranks_share_cores = space.comm.size > 1 and "OMP_NUM_THREADS" not in os.environ
    if problem.operations < WORTH_A_THREAD or ranks_share_cores:
        with threadpool_limits(limits=1, user_api="blas"):
            yield
        return
    size = blas_threads()
    enough = len(problem.sample_weights) >= size * SAMPLES_PER_THREAD
    if space.comm.size == 1 and problem.samples_meet_in_sums and enough:
        with threadpool_limits(limits=1, user_api="blas"), team(size):
            yield
        return
    yield


def blas_threads() -> int:
    """Threads that matrix products use at present."""
    libraries = ThreadpoolController().select(user_api="blas").info()
    return max((library["num_threads"] for library in libraries), default=1)


def workers() -> int:
    """Threads that a rank may keep busy: OMP_NUM_THREADS; 1 where it is not set."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(text)) if text.isdecimal() else 1
