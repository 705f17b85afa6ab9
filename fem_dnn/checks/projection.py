"""The optimal controls are projections (theory.md section 3).

With box bounds and without derivatives in R,

    a = P[-(1/lambda_a) sum_s w_s sigma'(u_s) p_s (x) f_s],      b likewise,

with P the projection onto the bounds, at every depth.
"""

from __future__ import annotations

import numpy as np

from fem_dnn.checks.check import ROUND_OFF, Check, not_applicable
from fem_dnn.checks.subject import Subject
from fem_dnn.solvers import Tolerances

SOURCE = "theory.md section 3"


def projection_formula(subject: Subject, tolerances: Tolerances) -> Check:
    """|c - P(c - grad J(c) / lambda)| <= |projected gradient| / lambda (collective).

    c - grad J / lambda is the right-hand side of the formula. As P moves no two points apart, what
    the solver's tolerance leaves of the gradient bounds the distance.
    """
    name, at = "projection_formula", subject.at
    if at is None or at.problem.controls.box is None:
        return not_applicable(name, "no control has bounds", SOURCE)
    if subject.smoothed:
        return not_applicable(name, "derivatives of the controls are penalised", SOURCE)
    controls, R = at.problem.controls, at.problem.regularization
    weights = {block: R.tikhonov[block] for block in controls.bounded}
    if not all(weights.values()):
        return not_applicable(name, "a bounded control is not regularised", SOURCE)
    start = at
    if subject.initial is not None:
        start = at.problem.linearise(controls.project(subject.initial))
    unbounded = np.array(at.control)
    for block, weight in weights.items():
        part = controls.blocks[block]
        unbounded[part] -= at.gradient[part] / weight
    value = controls.norm(controls.project(unbounded) - at.control)
    bound = tolerances.target(start.gradient_norm) / min(weights.values())
    bound += ROUND_OFF * controls.norm(at.control)
    text = (
        f"L2 distance of the bounded controls ({', '.join(weights)}) from the projection onto "
        "their bounds of -(1/lambda) sum w sigma'(u) p (x) f, against the case's tolerance on the "
        "gradient divided by lambda"
    )
    return Check(name, value <= bound, value, bound, text, SOURCE)
