"""Limited-memory BFGS (PETSc TAO `lmvm`, More-Thuente line search): the first-order baseline.

Where the controls have bounds: TAO's `blmvm`, whose steps are projected (Benson & More, ANL/MCS-
P909-0901, 2001), with its own diagonal scaling. Of TAO's other bounded first-order types `bqnls`
and `bncg` took more iterations where many bounds are active.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.solvers import tao
from fem_dnn.solvers.descent import Descent, solve_by
from fem_dnn.solvers.history import Accuracy, Report
from fem_dnn.solvers.petsc import inserted_options
from fem_dnn.solvers.solution import Solution, Tolerances

Array = NDArray[np.float64]

MATRIX: dict[str, object] = {"mat_lmvm_scale_type": "scalar", "mat_lmvm_hist_size": 20}
"""Twenty pairs, and the identity times a number to start from: in orthonormal coordinates that is
what a Hessian of lambda I plus a compact operator wants. TAO's diagonal and its five pairs took two
to fifteen times as many iterations."""

MATRIX_PREFIX = "tao_lmvm_"
"""PETSc 3.22 forgets the solver's own prefix here."""

DEFAULTS: dict[str, object] = {
    "tao_type": "lmvm",
    **tao.DEFAULTS,
    **{MATRIX_PREFIX + name: value for name, value in MATRIX.items()},
}

WITHIN_BOUNDS: dict[str, object] = {"tao_type": "blmvm", **tao.DEFAULTS}


def solve_lbfgs(
    problem: LearningProblem,
    initial: Array,
    tolerances: Tolerances | None = None,
    *,
    escape: bool = True,
    report: Report | None = None,
    accuracy: Accuracy | None = None,
    options: Mapping[str, object] | None = None,
) -> Solution:
    """Solve the learning problem by limited-memory BFGS.

    Arguments, returns and errors are those of `solve_newton`.
    """
    return solve_by(
        _descend,
        DEFAULTS if problem.controls.box is None else WITHIN_BOUNDS,
        problem,
        initial,
        tolerances,
        escape=escape,
        report=report,
        accuracy=accuracy,
        options=options,
    )


def _descend(descent: Descent) -> tuple[Linearisation, str]:
    with inserted_options(MATRIX_PREFIX, MATRIX, {}):
        return tao.descend_by_tao(descent, hessian=False)
