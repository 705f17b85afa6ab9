"""Limited-memory BFGS (PETSc TAO `lmvm`, More-Thuente line search): the first-order baseline.

Where the controls have bounds: TAO's `blmvm`, whose steps are projected (Benson & More, ANL/MCS-
P909-0901, 2001), with its own diagonal scaling. Of TAO's other bounded first-order types `bqnls`
and `bncg` took more iterations where many bounds are active.
"""

from __future__ import annotations

from fem_dnn.problem import Linearisation
from fem_dnn.solvers import tao
from fem_dnn.solvers.descent import Descent
from fem_dnn.solvers.method import Method, Way
from fem_dnn.solvers.petsc import inserted_options

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


def _descend(descent: Descent) -> tuple[Linearisation, str]:
    with inserted_options(MATRIX_PREFIX, MATRIX, {}):
        return tao.descend_by_tao(descent, hessian=False)


solve_lbfgs = Method("lbfgs", Way(_descend, DEFAULTS), within_bounds=Way(_descend, WITHIN_BOUNDS))
"""Limited-memory BFGS."""
