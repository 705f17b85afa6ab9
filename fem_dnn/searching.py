"""`fem-dnn critical`: find and classify the distinct critical points of a case."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

from fem_dnn.assembly import OVERFLOW, Model, assemble
from fem_dnn.case import (
    Case,
    require_dense,
    require_learning_problem,
    require_one_group,
    require_unbounded,
)
from fem_dnn.case.commands import Random
from fem_dnn.collective import on_root
from fem_dnn.critical_points import CriticalPoint, Findings, Settings, Start, find_critical_points
from fem_dnn.critical_points.copies import control_norms
from fem_dnn.critical_points.symmetry import candidate_symmetries
from fem_dnn.problem import LearningProblem
from fem_dnn.request import CaseLike, Request, read_any
from fem_dnn.result_folder import write_failure, write_files
from fem_dnn.results import provenance, solution_arrays, write_arrays
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers import Tolerances
from fem_dnn.threads import suitable_threads
from fem_dnn.work import Work

Result = dict[str, Any]

NOTHING = (
    "no critical point was found; use more random starts (critical.starts), another "
    "critical.scale, or a stronger regularization"
)

QUIET_SECONDS = 2.0
"""From when on every start is announced."""


def critical(case: CaseLike, request: Request | None = None) -> Result:
    """Search for distinct critical points of a case and classify them (collective).

    `solver.method`, `solver.nested` and `solver.escape` do not count: points are found by Newton's
    method with deflation (`fem_dnn.critical_points`) from `solver.initial` and from random starts.

    Args:
        case: A case, its file, or its tables.
        request: Output folder, PETSc options, console, communicator; the default is silent.

    Returns:
        The JSON result: `points` in the order found; objective, loss and so on of the lowest one.

    Raises:
        BadInput: The case is wrong, or `require_searchable` refuses it; the same on all ranks.
    """
    request = request or Request()
    case = read_any(case, request)
    require_searchable(case)
    model = assemble(case, request.comm)
    request.prepare_out()
    problem = model.problem
    assert problem is not None, "required above"
    before, started = Work().plus(problem.work), time.perf_counter()

    def tell(text: str, always: bool) -> None:
        if always or time.perf_counter() - started > QUIET_SECONDS:
            request.say(text)

    try:
        with suitable_threads(problem):
            initial_norm = problem.linearise(model.initial).gradient_norm
            if not np.isfinite(initial_norm):
                return write_failure(model, OVERFLOW, request)
            findings = find_critical_points(
                problem,
                model.initial,
                random_starts(model),
                settings_of(case, problem),
                request.options,
                symmetries=candidate_symmetries(problem),
                tell=tell,
            )
    except SlabFailure as failure:
        return write_failure(model, str(failure), request)
    points = described(model, findings)
    result = {
        "converged": bool(findings.points),
        "reason": reason_of(findings, case) + _kinks(points),
        **_of_lowest(findings),
        "initial_gradient_norm": initial_norm,
        "iterations": findings.iterations,
        "solves": findings.solves,
        "failures": findings.failures,
        **work_since(before, problem.work),
        "seconds": time.perf_counter() - started,
        "points": points,
        **provenance(model, request.options),
    }
    _write(model, findings, result, request)
    return result


def require_searchable(case: Case) -> None:
    """What `critical` needs.

    Raises:
        BadInput: There is nothing to train, there are bounds, or the case asks for groups of
            samples or for the Gram form.
    """
    require_learning_problem(case)
    require_unbounded(case)
    require_one_group(case, "critical")
    require_dense(case, "critical")


def settings_of(case: Case, problem: LearningProblem) -> Settings:
    """How a case says to search."""
    asked, solver = case.critical, case.solver
    # A random start's expected norm; where outputs alone are trained, that of outputs of size 1.
    typical = problem.controls.norm(problem.controls.scale)
    return Settings(
        asked.points,
        asked.distance,
        asked.scale * typical,
        Tolerances(solver.rtol, solver.atol, solver.max_iterations),
    )


def random_starts(model: Model) -> list[Start]:
    """The random starts that a case asks for: seeds in order from its own."""
    asked = model.case.critical

    def start(number: int) -> Start:
        guess = Random(seed=asked.seed + number, scale=asked.scale)
        return Start(f"random start {number + 1}", lambda: model.guess(guess))

    return [start(number) for number in range(asked.starts)]


def work_since(before: Work, now: Work) -> Result:
    """State, adjoint and Hessian solves as result files name them."""
    work = now.minus(before)
    return {
        "state_solves": int(np.ceil(work.states)),
        "adjoint_solves": int(np.ceil(work.adjoints)),
        "hessian_solves": work.hessians,
    }


def reason_of(findings: Findings, case: Case) -> str:
    """What was found, and why the search ended."""
    if not findings.points:
        return NOTHING
    kinds = Counter(point.inertia.kind for point in findings.points)
    count, parts = len(findings.points), [f"{kinds[kind]} {kind}" for kind in sorted(kinds)]
    text = f"{count} critical {'point' if count == 1 else 'points'}: {', '.join(parts)}"
    copies = sum(point.copy is not None for point in findings.points)
    if copies:
        text += f"; {copies} {'is a symmetric copy' if copies == 1 else 'are symmetric copies'}"
    if any(point.copy is not None and point.inertia.zero for point in findings.points):
        text += "; copies with zero eigenvalues seem to belong to continuous families"
    if findings.complete:
        text += f"; all starts are used, which proves no more than that {findings.solves} solves"
        return f"{text} found no others"
    return f"{text}; stopped there as critical.points = {case.critical.points} says"


def _kinks(points: list[Result]) -> str:
    """What to say of points with pre-activations exactly at a kink."""
    numbers = [str(point["number"]) for point in points if point.get("kinks")]
    if not numbers:
        return ""
    return (
        f"; at points {', '.join(numbers)} some pre-activations are exactly at the activation's "
        "kink, where the Hessian is that of the smooth pieces and proves nothing"
    )


def described(model: Model, findings: Findings) -> list[Result]:
    """The result's `points` (collective)."""
    return [
        _described(model, number, point, findings.points)
        for number, point in enumerate(findings.points, 1)
    ]


def _described(
    model: Model, number: int, point: CriticalPoint, points: list[CriticalPoint]
) -> Result:
    at, kind, copy = point.at, point.inertia, point.copy
    controls = at.problem.controls
    distances = {
        other: controls.norm(at.control - each.at.control)
        for other, each in enumerate(points, 1)
        if each is not point
    }
    nearest = min(distances, key=lambda other: distances[other], default=None)
    result = {
        "number": number,
        "kind": kind.kind,
        "objective": at.objective,
        "loss": at.loss,
        "regularization": at.regularization,
        "gradient_norm": at.gradient_norm,
        "negative_eigenvalues": kind.negative,
        "zero_eigenvalues": kind.zero,
        "lowest_eigenvalue": kind.lowest,
        "eigenvalue_bound": kind.residual,
        "eigenvalues": kind.eigenvalues.tolist(),
        "norms": control_norms(at),
        "nearest": nearest,
        "nearest_distance": None if nearest is None else distances[nearest],
        "copy_of": None if copy is None else copy.of,
        "copy_recognised_by": None if copy is None else copy.how,
        "found_from": point.found_from,
        "iterations": point.iterations,
    }
    accuracies = {
        "train_accuracy": model.train_accuracy(at),
        "test_accuracy": model.test_accuracy(at),
    }
    if not model.network.activation.smooth:
        kinks = np.array(np.count_nonzero(at.state.u == 0))
        result["kinks"] = int(controls.space.sum(kinks))
    return result | {name: value for name, value in accuracies.items() if value is not None}


def _of_lowest(findings: Findings) -> Result:
    """Objective and its parts at the lowest point."""
    if not findings.points:
        return {}
    at = lowest_of(findings).at
    return {
        "objective": at.objective,
        "loss": at.loss,
        "regularization": at.regularization,
        "gradient_norm": at.gradient_norm,
    }


def lowest_of(findings: Findings) -> CriticalPoint:
    """The point with the lowest objective."""
    return min(findings.points, key=lambda point: point.at.objective)


def _write(model: Model, findings: Findings, result: Result, request: Request) -> None:
    """solution.npz of the lowest point, points/N/solution.npz of all, critical.png (collective)."""
    if request.out is None:
        return
    out = request.out
    on_root(request.comm, lambda: _remove_older(out))
    if not findings.points:
        write_files(request, result, None, "")
        return
    arrays: list[Mapping[str, Any]] = []
    for number, point in enumerate(findings.points, 1):
        arrays.append(solution_arrays(model, point.at))
        _write_point(request.comm, out / "points" / str(number), arrays[-1])
    lowest = findings.points.index(lowest_of(findings))
    write_files(request, result, arrays[lowest], "solution.npz")

    def draw() -> None:
        from fem_dnn import pictures  # matplotlib is slow to import and not always needed

        pictures.save(pictures.critical_points(result["points"], arrays), out / "critical.png")

    on_root(request.comm, draw)


def _write_point(comm: MPI.Comm, folder: Path, arrays: Mapping[str, Any]) -> None:
    def write() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_arrays(folder / "solution.npz", arrays)

    on_root(comm, write)


def _remove_older(out: Path) -> None:
    """Remove an earlier run's points: there may have been more of them."""
    (out / "solution.npz").unlink(missing_ok=True)
    for file in (out / "points").glob("[0-9]*/solution.npz"):
        file.unlink()
        if not any(file.parent.iterdir()):
            file.parent.rmdir()


def any_point(result: Result) -> bool:
    """Whether a point was found: what the exit status of `fem-dnn critical` says."""
    return bool(result.get("points"))
