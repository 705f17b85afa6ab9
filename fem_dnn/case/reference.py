"""The reference of case files, made from the schema: ``python -m fem_dnn.case.reference``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fem_dnn.case.messages import tables
from fem_dnn.case.schema import Case
from fem_dnn.case.support import NOT_YET
from fem_dnn.errors import shown
from fem_dnn.expressions import FUNCTIONS

_HEADER = """\
# The case file

Made from the schema by `python -m fem_dnn.case.reference`; do not edit.

A case is a TOML file. File paths in it are relative to it. Every key but `mesh` and the data has a
default. Unknown keys, wrong types, wrong shapes and numbers that are not finite are refused.

"""


def reference() -> str:
    """The reference in Markdown: every key, its default, and what it means."""
    sections = (
        line
        for name, field in Case.model_fields.items()
        for line in _section(name, field.annotation)
    )
    functions = ", ".join(f"`{name}`" for name in FUNCTIONS)
    footer = [
        "## Expressions",
        "",
        "Numbers, `pi`, `+ - * / % **`, comparisons (1 where they hold, 0 elsewhere), `&`, `|`, "
        "`~` or `and`, `or`, `not` between comparisons, `x[0]`, `x[1]`, `x[2]` (on intervals also "
        "plain `x`), likewise `y`, `t`, and the functions",
        f"{functions}.",
        "All arithmetic is in double precision: `1/2` is 0.5. Nothing in a case file is executed.",
        "",
        "## Not supported yet",
        "",
        *(f"- `{key}` (for now: {allowed})" for key, _, allowed in NOT_YET),
        "- `bounds` with the command `critical`",
        "- the command `path`: its section waits for it",
    ]
    return _HEADER + "\n".join([*sections, *footer]) + "\n"


def _section(key: str, annotation: Any) -> Iterator[str]:
    """A table of keys per form of the section, those of inner tables after it."""
    forms = list(tables(annotation))
    for form in forms:
        title = f"[{key}]" if "." not in key else f"`{key}`"
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", form.__name__).lower()
        kind = f": {words}" if len(forms) > 1 else ""
        yield from (f"## {title}{kind}", "", inspect.getdoc(form) or "", "")
        yield from ("| key | default | meaning |", "|---|---|---|")
        yield from (_row(name, field) for name, field in form.model_fields.items())
        yield ""
        for name, field in form.model_fields.items():
            yield from _section(f"{key}.{name}", field.annotation)


def _row(name: str, field: FieldInfo) -> str:
    text = " ".join((field.description or "").split()).replace("|", "\\|")
    if get_origin(field.annotation) is Literal:
        text += " One of " + ", ".join(f"`{value}`" for value in get_args(field.annotation)) + "."
    return f"| `{name}` | {_default(field)} | {text} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, BaseModel):
        return ""
    return f"`{shown(value)}`"


if __name__ == "__main__":
    print(reference(), end="")
