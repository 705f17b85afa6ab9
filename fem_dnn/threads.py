"""BLAS threads: as many as help.

Small matrix products lose more by waking a second thread than it brings, and on a machine that is
busy with something else they lose very much.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

from threadpoolctl import threadpool_limits

from fem_dnn.problem import LearningProblem

WORTH_A_THREAD = 1e8
"""Operations of one product from which on a second thread pays."""


def suitable_threads(problem: LearningProblem) -> AbstractContextManager[object]:
    """Limit BLAS to one thread while a small problem is solved, or by several ranks.

    Whoever sets OMP_NUM_THREADS decides for several ranks.
    """
    space = problem.network.space
    operations = problem.operations
    ranks_share_cores = space.comm.size > 1 and "OMP_NUM_THREADS" not in os.environ
    if operations < WORTH_A_THREAD or ranks_share_cores:
        return threadpool_limits(limits=1, user_api="blas")
    return nullcontext()


def workers() -> int:
    """Threads that a rank may keep busy: OMP_NUM_THREADS; 1 where it is not set."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(text)) if text.isdecimal() else 1
