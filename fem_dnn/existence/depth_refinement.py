"""Oscillation of any case's minimisers as its mesh is refined: |d_t a| / |a| against the layers.

Without gamma nothing bounds d_t a. Where minimising sequences oscillate, |d_t a| / |a| grows with
the layers; with gamma > 0 it stays, and the controls converge strongly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fem_dnn.assembly import Model
from fem_dnn.case import Case
from fem_dnn.case.domain import GradedDepth, Interval, Rectangle
from fem_dnn.commands import solve
from fem_dnn.existence.rates import Fit, power_law
from fem_dnn.problem import Linearisation
from fem_dnn.regularization import Regularization
from fem_dnn.request import Request

_MATTERS = 0.02
"""Relative growth per refinement that is put down to the mesh."""

_SHRINKS = 0.6


@dataclass(frozen=True)
class Refined:
    """A minimiser on one mesh.

    Attributes:
        layers, nodes: The mesh.
        objective: J.
        derivative: |d_t a| / |a| of the kernel, or of the bias where no kernel is trained.
        converged: Whether the solver has converged.
        lowest_eigenvalue: Of the Hessian, where computed.
    """

    layers: int
    nodes: int
    objective: float
    derivative: float
    converged: bool
    lowest_eigenvalue: float | None


@dataclass(frozen=True, eq=False)
class Refinement:
    """Minimisers on ever finer meshes.

    Attributes:
        terms: By mesh.
        growth: |d_t a| / |a| ~ layers^rate.
    """

    terms: list[Refined]
    growth: Fit

    @property
    def explanation(self) -> str:
        """What the numbers say."""
        ratios = ", ".join(f"{term.derivative:.3g} ({term.layers})" for term in self.terms)
        text = f"|d_t a|/|a| = {ratios} (layers), ~ layers^{self.growth.exponent:.2f}"
        if not all(term.converged for term in self.terms):
            return f"{text}; not all solves have converged: see their reasons"
        if self.grows is None:
            return text
        if self.grows:
            return f"{text}: the controls oscillate more with every refinement"
        return f"{text}: the controls settle"

    @property
    def grows(self) -> bool | None:
        """Whether the derivative grows; None where there are too few meshes to tell.

        Of controls that converge as the layers double, each increment is half the one before it or
        less, or too small to matter.
        """
        if len(self.terms) < 3:
            return None
        ratios = [term.derivative for term in self.terms]
        before, last = np.diff(ratios[-3:])
        return bool(last > _MATTERS * ratios[-1] and last > _SHRINKS * abs(before))


def derivative_of_controls(at: Linearisation) -> float:
    """|d_t a| / |a| of the kernel, or of the bias where no kernel is trained (collective).

    The derivative is that of the regulariser's depth term (`derivative_forms`).
    """
    problem = at.problem
    controls = problem.controls
    name = "kernel" if controls.has_kernel else "bias"
    part = getattr(controls.split(at.control), name)
    terms = {"kernel": 0.0, "bias": 0.0, f"{name}_depth": 2.0}
    squares = Regularization(controls, **terms).energy(name, part)
    size = float(controls.space.sum(np.array(np.sum(part * part))))
    return float(np.sqrt(squares / size)) if size else 0.0


def refine(
    case: Case,
    times: Sequence[int] = (1, 2, 4),
    *,
    width: bool = False,
    request: Request | None = None,
) -> Refinement:
    """Solve a case on meshes with so many times the layers (collective).

    Every solve starts from the case's own initial guess.

    Args:
        case: The case, with layers of equal thickness.
        times: Factors on the number of layers.
        width: Whether the cells of the width are multiplied as well.
        request: PETSc options, console and communicator; nothing is written.

    Raises:
        BadInput: The mesh cannot be refined so.
    """
    request = replace(request or Request(), out=None)
    terms = []
    for factor in times:
        finer = _refined(case, factor, width)
        run = solve(finer, request)
        if run.solution is None:
            terms.append(_failed(run.model))
            continue
        solution = run.solution
        terms.append(
            Refined(
                run.model.network.levels.layers,
                run.model.network.space.n_nodes,
                solution.objective,
                derivative_of_controls(solution.at),
                solution.converged,
                solution.lowest_eigenvalue,
            )
        )
    growth = power_law([term.layers for term in terms], [term.derivative for term in terms])
    return Refinement(terms, growth)


def _failed(model: Model) -> Refined:
    nan = float("nan")
    return Refined(model.network.levels.layers, model.network.space.n_nodes, nan, nan, False, None)


def _refined(case: Case, factor: int, width: bool) -> Case:
    tables: dict[str, Any] = case.as_dict()
    depth, domain = case.mesh.depth, case.mesh.width
    if isinstance(depth, GradedDepth):
        raise case.error("mesh.depth.points", "give a graded mesh", "cells, to be multiplied")
    tables["mesh"]["depth"]["cells"] = depth.cells * factor
    if width:
        if isinstance(domain, Interval):
            tables["mesh"]["width"]["cells"] = domain.cells * factor
        elif isinstance(domain, Rectangle):
            tables["mesh"]["width"]["cells"] = [n * factor for n in domain.cells]
        else:
            raise case.error("mesh.width.file", "has cells of its own", "interval or rectangle")
    return Case.parse(tables, case.file, case.folder)
