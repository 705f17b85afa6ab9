"""Reading case files: TOML, overrides from the command line, and the same on every MPI rank."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fem_dnn.case.schema import Case
from fem_dnn.collective import Communicator, on_root
from fem_dnn.errors import BadInput, shown

_KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


def read_case(path: str | Path, overrides: Sequence[str] = ()) -> Case:
    """Read and check a case file.

    Args:
        path: TOML file.
        overrides: "section.key=value" each, the value in TOML's notation or else plain text;
            later ones win.

    Raises:
        BadInput: The file cannot be read, or the case is wrong.
    """
    tables = _load(path)
    file, folder = str(path), Path(path).parent
    if not overrides:
        return Case.parse(tables, file, folder)
    changed = copy.deepcopy(tables)
    keys = [_override(changed, text) for text in overrides]
    try:
        return Case.parse(changed, file, folder)
    except BadInput as problem:
        at_fault = any(_related(problem.key or "", key) for key in keys) or _is_case(tables)
        raise BadInput(
            "--set" if at_fault else file, problem.key, problem.wrong, problem.allowed
        ) from None


def read_case_collectively(
    comm: Communicator, path: str | Path, overrides: Sequence[str] = ()
) -> Case:
    """`read_case` on rank 0 for all ranks: all get the case, or all raise the same error."""
    return on_root(comm, lambda: read_case(path, overrides))


def _load(path: str | Path) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as problem:
        wrong = f"cannot be read ({problem.strerror})"
        raise BadInput(str(path), None, wrong, "a case file in TOML") from None
    except UnicodeDecodeError:
        raise BadInput(str(path), None, "is not text in UTF-8", "a case file in TOML") from None
    except tomllib.TOMLDecodeError as problem:
        raise BadInput(str(path), None, f"is not TOML: {problem}") from None
    except RecursionError:
        raise BadInput(str(path), None, "is nested too deeply", "a case file in TOML") from None


def _is_case(tables: dict[str, Any]) -> bool:
    """Whether the file alone is right, so that whatever is wrong comes from the overrides."""
    try:
        Case.parse(tables)
    except BadInput:
        return False
    return True


def _override(tables: dict[str, Any], text: str) -> str:
    """Write one override into the tables; its key."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not _KEY.fullmatch(key):
        raise BadInput("--set", None, f"{shown(text)} is not an override", "section.key=value")
    *sections, last = key.split(".")
    table = tables
    for number, section in enumerate(sections):
        inner = table.setdefault(section, {})
        if not isinstance(inner, dict):
            parent = ".".join(sections[: number + 1])
            raise BadInput("--set", key, f"{parent} is not a table", f"{parent}=value")
        table = inner
    table[last] = _toml_value(value)
    return key


def _toml_value(text: str) -> Any:
    """A value in TOML's notation; anything else is plain text."""
    try:
        tables = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text.strip()
    return tables["value"] if len(tables) == 1 else text.strip()


def _related(key: str, overridden: str) -> bool:
    """Whether an error at one key may come from the override of another: equal, above or below."""
    parts, others = re.split(r"[.\[]", key), overridden.split(".")
    shared = min(len(parts), len(others))
    return parts[:shared] == others[:shared]
