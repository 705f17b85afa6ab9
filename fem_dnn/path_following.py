"""`fem-dnn path`: follow the critical points of a case along one of its numbers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fem_dnn.assembly import Model
from fem_dnn.case import Case, require_dense, require_learning_problem, require_one_group
from fem_dnn.collective import on_root
from fem_dnn.continuation.bordered import DEFAULTS, BorderedSolver
from fem_dnn.continuation.branch import Branch, Point
from fem_dnn.continuation.branches import Explorer
from fem_dnn.continuation.equations import Equations, Place, Scale, StepFailure
from fem_dnn.continuation.parameter import Parameter, read_parameter, require_influence
from fem_dnn.continuation.predictor_corrector import Station, Stepper
from fem_dnn.progress import BranchProgress, Progress
from fem_dnn.request import CaseLike, Request, read_any
from fem_dnn.result_folder import write_files
from fem_dnn.results import provenance
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers import Tolerances, solve_newton
from fem_dnn.solvers.petsc import PREFIX, inserted_options
from fem_dnn.threads import suitable_threads

Array = NDArray[np.float64]

SHARPER = 1e-2
"""Points of a branch are this much more accurate than `solver.rtol`: events are located on them."""

KEPT_BYTES = 100e6
"""Controls that `branches.npz` holds of all points together."""


@dataclass(frozen=True, eq=False)
class Path:
    """Branches of critical points.

    Attributes:
        model: The case at one end of the path.
        branches: The branches, that of the initial guess first; empty where that was not found.
        result: The JSON result.
    """

    model: Model
    branches: Sequence[Branch]
    result: dict[str, Any]


def path(case: CaseLike, request: Request | None = None) -> Path:
    """Follow the critical points of a case along `path.parameter` (collective).

    The first is where Newton's method, without escape, leads from the case's initial guess at
    `path.start`; the result has converged if it was found, and if every branch was followed to an
    end of the parameter's range, to a point that is known, or to `path.max_points`.

    Raises:
        BadInput: The case is wrong; the same on all ranks.
    """
    request = request or Request()
    case = read_any(case, request)
    require_path(case)
    model, parameter = read_parameter(case, request.comm)
    request.prepare_out()
    started = time.perf_counter()
    search = _Search(case, model, parameter, request)
    with suitable_threads(search.problem):
        branches = search.run()
    result: dict[str, Any] = {
        "converged": search.converged,
        "reason": search.reason,
        "parameter": case.path.parameter,
        "logarithmic": search.scale.logarithmic,
        "branches": [branch.as_dict() for branch in branches],
    }
    _add_amplitudes(model, branches, result["branches"])
    work = search.problem.work
    result |= {
        "linear_iterations": search.linear_iterations,
        "state_solves": round(work.states),
        "hessian_solves": work.hessians,
        "seconds": time.perf_counter() - started,
    }
    found = Path(model, branches, result | provenance(model, request.options))
    _write(found, request)
    return found


def require_path(case: Case) -> None:
    """What `path` needs.

    Raises:
        BadInput: There is nothing to train, there are bounds, the parameter moves nothing, or the
            case asks for groups of samples or for the Gram form.
    """
    require_learning_problem(case)
    require_influence(case)
    if case.bounds != type(case.bounds)():
        raise case.error("bounds", "hold controls that path cannot hold", "none, for path")
    require_one_group(case, "path")
    require_dense(case, "path")


class _Search:
    """The search for branches, from the first point on.

    Args:
        case: The case.
        model: It made ready at one end.
        parameter: Its problems along the path.
        request: Who watches.
    """

    def __init__(self, case: Case, model: Model, parameter: Parameter, request: Request) -> None:
        self.case, self.model, self.parameter, self.request = case, model, parameter, request
        self.scale = Scale(case.path.start, case.path.stop)
        self.problem = parameter.problem(case.path.start)
        self.converged, self.reason, self.linear_iterations = False, "", 0

    def run(self) -> Sequence[Branch]:
        """Find the first point and follow everything from there (collective)."""
        case, say = self.case, self.request.say
        controls = self.problem.controls
        say(f"{controls.n_global} unknown controls; {self._named(case.path.start)}: first point")
        control = self._first_control()
        if control is None:
            return []
        at = self.problem.linearise(control)
        # The least of two sizes of a gradient, one of them 0 perhaps: then atol rules.
        initial = self.problem.linearise(self.model.initial).gradient_norm
        size = min(initial, controls.norm(self.problem.regularization.action(control)))
        target = max(case.solver.atol, SHARPER * case.solver.rtol * size)
        equations = Equations(self.parameter, self.scale, target)
        with inserted_options(PREFIX, DEFAULTS, self.request.options) as options:
            solver = BorderedSolver(controls)
            try:
                options.require_read()
                stepper = Stepper(equations, solver)
                fixed = Place(np.zeros_like(at.control), 1.0)
                try:
                    first = stepper.station(Place(at.control, 0.0), fixed, None)
                except StepFailure as failure:
                    named = self._named(case.path.start)
                    self.reason = f"no branch starts at {named}: {failure}; change path.start"
                    return []
                return self._explore(stepper, first)
            finally:
                self.linear_iterations = solver.iterations
                solver.destroy()

    def _first_control(self) -> Array | None:
        """Where Newton's method leads from the initial guess; None: nowhere."""
        solver = self.case.solver
        progress = Progress(self.request.console)
        tolerances = Tolerances(solver.rtol, solver.atol, solver.max_iterations)
        try:
            solution = solve_newton(
                self.problem, self.model.initial, tolerances, escape=False, report=progress
            )
        except SlabFailure as failure:
            self.reason = f"no first point: {failure}"
            return None
        finally:
            progress.close()
        if not solution.converged:
            self.reason = f"no first point: {solution.reason}"
            return None
        return solution.control

    def _explore(self, stepper: Stepper, first: Station) -> Sequence[Branch]:
        path = self.case.path
        progress = BranchProgress(self.request.console, path.parameter)
        explorer = Explorer(stepper, path.max_points, path.branch_switching, progress)
        explorer.explore(first)
        progress.close()
        branches = explorer.branches
        lost = [f"branch {n} was {b.end}" for n, b in enumerate(branches) if not b.complete]
        self.converged = not lost
        folds, points = (
            sum(event.kind == kind for branch in branches for event in branch.events)
            for kind in ("fold", "branch point")
        )
        counts = (
            (len(branches), "branch", "es"),
            (folds, "fold", "s"),
            (points, "branch point", "s"),
        )
        self.reason = ", ".join(f"{n} {word}{'' if n == 1 else more}" for n, word, more in counts)
        if explorer.points >= path.max_points:
            self.reason += f"; path.max_points = {path.max_points} was reached"
        self.reason = "; ".join([self.reason, *lost])
        return branches

    def _named(self, value: float) -> str:
        return f"{self.case.path.parameter} = {value:g}"


def _add_amplitudes(
    model: Model, branches: Sequence[Branch], told: Sequence[dict[str, Any]]
) -> None:
    """Add <c, v> of every point and event, v the null vector of the first branch point.

    It keeps apart what symmetries map onto each other (collective).
    """
    assert model.problem is not None
    controls = model.problem.controls
    events = [event for branch in branches for event in branch.events]
    vectors = [e.null_vectors[0] for e in events if e.kind == "branch point" and e.null_vectors]
    if not vectors:
        return

    def amplitude(point: Point) -> float:
        return controls.dot(point.place.control, vectors[0])

    for branch, found in zip(branches, told, strict=True):
        found["amplitude"] = [amplitude(point) for point in branch.points]
        for event, one in zip(branch.events, found["events"], strict=True):
            one["amplitude"] = amplitude(event.point)


def branch_arrays(found: Path) -> dict[str, Any]:
    """The arrays of `branches.npz`: curves and controls, in file order (collective).

    Controls are those of as many points, spread evenly, as fit into KEPT_BYTES; `_points` says
    which. Where they depend on the parameter, levels and nodes are those at one end of the path.
    """
    model = found.model
    assert model.problem is not None
    controls, levels, space = model.problem.controls, model.network.levels, model.network.space
    total = sum(len(branch.points) for branch in found.branches)
    stride = max(1, int(np.ceil(8 * controls.n_global * total / KEPT_BYTES)))
    arrays: dict[str, Any] = {
        "x": space.nodes,
        "node_weights": space.node_weights,
        "control_t": levels.t,
        "control_weights": levels.weights,
    }
    for number, branch in enumerate(found.branches):
        name = f"branch{number}"
        for column, values in found.result["branches"][number].items():
            if isinstance(values, list) and column != "events":
                arrays[f"{name}_{column}"] = np.array(values)
        kept = sorted({*range(0, len(branch.points), stride), len(branch.points) - 1})
        arrays[f"{name}_points"] = np.array(kept)
        values = [controls.values(branch.points[n].place.control) for n in kept]
        for part in ("kernel", "bias", "outputs", "offsets"):
            if getattr(values[0], part) is not None:
                arrays[f"{name}_{part}"] = np.stack([getattr(value, part) for value in values])
    return arrays


def _write(found: Path, request: Request) -> None:
    if request.out is None:
        return
    out, result = request.out, found.result
    arrays: Mapping[str, Any] | None = branch_arrays(found) if found.branches else None
    write_files(request, result, arrays, "branches.npz")
    if not found.branches:
        return

    def draw() -> None:
        from fem_dnn import pictures

        pictures.save(pictures.bifurcation_diagram(result), out / "bifurcation.png")

    on_root(request.comm, draw)
