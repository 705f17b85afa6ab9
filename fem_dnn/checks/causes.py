"""Why a bound of the continuous problem fails on a discrete solution."""

from __future__ import annotations

from collections.abc import Callable

from fem_dnn.checks.subject import Subject
from fem_dnn.slab import SlabFailure

SOLVED = 1e-9
"""Relative residual of the discrete state equation up to which states count as its solution."""


def likely_cause(subject: Subject, excess: Callable[[Subject], float]) -> str:
    """The likely cause of a violation (collective).

    Three candidates are told apart: a state or adjoint that does not solve its equation; a depth
    mesh too coarse (on halved slabs, with the same controls, the excess shrinks); constants of the
    activation that are not true.

    Args:
        subject: Where the violation was seen.
        excess: How far the bound is exceeded: positive where it is violated.
    """
    defect = subject.state_defect()
    if not defect <= SOLVED:
        return (
            f"likely cause: the states do not solve the discrete state equation (relative residual "
            f"{defect:.1e}): they were altered, or belong to other controls"
        )
    defect = subject.adjoint_defect()
    if not defect <= SOLVED:
        return (
            "likely cause: the adjoint is not that of these controls (relative distance "
            f"{defect:.1e}): it was altered"
        )
    here, stiffness = excess(subject), subject.stiffness()
    layers = 2 * subject.levels.layers
    try:
        there = excess(subject.refined())
    except SlabFailure as failure:
        return f"likely cause: the depth is under-resolved (tau L|a| = {stiffness:.3g}): {failure}"
    if there < 0.9 * here:
        return (
            f"likely cause: {subject.levels.scheme.name} under-resolves the depth (tau L|a| = "
            f"{stiffness:.3g}): with the same controls on {layers} layers the excess falls from "
            f"{here:.3g} to {there:.3g}; use more layers (mesh.depth.cells)"
        )
    return (
        f"with the same controls on {layers} layers the excess stays ({here:.3g}, {there:.3g}), so "
        "the depth mesh is not the cause: suspect the constants (Lipschitz constant, supremum) "
        f"that the activation {subject.network.activation.name} declares"
    )
