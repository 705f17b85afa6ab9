"""Which commands accept a case, and why the others do not: what `fem-dnn validate` says."""

from __future__ import annotations

from collections.abc import Callable

from fem_dnn.assembly import Model
from fem_dnn.case import (
    Case,
    require_given_controls,
    require_learning_problem,
    require_one_group,
    require_unbounded,
)
from fem_dnn.errors import BadInput
from fem_dnn.path_following import require_path
from fem_dnn.valuing import require_small_problem


def accepting_commands(model: Model) -> tuple[list[str], list[str]]:
    """The commands that accept a model's case, sorted, and a line on each that does not.

    `path` and `value` are looked at where the case has their sections.
    """
    case = model.case
    needs: dict[tuple[str, ...], Callable[[Case], None]] = {
        ("forward",): require_given_controls,
        ("solve", "compare", "transfer"): require_learning_problem,
        ("critical",): _require_searchable,
    }
    if "path" in case.model_fields_set:
        needs["path",] = require_path
    if "value" in case.model_fields_set:
        needs["value",] = lambda case: require_small_problem(model)
    accepting, refusing = ["check", "predict"], []
    for commands, require in needs.items():
        try:
            require(case)
            accepting += commands
        except BadInput as problem:
            refusing.append(f"not for {', '.join(commands)}: {problem.key} {problem.wrong}")
    return sorted(accepting), refusing


def _require_searchable(case: Case) -> None:
    require_learning_problem(case)
    require_unbounded(case)
    require_one_group(case, "critical")
