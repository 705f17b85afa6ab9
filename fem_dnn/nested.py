"""Nested iteration: solve on coarse meshes first; every solution is the next mesh's guess.

All meshes discretise one problem in function space, and all data of the coarse ones are L2
projections of the finest's, whatever they were made from: expressions, data sets, array files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from fem_dnn.assembly import Discretisation, Model, model_of
from fem_dnn.case import Case
from fem_dnn.case.domain import GradedDepth, Interval, Rectangle
from fem_dnn.control_transfer import transfer_control, transfer_values
from fem_dnn.controls import ControlSpace, ControlValues
from fem_dnn.depth_projection import depth_projection
from fem_dnn.ingredients import Ingredients, Samples
from fem_dnn.memory import within_memory
from fem_dnn.problem import LearningProblem
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers import Solution, Tolerances
from fem_dnn.solvers.history import Coarser, Iteration, Keep, Report, Waypoint
from fem_dnn.width_projection import width_projection

Array = NDArray[np.float64]

COARSE_RTOL = 1e-4
"""How far the gradient is reduced on coarser meshes: below the difference between the meshes."""


class Solve(Protocol):
    """Solves a model from a guess, or goes on from a waypoint."""

    def __call__(
        self,
        model: Model,
        guess: Array,
        tolerances: Tolerances,
        *,
        report: Report,
        keep: Keep | None,
        resume: Waypoint | None,
    ) -> Solution:
        """As a `Method` with the model's problem."""


def solve_nested(
    model: Model,
    solve: Solve,
    tolerances: Tolerances,
    report: Report,
    say: Callable[[str], None],
    *,
    keep: Keep | None = None,
    resume: Waypoint | None = None,
) -> Solution:
    """Solve on `solver.nested` coarser meshes, then on the case's own (collective).

    Tolerances refer to the case's own initial guess on its own mesh, on every mesh. A coarse
    solution is used only where it is better on the finest mesh than that guess.

    Args:
        model: The case's model, on the finest mesh.
        solve: Solves on one mesh.
        tolerances: Of the case; the limit on iterations holds for every mesh.
        report: Called with every iteration.
        say: Tells which mesh is next.
        keep: Called with every iteration; may keep waypoints.
        resume: Where an earlier solve had got to, on whichever mesh; go on from there.

    Returns:
        The solution on the finest mesh. Its work and its history are those of all meshes;
        `Iteration.mesh` says which, 0 being the coarsest.

    Raises:
        SlabFailure: The state equation cannot be solved at the initial guess on the finest mesh.
        BadInput: There are fewer coarse cells than ranks.
    """
    problem = within_memory(model)
    models = hierarchy(model)
    before = replace(problem.work)
    start = problem.linearise(model.initial)
    norm, objective = start.gradient_norm, start.objective
    own = problem.work.minus(before)
    guess, origin = model.initial, problem.controls
    climb = _Climb(solve, report, keep, Coarser(0, objective, norm))
    if resume is not None and resume.coarser is not None:
        climb.coarser = resume.coarser
    for number, coarse in enumerate(models):
        if number < climb.coarser.mesh:
            continue  # it has led to the waypoint
        controls = _controls(coarse)
        say(f"mesh {number + 1} of {len(models) + 1}: {_described(coarse)}")
        try:
            solution = climb.solve_on(
                coarse,
                transfer_control(origin, guess, controls),
                _absolute(tolerances, max(tolerances.rtol, COARSE_RTOL), norm),
                resume,
            )
        except SlabFailure:
            # Steps too large there: the next mesh starts from what there is.
            climb.coarser = replace(climb.coarser, mesh=number + 1)
        else:
            guess, origin = solution.control, controls
        resume = None
    say(f"mesh {len(models) + 1} of {len(models) + 1}: {_described(model)}")
    if resume is None:
        guess = transfer_control(origin, guess, problem.controls)
        before = replace(problem.work)
        if not _better(problem, guess, objective):
            guess = model.initial
        own = own.plus(problem.work.minus(before))
    finest = _absolute(tolerances, tolerances.rtol, norm)
    solution = climb.solve_on(model, guess, finest, resume)
    total = climb.coarser
    return replace(
        solution,
        initial_gradient_norm=norm,
        history=list(total.history),
        iterations=total.iterations,
        linear_iterations=total.linear_iterations,
        state_solves=total.state_solves + round(own.states),
        adjoint_solves=total.adjoint_solves + round(own.adjoints),
        hessian_solves=total.hessian_solves + own.hessians,
        sweeps=total.sweeps + own.sweeps,
        seconds=total.seconds,
    )


def hierarchy(model: Model) -> list[Model]:
    """The `solver.nested` coarser models, the coarsest first (collective)."""
    models: list[Model] = []
    finer = model
    for _ in range(model.case.solver.nested):
        finer = coarsened(finer)
        models.insert(0, finer)
    return models


def coarsened(model: Model) -> Model:
    """The model on a mesh of half as many cells and layers, with all data projected (collective).

    Raises:
        BadInput: There are fewer cells than ranks.
    """
    case = coarser_case(model.case)
    discretisation = Discretisation.of(case, model.comm)
    width = width_projection(model.network.space, discretisation.space)
    depth = depth_projection(model.network.levels, discretisation.levels)
    ingredients = restricted(case, model.ingredients, width, depth)
    return model_of(case, discretisation, ingredients, model.network.activation)


def coarser_case(case: Case) -> Case:
    """The case with half as many cells and layers; a mesh file's cells are kept."""
    width, depth = case.mesh.width, case.mesh.depth
    tables: dict[str, Any] = case.as_dict()
    if isinstance(width, Interval):
        tables["mesh"]["width"]["cells"] = width.cells // 2
    elif isinstance(width, Rectangle):
        tables["mesh"]["width"]["cells"] = [n // 2 for n in width.cells]
    if isinstance(depth, GradedDepth):
        tables["mesh"]["depth"]["points"] = list(depth.points[::2])
    else:
        tables["mesh"]["depth"]["cells"] = depth.cells // 2
    tables["solver"]["nested"] = 0
    return Case.parse(tables, case.file, case.folder)


def restricted(
    case: Case, finer: Ingredients, width: sparse.csr_array, depth: Array
) -> Ingredients:
    """The arrays of a case projected onto a coarser network (file order).

    Args:
        case: The case, for what its targets are.
        finer: Arrays on the finer network.
        width: Projection P in width.
        depth: Projection D in depth.
    """

    def on_nodes(values: Array) -> Array:
        flat = values.reshape(-1, values.shape[-1])
        return np.ascontiguousarray((width @ flat.T).T).reshape(*values.shape[:-1], -1)

    train = finer.train
    targets = train.targets
    if case.loss.kind == "l2" and targets is not None:
        targets = on_nodes(targets)
    tracking = finer.tracking
    if tracking is not None:
        # Tracking points are the control levels or, for resnet, one per layer like these.
        if len(tracking) > 1:
            tracking = np.asarray(np.tensordot(depth, tracking, axes=1), np.float64)
        tracking = on_nodes(tracking)
    given = transfer_values(ControlValues(finer.kernel, finer.bias), width, depth)
    mask = finer.mask
    if mask is not None:
        # Coarse nodes connect where any of their fine nodes do.
        mask = ((abs(width) @ (abs(width) @ mask).T).T > 1e-12).astype(np.float64)
    return replace(
        finer,
        train=Samples(on_nodes(train.inputs), targets, train.features),
        test=None,
        tracking=tracking,
        kernel=given.kernel,
        bias=given.bias,
        mask=mask,
        outputs=None if finer.outputs is None else on_nodes(finer.outputs),
        initial=None,
    )


def _controls(model: Model) -> ControlSpace:
    assert model.problem is not None
    return model.problem.controls


def _described(model: Model) -> str:
    space, levels = model.network.space, model.network.levels
    return f"{space.n_nodes} width nodes, {levels.layers} layers"


def _absolute(tolerances: Tolerances, rtol: float, norm: float) -> Tolerances:
    """Tolerances relative to a gradient norm on another mesh, as absolute ones."""
    return Tolerances(0.0, max(tolerances.atol, rtol * norm), tolerances.max_iterations)


def _better(problem: LearningProblem, guess: Array, objective: float) -> bool:
    """Whether a guess has a lower objective."""
    try:
        return problem.objective(guess) < objective
    except SlabFailure:
        return False


@dataclass(eq=False)
class _Climb:
    """From mesh to mesh, with the work and the history of all.

    Attributes:
        solve: Solves on one mesh.
        report: Called with every iteration, its work counted through all meshes.
        keep: Called with every iteration, the coarser meshes in its waypoint.
        coarser: What the meshes so far have taken.
    """

    solve: Solve
    report: Report
    keep: Keep | None
    coarser: Coarser

    def solve_on(
        self, model: Model, guess: Array, tolerances: Tolerances, resume: Waypoint | None
    ) -> Solution:
        """Solve on the next mesh, or go on there."""
        done, keep = self.coarser, self.keep
        lines = [] if resume is None else [_through(done, line) for line in resume.iterations]

        def report(line: Iteration) -> None:
            lines.append(_through(done, line))
            self.report(lines[-1])

        def keep_all(waypoint: Callable[[], Waypoint]) -> None:
            assert keep is not None
            keep(lambda: replace(waypoint(), coarser=done))

        solution = self.solve(
            model,
            guess,
            tolerances,
            report=report,
            keep=None if keep is None else keep_all,
            resume=resume,
        )
        self.coarser = replace(
            done,
            mesh=done.mesh + 1,
            history=(*done.history, *lines),
            iterations=done.iterations + solution.iterations,
            linear_iterations=done.linear_iterations + solution.linear_iterations,
            state_solves=done.state_solves + solution.state_solves,
            adjoint_solves=done.adjoint_solves + solution.adjoint_solves,
            hessian_solves=done.hessian_solves + solution.hessian_solves,
            sweeps=done.sweeps + solution.sweeps,
            seconds=done.seconds + solution.seconds,
        )
        return solution


def _through(done: Coarser, line: Iteration) -> Iteration:
    """A line of the present mesh, its work counted through all meshes."""
    return replace(
        line,
        iteration=line.iteration + len(done.history),
        linear_iterations=line.linear_iterations + done.linear_iterations,
        state_solves=line.state_solves + done.state_solves,
        adjoint_solves=line.adjoint_solves + done.adjoint_solves,
        hessian_solves=line.hessian_solves + done.hessian_solves,
        sweeps=line.sweeps + done.sweeps,
        seconds=line.seconds + done.seconds,
        mesh=done.mesh,
    )
