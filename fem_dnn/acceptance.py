"""Which commands accept a case, and why the others do not: what `fem-dnn validate` says."""

from __future__ import annotations

from collections.abc import Callable

from fem_dnn.assembly import Model
from fem_dnn.case import require_given_controls, require_learning_problem
from fem_dnn.checking import trains
from fem_dnn.commands import ready_to_solve
from fem_dnn.comparison import require_comparable
from fem_dnn.errors import BadInput
from fem_dnn.path_following import require_path
from fem_dnn.searching import require_searchable
from fem_dnn.valuing import require_small_problem


def accepting_commands(model: Model) -> tuple[list[str], list[str]]:
    """The commands that accept a model's case, sorted, and a line on each that does not.

    `path` and `value` are looked at where the case has their sections. Nothing is computed: a
    wide case is looked at as quickly as a small one.
    """
    case = model.case
    needs: dict[str, Callable[[], object]] = {
        "forward": lambda: require_given_controls(case),
        "solve": lambda: ready_to_solve(model),
        "check": lambda: _require_checkable(model),
        "compare": lambda: require_comparable(model, ["newton"]),  # the least particular
        "transfer": lambda: require_learning_problem(case),
        "critical": lambda: require_searchable(case),
    }
    if "path" in case.model_fields_set:
        needs["path"] = lambda: require_path(case)
    if "value" in case.model_fields_set:
        needs["value"] = lambda: require_small_problem(model)
    accepting = ["predict"]
    refusing: dict[str, list[str]] = {}
    for command, require in needs.items():
        try:
            require()
            accepting.append(command)
        except BadInput as problem:
            refusing.setdefault(f"{problem.key} {problem.wrong}", []).append(command)
    lines = [f"not for {', '.join(commands)}: {why}" for why, commands in refusing.items()]
    return sorted(accepting), lines


def _require_checkable(model: Model) -> None:
    if trains(model.case):
        ready_to_solve(model)
