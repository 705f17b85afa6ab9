"""Methods side by side: from one start, to one tolerance, by the work and time they take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fem_dnn.assembly import Model, assemble
from fem_dnn.case import require_dense, require_learning_problem
from fem_dnn.collective import on_root
from fem_dnn.errors import BadInput, shown
from fem_dnn.process_grid import group_count, solve_on_grid
from fem_dnn.progress import Progress
from fem_dnn.request import CaseLike, Request, read_any
from fem_dnn.result_folder import write_failure, write_files
from fem_dnn.results import provenance
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers import ALL_METHODS, METHODS, UNBOUNDED, Solution, Tolerances
from fem_dnn.threads import suitable_threads

Result = dict[str, Any]

ROUND_OFF = 1e-9
"""Objectives that differ by less than this, relative, are the same."""


def compare(
    case: CaseLike, request: Request | None = None, *, methods: Sequence[str] = tuple(METHODS)
) -> Result:
    """Solve the learning problem of a case by several methods (collective).

    Args:
        case: A case, its file, or its tables; `solver.method` and `solver.nested` do not count.
        request: Output folder, console, communicator; the default is silent.
        methods: Names in `ALL_METHODS`.

    Returns:
        The JSON result: `methods` is a list with the outcome of each, its `history` included.

    Raises:
        BadInput: The case is wrong, or there is no such method; the same on all ranks.
    """
    request = request or Request()
    require_methods(methods)
    case = read_any(case, request)
    model = assemble(case, request.comm)
    require_comparable(model, methods)
    problem = model.problem
    assert problem is not None, "required above"
    request.prepare_out()
    tolerances = Tolerances(case.solver.rtol, case.solver.atol, case.solver.max_iterations)
    outcomes: list[Result] = []
    for method in dict.fromkeys(methods):
        request.say(f"{method} ...")
        progress = Progress(request.console)
        try:
            with suitable_threads(problem):
                solution = solve_on_grid(
                    ALL_METHODS[method],
                    model,
                    model.initial,
                    tolerances,
                    escape=case.solver.escape,
                    report=progress,
                )
        except SlabFailure as failure:
            # Where the start has no state no method can start.
            progress.close()
            return write_failure(model, str(failure), request)
        progress.close()
        outcomes.append(_outcome(method, solution))
    weight = problem.regularization.least_weight or 0.0
    result = summarised(outcomes, weight) | provenance(model, {})
    write_files(request, result, None, "")
    if request.out is not None:
        _draw(request, outcomes, tolerances)
    return result


def require_methods(methods: Sequence[str]) -> None:
    """Check the names of methods.

    Raises:
        BadInput: There is no such method, or none is named.
    """
    for method in methods or ("",):
        if method not in ALL_METHODS:
            raise BadInput(
                None, "--methods", f"{shown(method)} is not a method", ", ".join(ALL_METHODS)
            )


def require_comparable(model: Model, methods: Sequence[str]) -> None:
    """What `compare` needs of a case with its arrays.

    Raises:
        BadInput: There is nothing to train, a method knows no bounds or no groups of samples where
            there are some, or the case asks for the Gram form, which newton alone knows.
    """
    require_learning_problem(model.case)
    require_dense(model.case, "compare")
    assert model.problem is not None, "required above"
    if model.problem.controls.bounded:
        require_bounded(methods)
    for method in methods:
        group_count(model, method)


def require_bounded(methods: Sequence[str]) -> None:
    """Check that methods know bounds.

    Raises:
        BadInput: One does not.
    """
    for method in methods:
        if method in UNBOUNDED:
            known = ", ".join(name for name in ALL_METHODS if name not in UNBOUNDED)
            raise BadInput(None, "--methods", f"{method} knows no bounds, the case has some", known)


def _outcome(method: str, solution: Solution) -> Result:
    outcome = {
        "method": method,
        "converged": solution.converged,
        "reason": solution.reason,
        "objective": solution.objective,
        "gradient_norm": solution.gradient_norm,
        "initial_gradient_norm": solution.initial_gradient_norm,
        "lowest_eigenvalue": solution.lowest_eigenvalue,
        "iterations": solution.iterations,
        "state_solves": solution.state_solves,
        "adjoint_solves": solution.adjoint_solves,
        "hessian_solves": solution.hessian_solves,
        # Those of the descent; what examining the curvature at the end takes is no merit of any.
        "sweeps": solution.history[-1].sweeps,
        "seconds": solution.history[-1].seconds,
        "history": [line.as_dict() for line in solution.history],
    }
    return {key: value for key, value in outcome.items() if value is not None}


def summarised(outcomes: list[Result], weight: float) -> Result:
    """What several methods' outcomes say together.

    Near a minimiser with Hessian >= mu I the objective is at most |g|^2/(2 mu) above the minimum,
    so two methods that converged to the same minimiser cannot differ by more.

    Args:
        outcomes: One per method; `gap`, the objective above the best one, is added.
        weight: mu where the lowest eigenvalue of the Hessian is not known: the least Tikhonov
            weight.
    """
    best = min(outcomes, key=lambda outcome: outcome["objective"])
    apart, stopped = [], []
    for outcome in outcomes:
        outcome["gap"] = outcome["objective"] - best["objective"]
        mu = max(outcome.get("lowest_eigenvalue", weight), 0.0)
        allowed = ROUND_OFF * abs(best["objective"])
        allowed += outcome["gradient_norm"] ** 2 / (2 * mu) if mu > 0 else 0.0
        if not outcome["converged"]:
            stopped.append(outcome["method"])
        elif outcome["gap"] > allowed:
            apart.append(outcome["method"])
    reasons = []
    if stopped:
        reasons.append(f"not converged: {', '.join(stopped)}; their own reasons say what to try")
    if apart:
        reasons.append(f"at another critical point, not as low as the best: {', '.join(apart)}")
    return {
        "converged": not stopped,
        "reason": "; ".join(reasons) or "all methods end at the same objective",
        "agree": not apart,
        "best_objective": best["objective"],
        "best_method": best["method"],
        "methods": outcomes,
    }


def _draw(request: Request, outcomes: list[Result], tolerances: Tolerances) -> None:
    out = request.out
    assert out is not None

    def draw() -> None:
        from fem_dnn import pictures  # matplotlib is slow to import and not always needed

        histories = {outcome["method"]: outcome["history"] for outcome in outcomes}
        target = tolerances.target(outcomes[0]["initial_gradient_norm"])
        figure = pictures.compared_methods(histories, target=target)
        pictures.save(figure, out / "comparison.png")

    on_root(request.comm, draw)
