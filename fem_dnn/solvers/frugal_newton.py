"""Trust-region Newton-CG with as few vectors as it takes: where one of controls is gigabytes.

The method is that of `newton`: steps minimise the quadratic model in a ball of the iterate's own
metric by truncated conjugate gradients (Steihaug, SIAM J. Numer. Anal. 20, 1983). PETSc's objects
hold eleven vectors for it, and callbacks as many as six more. Here there are five at a time, which
is what conjugate gradients need: the control, the step, residual, search direction and its product.
The trial control takes the place of the last three, and the gradient becomes the residual.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from petsc4py import PETSc

from fem_dnn.coordinates import Metric
from fem_dnn.problem import Linearisation
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers.descent import Descent
from fem_dnn.solvers.petsc import NOISE

Array = NDArray[np.float64]

REASON = PETSc.SNES.ConvergedReason

DELTA_0 = 0.2
"""First radius of the trust region, relative to the start's own length; PETSc's default."""

ACCEPTED, POOR, GOOD = 1e-3, 0.25, 0.75
"""Ratios of the objective's decrease to the model's: a step is taken, the region shrinks, grows."""

SMALLEST = 1e-12
"""Radius, relative to the first, at which the region has shrunk to nothing."""

MAX_PRODUCTS = 1000

BLOCK = 2**14
"""Numbers of several vectors that are taken at a time, to stay in the processor's cache."""


@dataclass(frozen=True, eq=False)
class _Step:
    """A step z of the model.

    Attributes:
        z: By the coordinates of the metric.
        decrease: By how much it lowers the model.
        at_boundary: Whether the region's boundary ends it.
        products: Hessian products taken.
    """

    z: Array
    decrease: float
    at_boundary: bool
    products: int


def descend_frugally(descent: Descent) -> tuple[Linearisation, int]:
    """Run it; returns the point reached and why it ended, as one of PETSc's reasons of a SNES.

    Raises:
        SlabFailure: In an adjoint or a Hessian product.
    """
    problem, history, at = descent.petsc.problem, descent.history, descent.start
    first = radius = descent.radius or DELTA_0 * (at.length or 1.0)
    while not at.gradient_norm <= descent.target:
        if not math.isfinite(at.gradient_norm):
            return at, REASON.DIVERGED_FNORM_NAN
        if descent.iterations_left == 0:
            return at, REASON.DIVERGED_MAX_IT
        if radius < SMALLEST * first:
            return at, REASON.DIVERGED_TR_DELTA
        metric = problem.metric(at)
        assert metric is not None, "this method is for problems with a metric of their own"
        step = _truncated_cg(at, metric, descent.forcing(at.gradient_norm), radius)
        history.linear_iterations += step.products
        trial = problem.linearise(problem.moved(at, metric.apply(step.z)))
        try:
            ratio = _ratio(at, trial, step.decrease)
        except SlabFailure as failure:
            descent.petsc.failure, ratio = failure, math.nan
        length = problem.controls.norm(step.z)
        if not ratio >= POOR:
            radius = POOR * min(radius, length)  # or a step from within would come again
        elif ratio > GOOD and step.at_boundary:
            radius *= 2
        del step
        if ratio > ACCEPTED:
            at.forget()
            at, descent.petsc.failure = trial, None
            history.add(at, length)
    return at, REASON.CONVERGED_FNORM_RELATIVE


def _ratio(at: Linearisation, trial: Linearisation, decrease: float) -> float:
    """The objective's decrease relative to the model's.

    Where both are below the objective's round-off, 1 if the gradient falls and 0 if not.
    """
    actual = at.objective - trial.objective
    if max(abs(actual), decrease) <= NOISE * abs(at.objective):
        return float(trial.gradient_norm < at.gradient_norm)
    return actual / decrease


def _truncated_cg(at: Linearisation, metric: Metric, rtol: float, radius: float) -> _Step:
    """Minimise the model in the ball |z| <= radius, to a relative residual."""
    controls = at.problem.controls
    r = at.descent_in(metric)
    z, p, Hp = np.zeros_like(r), r.copy(), np.empty_like(r)
    rr = controls.dot(r, r)
    enough, decrease, zz, zp, pp = rtol**2 * rr, 0.0, 0.0, 0.0, rr
    if rr == 0.0:
        return _Step(z, 0.0, False, 0)
    for products in range(1, MAX_PRODUCTS + 1):
        at.hessian_in(metric, p, Hp)
        curvature = controls.dot(p, Hp)
        alpha = rr / curvature if curvature > 0 else math.inf
        beyond = zz + alpha * (2 * zp + alpha * pp) >= radius**2 if curvature > 0 else True
        if beyond:
            alpha = (math.sqrt(zp**2 + pp * (radius**2 - zz)) - zp) / pp
        decrease += alpha * rr - 0.5 * alpha**2 * curvature
        before, local = rr, 0.0
        for part in _blocks(len(z)):
            z[part] += alpha * p[part]
            r[part] -= alpha * Hp[part]
            local += float(np.dot(r[part], r[part]))
        if beyond:
            return _Step(z, decrease, True, products)
        rr = float(controls.space.sum(np.array(local)))
        if rr <= enough:
            break
        beta = rr / before
        for part in _blocks(len(z)):
            p[part] *= beta
            p[part] += r[part]
        # The recursions of Steihaug for |z|^2, z.p and |p|^2.
        zz += alpha * (2 * zp + alpha * pp)
        zp = beta * (zp + alpha * pp)
        pp = rr + beta**2 * pp
    return _Step(z, decrease, False, products)


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, size, BLOCK))
