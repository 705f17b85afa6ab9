"""How large a kernel can be that is better than none (theory.md section 1).

(lambda_a / 2) |a|^2 <= J(a, b) <= J(0, 0)
=>  int_0^T |a| dt <= (2 T J(0, 0) / lambda_a)^{1/2}
"""

from __future__ import annotations

import math

import numpy as np

from fem_dnn.checks.check import ROUND_OFF, Check, not_applicable
from fem_dnn.checks.subject import Subject

SOURCE = "theory.md section 1 (coercivity)"


def control_bound(subject: Subject) -> Check:
    """int_0^T |a| <= (2 T J(0, 0) / lambda_a)^{1/2} at any control with J <= J(0, 0) (collective).

    J(0, 0) has the kernel and the bias that are trained at zero, what is given as given, and a
    learned output layer as training started it.
    """
    name, at = "control_bound", subject.at
    if at is None:
        return not_applicable(name, "there are no targets, so no objective", SOURCE)
    problem = at.problem
    if not problem.controls.has_kernel:
        return not_applicable(name, "the kernel is not trained", SOURCE)
    strength = problem.regularization.kernel
    if strength == 0:
        return not_applicable(name, "regularization.kernel is 0", SOURCE)
    zero = np.zeros_like(at.control)
    if subject.initial is not None:
        for block in ("outputs", "offsets"):
            part = problem.controls.blocks[block]
            zero[part] = subject.initial[part]
    at_zero, J = problem.linearise(zero).objective, at.objective
    if at_zero * (1 + ROUND_OFF) < J:
        why = f"J = {J:.10g} is above J(0, 0) = {at_zero:.10g}: training has not got below zero"
        return not_applicable(name, f"{why} controls", SOURCE)
    levels = subject.levels
    T = float(levels.points[-1] - levels.points[0])
    value = float(subject.integral(subject.kernel_norms())[-1])
    bound = math.sqrt(2 * T * at_zero / strength)
    holds = value <= bound * (1 + ROUND_OFF)
    kept = ", the output layer as training started it" if problem.controls.outputs else ""
    text = f"int |a| <= (2 T J(0,0)/lambda_a)^(1/2) with J(0,0) = {at_zero:.10g}{kept}"
    if not holds:
        least = 0.5 * strength * float(subject.integral(subject.kernel_norms() ** 2)[-1])
        text = (
            f"{text}; likely cause: the objective J = {J:.6g} does not belong to this kernel, "
            f"whose (lambda_a / 2)|a|^2 alone is {least:.6g}"
        )
    return Check(name, holds, value, bound, text, SOURCE)
