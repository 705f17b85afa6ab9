"""The Newton types of PETSc's TAO, with the reduced Hessian by its action.

Trust region (`bntr`, `ntr`), line search (`bnls`, `nls`), and a trust region that falls back on a
line search (`bntl`); the conjugate gradients inside are TAO's own choice. `newton` is the method of
choice: these are there to be compared with. (TAO's `ntl` is left out: PETSc 3.22 crashes in
it where the Hessian is indefinite and no preconditioner is used.)
"""

from __future__ import annotations

from fem_dnn.problem import Linearisation
from fem_dnn.solvers import tao
from fem_dnn.solvers.descent import Descent
from fem_dnn.solvers.method import Method, Way

TYPES = ("bntr", "bnls", "bntl", "ntr", "nls")
"""TAO's names of its Newton types."""

UNBOUNDED_TYPES = ("ntr", "nls")
"""Those that know no bounds."""


def _descend(descent: Descent) -> tuple[Linearisation, str]:
    return tao.descend_by_tao(descent, hessian=True)


def _method(tao_type: str) -> Method:
    way = Way(_descend, {"tao_type": tao_type, "pc_type": "none", **tao.DEFAULTS})
    return Method(tao_type, way, within_bounds=None if tao_type in UNBOUNDED_TYPES else way)


TAO_NEWTON = tuple(map(_method, TYPES))
"""One method per type."""
