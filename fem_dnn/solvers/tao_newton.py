"""The Newton types of PETSc's TAO, with the reduced Hessian by its action.

Trust region (`bntr`, `ntr`), line search (`bnls`, `nls`), and a trust region that falls back on a
line search (`bntl`); the conjugate gradients inside are TAO's own choice. `solve_newton` is the
method of choice: these are there to be compared with. (TAO's `ntl` is left out: PETSc 3.22 crashes
in it where the Hessian is indefinite and no preconditioner is used.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fem_dnn.errors import BadInput
from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.solvers import tao
from fem_dnn.solvers.descent import Descent, solve_by
from fem_dnn.solvers.history import Accuracy, Report
from fem_dnn.solvers.solution import Solution, Tolerances

Array = NDArray[np.float64]

TaoNewtonType = Literal["bntr", "bnls", "bntl", "ntr", "nls"]
"""TAO's names of its Newton types."""

UNBOUNDED_TAO: tuple[TaoNewtonType, ...] = ("ntr", "nls")
"""Those that know no bounds."""


def solve_tao_newton(
    problem: LearningProblem,
    initial: Array,
    tolerances: Tolerances | None = None,
    *,
    escape: bool = True,
    report: Report | None = None,
    accuracy: Accuracy | None = None,
    options: Mapping[str, object] | None = None,
    tao_type: TaoNewtonType = "bntr",
) -> Solution:
    """Solve the learning problem by one of TAO's Newton types.

    Arguments, returns and errors are those of `solve_newton`.

    Args:
        tao_type: TAO's name of the type.

    Raises:
        BadInput: The controls have bounds, which the type does not know.
    """
    if problem.controls.box is not None and tao_type in UNBOUNDED_TAO:
        raise BadInput(None, "bounds", f"TAO's {tao_type} knows no bounds", "bntr, bnls, bntl")
    return solve_by(
        _descend,
        {"tao_type": tao_type, "pc_type": "none", **tao.DEFAULTS},
        problem,
        initial,
        tolerances,
        escape=escape,
        report=report,
        accuracy=accuracy,
        options=options,
    )


def _descend(descent: Descent) -> tuple[Linearisation, str]:
    return tao.descend_by_tao(descent, hessian=True)
