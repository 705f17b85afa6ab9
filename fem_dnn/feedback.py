"""Local feedback from the second-order expansion of the value functional (theory.md section 8).

Around an optimal control c of the inputs f_I the optimality system is linearised: where the inputs
are f_I + d instead, the optimal control is, to first order (parametric sensitivity),

    c(f_I + d) = c - H^{-1} d/d(f_I) grad J [d] + O(|d|^2),

with H the reduced Hessian, positive definite at a strict minimiser. J is stationary in c, so

    open loop  J(c; f_I + d) - min = O(|d|^2),        feedback  J(c + dc; f_I + d) - min = O(|d|^4).

The same at a depth t_n: what follows is a learning problem of its own, whose inputs are the states
there and whose optimal value is V(f, t_n). Measuring the states at several depths and applying the
feedback anew at each is the neighbouring-extremal closed loop (Breakwell, Speyer & Bryson, SIAM J.
Control 1, 1963): it also answers what disturbs the states on their way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from petsc4py import PETSc

from fem_dnn.active_set import ActiveSet
from fem_dnn.controls import ControlParts, ControlSpace
from fem_dnn.errors import FemDnnError
from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.riesz import RieszMap
from fem_dnn.solvers import Tolerances, solve_newton
from fem_dnn.solvers.petsc import PREFIX, original_errors, read_options
from fem_dnn.solvers.tail import problem_from

Array = NDArray[np.float64]


class NoFeedback(FemDnnError):
    """The second order does not define a feedback; the text says why."""


class _FreeHessian:
    """Context of a shell matrix: T'HT on the free entries of a control, the identity elsewhere."""

    def __init__(self, at: Linearisation, riesz: RieszMap | None) -> None:
        active = ActiveSet.of(at)
        self.at, self.riesz = at, riesz
        self.free = 1.0 if active is None else active.free.astype(np.float64)

    def mult(self, _mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """y = H x."""
        if self.riesz is not None:
            product = self.at.hessian_action(self.riesz.apply(x.array_r))
            y.array_w[:] = self.riesz.apply_transpose(product)
            return
        moved = self.free * self.at.hessian_action(self.free * x.array_r)
        y.array_w[:] = moved + (1.0 - self.free) * x.array_r

    multTranspose = mult  # noqa: N815 (the name PETSc calls)


def control_change(
    at: Linearisation, inputs: Array, *, rtol: float = 1e-10, max_products: int = 2000
) -> Array:
    """dc = -H^{-1} d/d(f_I) grad J [d] by conjugate gradients (collective).

    Controls that a bound holds keep it.

    Args:
        at: The learning problem at a strict minimiser.
        inputs: The change d of the inputs, shape (n_local, samples).
        rtol: Of the residual, in the inner product of the regulariser.
        max_products: Hessian products at most.

    Raises:
        NoFeedback: H is not positive definite, or the limit is reached.
    """
    problem = at.problem
    riesz = RieszMap(problem.regularization)
    bounded = problem.controls.box is not None
    hessian = _FreeHessian(at, None if riesz.trivial or bounded else riesz)
    right = -at.gradient_by_inputs(inputs)
    right = hessian.free * right if hessian.riesz is None else riesz.apply_transpose(right)
    sizes = (problem.controls.n_local, problem.controls.n_global)
    comm = problem.network.space.comm
    matrix = PETSc.Mat().createPython((sizes, sizes), hessian, comm=comm)
    matrix.setOption(PETSc.Mat.Option.SYMMETRIC, True)
    matrix.setUp()
    b, x = PETSc.Vec().createMPI(sizes, comm=comm), PETSc.Vec().createMPI(sizes, comm=comm)
    b.array_w[:] = right
    ksp = PETSc.KSP().create(comm)
    try:
        ksp.setOperators(matrix)
        ksp.setType(PETSc.KSP.Type.CG)
        ksp.getPC().setType(PETSc.PC.Type.NONE)
        ksp.setTolerances(rtol=rtol, atol=1e-300, max_it=max_products)
        ksp.setOptionsPrefix(f"{PREFIX}feedback_")
        read_options(ksp)
        with original_errors():
            ksp.solve(b, x)
        reason = ksp.getConvergedReason()
        change = x.array_r.copy()
    finally:
        for thing in (ksp, b, x, matrix):
            thing.destroy()
    if reason == PETSc.KSP.ConvergedReason.DIVERGED_INDEFINITE_MAT:
        raise NoFeedback("the Hessian is not positive definite: this is no strict minimiser")
    if reason < 0:
        why = f"conjugate gradients did not converge in {max_products} Hessian products"
        raise NoFeedback(f"{why}: the Hessian is nearly singular; use a stronger regularization")
    return change if hessian.riesz is None else riesz.apply(change)


def feedback_control(at: Linearisation, inputs: Array, *, rtol: float = 1e-10) -> Array:
    """The control that the feedback at depth 0 answers other inputs with (collective).

    Args:
        at: The learning problem at a strict minimiser.
        inputs: f_I + d, shape (n_local, samples).
        rtol: As in `control_change`.

    Raises:
        NoFeedback: As in `control_change`.
    """
    control = at.control + control_change(at, inputs - at.problem.inputs, rtol=rtol)
    return at.problem.controls.project(control)


@dataclass(frozen=True, eq=False)
class Loop:
    """A network run with some feedback.

    Attributes:
        control: What was applied, local vector in L2-orthonormal coordinates.
        ends: The states at the slab ends, after what disturbs them there, (layers + 1, n_local, S).
        loss: Terminal loss and tracking term along these states.
        objective: With R of the applied control.
    """

    control: Array
    ends: Array
    loss: float
    objective: float


def run_loop(
    at: Linearisation,
    inputs: Array,
    *,
    measured: Sequence[int] = (),
    disturbances: Mapping[int, Array] | None = None,
    reoptimised: bool = False,
    rtol: float = 1e-10,
) -> Loop:
    """Run a trained network on other inputs, with feedback from measured states (collective).

    Args:
        at: The learning problem at a strict minimiser.
        inputs: f_I + d, shape (n_local, samples).
        measured: Layers n at whose start t_n the states are measured and the rest of the control
            is corrected; none: the open loop.
        disturbances: What is added to the states at t_n, by n, each (n_local, samples).
        reoptimised: Solve the remaining problem anew there, instead of by the expansion: what the
            feedback approximates.
        rtol: As in `control_change`.

    Raises:
        NoFeedback: As in `control_change`; or derivatives in depth are penalised and there is a
            measurement at n > 0, where what remains is not independent of what went before.
    """
    problem, disturbed = at.problem, dict(disturbances or {})
    R, layers = problem.regularization, problem.network.levels.layers
    if (R.kernel_depth or R.bias_depth) and any(measured):
        raise NoFeedback("kernel_depth and bias_depth tie the controls to those before t_n")
    stops = sorted({0, *measured, *disturbed})
    applied, plan, planned = at.control.copy(), at.control, 0
    ends = np.empty((layers + 1, *inputs.shape))
    f, tracked = inputs, 0.0
    for n, m in zip(stops, [*stops[1:], layers], strict=True):
        f = f + disturbed[n] if n in disturbed else f
        plan = control_from(_between(problem, planned), plan, n - planned)
        planned = n
        here = problem_from(problem, n, f)
        if n in measured:
            plan = _corrected(at, here, n, plan, reoptimised=reoptimised, rtol=rtol)
            applied = _replaced(problem.controls, applied, plan, n)
        actual = here.linearise(plan)
        tracked += float(here.tracking_costs(actual.misfit)[: m - n].sum())
        ends[n : m + 1] = actual.state.ends[: m - n + 1]
        f = actual.state.ends[m - n]
    loss = tracked + float(problem.sample_weights @ actual.loss_point.values)
    return Loop(applied, ends, loss, loss + R.value(applied))


def _corrected(
    at: Linearisation, here: LearningProblem, n: int, plan: Array, *, reoptimised: bool, rtol: float
) -> Array:
    """The control from layer n on that answers the states there."""
    if reoptimised:
        solution = solve_newton(here, plan, Tolerances(rtol=1e-9, atol=1e-12), escape=False)
        if not solution.converged:
            raise NoFeedback(f"the remaining problem was not solved: {solution.reason}")
        return solution.control
    nominal = replace(here, inputs=at.state.ends[n])
    there = nominal.linearise(control_from(at.problem, at.control, n))
    return feedback_control(there, here.inputs, rtol=rtol)


def _between(problem: LearningProblem, first: int) -> LearningProblem:
    return problem if first == 0 else problem_from(problem, first, problem.inputs)


def control_from(problem: LearningProblem, control: Array, first: int) -> Array:
    """The part of a control from a layer on, as `problem_from` holds it; learned outputs whole."""
    if first == 0:
        return control
    levels, parts = problem.network.levels, problem.controls.split(control)
    start = first * levels.scheme.levels
    rest = problem_from(problem, first, problem.inputs).controls
    return rest.join(
        ControlParts(
            None if parts.kernel is None else parts.kernel[start:],
            None if parts.bias is None else parts.bias[start:],
            parts.outputs,
            parts.offsets,
        )
    )


def _replaced(controls: ControlSpace, control: Array, rest: Array, first: int) -> Array:
    """The control with its part from a layer on replaced."""
    parts = controls.split(control.copy())
    start = first * controls.levels.scheme.levels
    own = controls.on(replace(controls.levels, points=controls.levels.points[first:])).split(rest)
    for mine, new in ((parts.kernel, own.kernel), (parts.bias, own.bias)):
        if mine is not None and new is not None:
            mine[start:] = new
    return controls.join(ControlParts(parts.kernel, parts.bias, own.outputs, own.offsets))
