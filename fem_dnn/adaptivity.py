"""Adaptive meshes: solve, estimate, mark, refine, until the objective's error is small enough.

The estimate (`error_estimate`) has a part from the depth and one from the width. What dominates is
refined where its indicators are large, both where they are alike. Every mesh lies in the next,
so a solution is a function on the next mesh, from which the solver goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from fem_dnn.activations import Activation
from fem_dnn.adapted_case import write_adapted
from fem_dnn.assembly import Discretisation, Model, assemble
from fem_dnn.case import require_dense, require_learning_problem
from fem_dnn.collective import on_root
from fem_dnn.commands import Run, solve_model, write_run
from fem_dnn.control_transfer import transfer_control
from fem_dnn.depth import DepthLevels
from fem_dnn.depth_projection import depth_projection
from fem_dnn.enrichment import Lift, on_discretisation
from fem_dnn.error_estimate import MEMORY, ErrorEstimate, memory
from fem_dnn.errors import BadInput
from fem_dnn.mesh import DepthWidthMesh
from fem_dnn.refinement import bisect, mark, refine
from fem_dnn.request import CaseLike, Request, read_any
from fem_dnn.solvers import Tolerances
from fem_dnn.width import WidthSpace
from fem_dnn.width_projection import width_projection

Array = NDArray[np.float64]

BALANCE = 0.3
"""A direction is refined where its part is at least this times the other's."""

MAX_ROUNDS = 20
"""Meshes solved on at most."""


@dataclass(frozen=True, eq=False)
class AdaptiveRun:
    """A case solved on adapted meshes.

    Attributes:
        run: The run on the last mesh.
        meshes: One entry per mesh: nodes, layers, unknowns, objective, depth and width parts of
            the error estimate.
    """

    run: Run
    meshes: list[dict[str, Any]]


def solve_adaptively(
    case: CaseLike,
    tolerance: float,
    request: Request | None = None,
    *,
    activation: Activation | None = None,
) -> AdaptiveRun:
    """Solve a case on meshes refined until the estimated error is small (collective).

    Args:
        case: A case, its file, or its tables; its mesh is the first one.
        tolerance: On |depth part| + |width part| of the objective's estimated error, absolute.
        request: As for `commands.solve`.
        activation: A user's own activation instead of the case's.

    Returns:
        The last run, not converged where a limit was met before the tolerance.

    Raises:
        BadInput: The case or the tolerance is wrong; the same on all ranks.
    """
    request = request or Request()
    case = read_any(case, request)
    if not tolerance > 0:
        raise BadInput(None, "--adapt", f"{tolerance:g} is not positive", "a positive number")
    if request.checkpoint is not None or request.checkpoint_every is not None or request.resume:
        raise BadInput(None, "--adapt", "writes no checkpoints", "--checkpoint and --resume alone")
    require_learning_problem(case)
    # Every solution is carried to the next mesh, and estimated there, as a dense kernel.
    require_dense(case, "solve --adapt")
    base = model = assemble(case, request.comm, activation=activation)
    request.prepare_out()
    start: Array | None = None
    lift: Lift | None = None
    meshes: list[dict[str, Any]] = []
    reason: str | None
    while True:
        run = _solve(model, start, request)
        meshes.append(_entry(run))
        estimate, solution = run.estimate, run.solution
        if estimate is None or solution is None:
            reason = f"no estimate on mesh {len(meshes)}: {run.result['reason']}"
            break
        if estimate.depth is None or estimate.width is None:
            reason = "; ".join(estimate.notes)
            break
        error = abs(estimate.depth) + abs(estimate.width)
        request.say(
            f"mesh {len(meshes)}: estimated error {estimate.depth:.2e} in depth, "
            f"{estimate.width:.2e} in width"
        )
        if error <= tolerance:
            reason = None
            break
        reason = f"the estimated error is {error:.2e}, more than {tolerance:g}: "
        if len(meshes) == MAX_ROUNDS:
            reason += f"the limit of {MAX_ROUNDS} meshes was reached; start from a finer mesh"
            break
        if model.network.space.mesh_arrays.degree > 1:
            reason += "curved cells cannot be refined; make a finer mesh file"
            break
        finer, finer_lift = _refined(base, model, estimate)
        needed = memory(finer)
        if needed > MEMORY:
            reason += (
                f"the next mesh would take {needed / 1e9:.1f} GB on a rank, more than "
                f"{MEMORY / 1e9:g} GB; use a larger tolerance or more ranks"
            )
            break
        assert model.problem is not None and finer.problem is not None
        start = transfer_control(model.problem.controls, solution.control, finer.problem.controls)
        model, lift = finer, finer_lift
    result = run.result | {"adaptation": meshes}
    if reason is not None:
        result |= {"converged": False, "reason": reason}
    run = replace(run, result=result)
    write_run(run, request)
    if request.out is not None and run.solution is not None:
        write_adapted(base, model, lift, run.arrays, request)
    return AdaptiveRun(run, meshes)


def _solve(model: Model, start: Array | None, request: Request) -> Run:
    """Solve from a start, to a gradient norm relative to the case's own initial guess."""
    assert model.problem is not None
    solver = model.case.solver
    own = Tolerances(solver.rtol, solver.atol, solver.max_iterations)
    if start is None:
        return solve_model(model, None, own, request)
    initial = model.problem.linearise(model.initial).gradient_norm
    target = Tolerances(0.0, own.target(initial), own.max_iterations)
    run = solve_model(model, start, target, request)
    if run.solution is None:
        return run
    solution = replace(run.solution, initial_gradient_norm=initial)
    return replace(run, solution=solution, result=run.result | {"initial_gradient_norm": initial})


def _refined(base: Model, model: Model, estimate: ErrorEstimate) -> tuple[Model, Lift]:
    """The problem on a mesh refined where the estimate says, and the way there from the base."""
    assert estimate.depth is not None and estimate.width is not None
    assert estimate.depth_indicators is not None and estimate.width_indicators is not None
    space, levels, width = (
        model.network.space,
        model.network.levels,
        model.discretisation.mesh.width,
    )
    points, indicators = levels.points, estimate.width_indicators
    depth_part, width_part = abs(estimate.depth), abs(estimate.width)
    if depth_part >= BALANCE * width_part:
        points = bisect(points, mark(estimate.depth_indicators))
    if width_part >= BALANCE * depth_part:
        arrays = space.mesh_arrays
        width = on_root(model.comm, lambda: refine(arrays, indicators)).mesh(model.comm)
        space = WidthSpace(width, space.degree)
    discretisation = Discretisation(
        DepthWidthMesh(width, points), space, DepthLevels(levels.scheme, points)
    )
    network = base.network
    lift = Lift(
        csr_array(width_projection(network.space, space)),
        csr_array(depth_projection(network.levels, discretisation.levels)),
    )
    return on_discretisation(base, discretisation, lift), lift


def _entry(run: Run) -> dict[str, Any]:
    problem, levels = run.model.problem, run.model.network.levels
    assert problem is not None
    entry: dict[str, Any] = {
        "nodes": run.model.network.space.n_nodes,
        "layers": levels.layers,
        "unknowns": problem.controls.n_global,
    }
    if run.solution is not None:
        entry |= {"objective": run.solution.objective, "seconds": run.solution.seconds}
    if run.estimate is not None:
        entry |= {"depth": run.estimate.depth, "width": run.estimate.width}
    return entry
