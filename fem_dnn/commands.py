"""The commands' work, without the command line: case in, JSON result out, files in a folder.

Every function is collective: all ranks call it and all get the result; rank 0 writes files.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fem_dnn.activations import Activation
from fem_dnn.assembly import (
    OVERFLOW,
    Discretisation,
    Model,
    WidthMesh,
    assemble,
    local_samples,
)
from fem_dnn.case import require_given_controls, require_learning_problem
from fem_dnn.checkpoint import Checkpoints
from fem_dnn.error_estimate import ErrorEstimate, estimate_error
from fem_dnn.gram.choice import choose_representation, made_dense, representation
from fem_dnn.memory import within_memory
from fem_dnn.nested import solve_nested
from fem_dnn.portions import PortionedLinearisation
from fem_dnn.process_grid import group_count, solve_on_grid
from fem_dnn.progress import Progress
from fem_dnn.request import CaseLike, Request, read_any
from fem_dnn.result_folder import (
    draw,
    draw_confusion,
    failure_result,
    write_failure,
    write_files,
    write_paraview,
)
from fem_dnn.results import provenance, solution_arrays, solution_result, state_arrays
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers import METHODS, Solution, Tolerances
from fem_dnn.solvers.history import Keep, Report, Waypoint
from fem_dnn.state import solve_state
from fem_dnn.threads import suitable_threads

Array = NDArray[np.float64]
Result = dict[str, Any]

WORTH_SAYING = 2.0
"""Seconds of a solve from which on the error estimate, a part of that, is announced."""


def forward(case: CaseLike, request: Request | None = None) -> Result:
    """Solve the forward problem for given controls (collective)."""
    request = request or Request()
    case = read_any(case, request)
    require_given_controls(case)
    model = assemble(case, request.comm)
    request.prepare_out()
    started = time.perf_counter()
    result: Result
    try:
        if model.problem is None:
            inputs = local_samples(model.network.space, model.ingredients.train.inputs)
            state = solve_state(model.network, model.given, inputs)
            if model.overflows(state.ends[-1]):
                return write_failure(model, OVERFLOW, request)
            result = {"converged": True, "reason": "the state equation is solved"}
            arrays = state_arrays(model, state, model.given) if request.out else {}
        else:
            at = model.problem.linearise(model.initial)
            if model.overflows(at.state.ends[-1]):
                return write_failure(model, OVERFLOW, request)
            result = {
                "converged": True,
                "reason": "the state equation is solved",
                "objective": at.objective,
                "loss": at.loss,
                "regularization": at.regularization,
                "train_accuracy": model.train_accuracy(at),
                "test_accuracy": model.test_accuracy(at),
            }
            state = at.state
            arrays = solution_arrays(model, at) if request.out else {}
    except SlabFailure as failure:
        return write_failure(model, str(failure), request)
    result |= {"state_solves": 1, "seconds": time.perf_counter() - started}
    result = {name: value for name, value in result.items() if value is not None}
    result |= provenance(model, request.options)
    write_files(request, result, arrays, "solution.npz")
    if request.out is not None:
        draw(model, request, arrays, [])
        write_paraview(model, request, state.ends)
    return result


@dataclass(frozen=True, eq=False)
class Run:
    """A case that has been solved.

    Attributes:
        model: The case made ready.
        solution: The solver's outcome; None where the state equation could not be solved.
        result: The JSON result.
        estimate: Of the objective's discretisation error; None where the solve did not converge.
    """

    model: Model
    solution: Solution | None
    result: Result
    estimate: ErrorEstimate | None = None

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of `solution.npz`, in file order (collective).

        Raises:
            ValueError: There is no solution.
        """
        if self.solution is None:
            raise ValueError(f"there is no solution: {self.result['reason']}")
        indicators = {} if self.estimate is None else self.estimate.arrays()
        return solution_arrays(self.model, self.solution.at) | indicators


def solve(
    case: CaseLike,
    request: Request | None = None,
    *,
    activation: Activation | None = None,
    width: WidthMesh | None = None,
) -> Run:
    """Solve the learning problem of a case (collective).

    Args:
        case: A case, its file, or its tables.
        request: Output folder, PETSc options, console, communicator; the default is silent.
        activation: A user's own activation instead of the case's.
        width: A width mesh made in Python (dolfinx's own, or `mesh.MeshArrays`) instead of the
            case's.

    Raises:
        BadInput: The case is wrong; the same on all ranks.
    """
    request = request or Request()
    case = read_any(case, request)
    require_learning_problem(case)
    model = ready_to_solve(assemble(case, request.comm, activation=activation, width=width))
    request.prepare_out()
    tolerances = Tolerances(case.solver.rtol, case.solver.atol, case.solver.max_iterations)
    checkpoints = Checkpoints.asked_for(request, model)
    run = solve_model(model, None, tolerances, request, checkpoints)
    write_run(run, request)
    if checkpoints is not None and run.solution is not None:
        checkpoints.end(run.solution)
    return run


def ready_to_solve(model: Model) -> Model:
    """A model in the form that its case asks for (collective).

    Raises:
        BadInput: It cannot be solved as asked; refused before anything is computed or written.
    """
    require_learning_problem(model.case)
    model = choose_representation(model)
    group_count(model, model.case.solver.method)
    within_memory(model)
    return model


def solve_model(
    model: Model,
    start: Array | None,
    tolerances: Tolerances,
    request: Request,
    checkpoints: Checkpoints | None = None,
) -> Run:
    """Solve a model's learning problem by the case's method and estimate the error (collective).

    Args:
        model: The model.
        start: Local control vector; None: the case's guess, by nested meshes if it says so.
        tolerances: When to stop.
        request: Who watches, and with which PETSc options.
        checkpoints: Where a solve from the case's guess leaves them, and may go on from.
    """
    assert model.problem is not None
    case = model.case
    groups = group_count(model, case.solver.method)
    _announce(model, request, groups)
    progress = Progress(request.console)

    def solve_on(
        model: Model,
        guess: Array,
        tolerances: Tolerances,
        *,
        report: Report = progress,
        keep: Keep | None = None,
        resume: Waypoint | None = None,
    ) -> Solution:
        return solve_on_grid(
            METHODS[case.solver.method],
            model,
            guess,
            tolerances,
            escape=case.solver.escape,
            report=report,
            options=request.options,
            keep=keep,
            resume=resume,
        )

    keep: Keep | None = None
    resume: Waypoint | None = None
    try:
        with suitable_threads(model.problem):
            if checkpoints is not None:
                keep = checkpoints.keep
                if request.resume:
                    resume = checkpoints.resume()
                else:
                    checkpoints.pass_over()
            if start is not None:
                solution = solve_on(model, start, tolerances)
            elif case.solver.nested:
                solution = solve_nested(
                    model, solve_on, tolerances, progress, request.say, keep=keep, resume=resume
                )
            else:
                solution = solve_on(model, model.initial, tolerances, keep=keep, resume=resume)
            estimate = None
            if solution.converged:
                progress.close()
                dense = made_dense(model, solution.at)
                if isinstance(solution.at, PortionedLinearisation):
                    request.say(
                        "the discretisation error is not estimated: it takes the states of all "
                        "samples, for which solver.memory_gb leaves no room"
                    )
                elif dense is None:
                    request.say(
                        "the discretisation error is not estimated: the kernel is too large to be "
                        "made dense"
                    )
                else:
                    if solution.seconds > WORTH_SAYING:
                        request.say("estimating the discretisation error of the objective")
                    estimate = estimate_error(*dense, sweeps=solution.sweeps)
    except SlabFailure as failure:
        return Run(model, None, failure_result(model, str(failure), request))
    finally:
        progress.close()
    result = solution_result(model, solution, request.options)
    result["representation"] = representation(model)
    result["sample_groups"] = groups
    if resume is not None:
        result["resumed_at"] = resume.iteration
    if estimate is not None:
        result["error_estimate"] = estimate.as_dict()
    return Run(model, solution, result, estimate)


def write_run(run: Run, request: Request) -> None:
    """Write what `--out` asks for (collective)."""
    if request.out is None:
        return
    model, solution, result = run.model, run.solution, run.result
    if solution is None:
        write_failure(model, result["reason"], request)
        return
    arrays = run.arrays
    write_files(request, result, arrays, "solution.npz")
    draw(model, request, arrays, result["history"], result["initial_gradient_norm"])
    draw_confusion(model, request, solution.at)
    write_paraview(model, request, solution.at.state.ends)


def nodes(case: CaseLike, request: Request | None = None) -> Result:
    """The width nodes and the control levels, for making arrays (collective)."""
    request = request or Request()
    case = read_any(case, request)
    discretisation = Discretisation.of(case, request.comm)
    request.prepare_out()
    space, levels = discretisation.space, discretisation.levels
    arrays = {
        "x": space.nodes,
        "node_weights": space.node_weights,
        "t": levels.points,
        "control_t": levels.t,
        "control_weights": levels.weights,
    }
    write_files(request, None, arrays, "nodes.npz")
    return {name: values.tolist() for name, values in arrays.items()}


def _announce(model: Model, request: Request, groups: int) -> None:
    problem = model.problem
    assert problem is not None
    space, levels = model.network.space, model.network.levels
    test = model.ingredients.test
    held = f" (and {len(test.inputs)} for testing)" if test is not None else ""
    request.say(
        f"{problem.inputs.shape[1]} samples{held}, {space.n_nodes} width nodes, {levels.layers} "
        f"layers ({levels.scheme.name}), {problem.controls.n_global} unknown controls"
        f"{' in Gram form' if representation(model) == 'gram' else ''}, "
        f"{request.comm.size} {'rank' if request.comm.size == 1 else 'ranks'}"
        f"{f' in {groups} groups, which share the samples' if groups > 1 else ''}"
    )
