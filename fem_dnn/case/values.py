"""The kinds of value a case file holds: numbers with limits, expressions, array references."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
)
from pydantic_core import PydanticCustomError

from fem_dnn.errors import shown


class Section(BaseModel):
    """A table of the case file: its keys only, their types only, finite numbers only."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


def bad(wrong: str, allowed: str, key: str | None = None) -> PydanticCustomError:
    """A complaint for validators to raise; `key` names a key below the one validated."""
    return PydanticCustomError(
        "bad_input", "{wrong}", {"wrong": wrong, "allowed": allowed, "key": key}
    )


def form_tag(form: type[BaseModel]) -> str:
    """Tag of one form of a table that has several (interval or rectangle, ...).

    The brackets tell tags from keys where pydantic lists both in the place of an error.
    """
    return f"<{form.__name__}>"


def require_table(value: Any, allowed: str) -> dict[str, Any] | BaseModel:
    """The value, if it is a table."""
    if isinstance(value, dict | BaseModel):
        return value
    raise bad(f"{shown(value)} is not a table", allowed)


Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
CountOrZero = Annotated[int, Field(ge=0, le=10_000_000)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Pair = Annotated[tuple[float, float], Field(strict=False)]
PositivePair = Annotated[tuple[Positive, Positive], Field(strict=False)]
CountPair = Annotated[tuple[Count, Count], Field(strict=False)]
Numbers = Annotated[tuple[float, ...], Field(strict=False)]

REFERENCE = '"file.npz:name"'
_REFERENCE = re.compile(r"(?P<path>.+?\.np[yz])(?::(?P<name>.+))?", re.DOTALL)


def split_reference(text: str) -> tuple[str, str | None] | None:
    """File and name of "file.npz:name" (or "file.npy"); None for any other text."""
    match = _REFERENCE.fullmatch(text.strip())
    return (match["path"], match["name"]) if match else None


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; truth values are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _as_text(value: Any, allowed: str) -> str:
    """An expression or reference; a number is the expression of that constant."""
    if is_number(value):
        return repr(float(value))
    if isinstance(value, str) and value.strip():
        return value
    raise bad(f"{shown(value)} is not an expression", allowed)


def _control(value: Any) -> bool | str:
    allowed = f"true, false, an expression, or {REFERENCE}"
    return value if isinstance(value, bool) else _as_text(value, allowed)


def _field(value: Any) -> str:
    return _as_text(value, f"an expression, or {REFERENCE}")


def _list_or_reference(value: Any, allowed: str, *words: str) -> str | list[Any]:
    """A reference or one of the words as it is, or a list that is not empty."""
    if isinstance(value, str):
        if value in words or split_reference(value):
            return value
        raise bad(f"{shown(value)} is not {' or '.join([*map(shown, words), REFERENCE])}", allowed)
    if isinstance(value, list | tuple) and value:
        return list(value)
    raise bad(f"{shown(value)} is not a list with something in it", allowed)


def _functions(*words: str) -> Callable[[Any], str | tuple[str, ...]]:
    names = [*map(shown, words), REFERENCE]
    allowed = f"a list of expressions, or {' or '.join(names)}"

    def functions(value: Any) -> str | tuple[str, ...]:
        entries = _list_or_reference(value, allowed, *words)
        if isinstance(entries, str):
            return entries
        return tuple(_as_text(entry, allowed) for entry in entries)

    return functions


def _targets(value: Any) -> str | tuple[Any, ...]:
    allowed = f"{REFERENCE}, a list of expressions, of numbers, or of rows of numbers"
    entries = _list_or_reference(value, allowed)
    if isinstance(entries, str):
        return entries
    if all(is_number(entry) for entry in entries):
        return tuple(map(float, entries))
    if all(isinstance(entry, list | tuple) for entry in entries):
        rows = tuple(tuple(map(float, row)) for row in entries if row and all(map(is_number, row)))
        if len(rows) == len(entries) and len(set(map(len, rows))) == 1:
            return rows
        raise bad(f"{shown(value)} is not a table of finite numbers", allowed)
    return tuple(_as_text(entry, allowed) for entry in entries)


def _weights(value: Any) -> str | tuple[float, ...]:
    allowed = f"{REFERENCE}, or a list of positive numbers"
    entries = _list_or_reference(value, allowed)
    if isinstance(entries, str):
        return entries
    for entry in entries:
        if not is_number(entry) or entry <= 0:
            raise bad(f"{shown(entry)} is not a positive number", allowed)
    return tuple(map(float, entries))


def _bounds(value: Any) -> tuple[float, float]:
    allowed = "[low, high] with low < high; -inf and inf leave a side free"
    infinite = {"-inf": -math.inf, "inf": math.inf, -math.inf: -math.inf, math.inf: math.inf}
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise bad(f"{shown(value)} is not a pair of numbers", allowed)
    if not all(is_number(v) or (isinstance(v, float | str) and v in infinite) for v in value):
        raise bad(f"{shown(value)} is not a pair of numbers", allowed)
    low, high = (float(infinite.get(v, v)) for v in value)
    if not low < high:
        raise bad(f"{shown(value)} is not increasing", allowed)
    return low, high


def _strict_json(bounds: tuple[float, float]) -> list[float | str]:
    return [v if math.isfinite(v) else str(v) for v in bounds]


def _groups(value: Any) -> int | str:
    if value == "auto" or (is_number(value) and isinstance(value, int) and value >= 1):
        chosen: int | str = value
        return chosen
    raise bad(f"{shown(value)} is not a number of groups", '"auto", or 1, 2, 3, ...')


# pydantic's own serialisers would look for the annotated types; these values are JSON's already.
_AS_IT_IS = PlainSerializer(lambda value: value, return_type=Any)

Control = Annotated[bool | str, PlainValidator(_control), _AS_IT_IS]
"""A control that is trained (true), absent (false), or given (expression or reference)."""
FieldText = Annotated[str, PlainValidator(_field), _AS_IT_IS]
"""An expression or an array reference."""
Functions = Annotated[str | tuple[str, ...], PlainValidator(_functions()), _AS_IT_IS]
"""An array reference, or expressions, one per sample."""
OutputFunctions = Annotated[str | tuple[str, ...], PlainValidator(_functions("default")), _AS_IT_IS]
""""default", an array reference, or expressions, one per output."""
Targets = Annotated[
    str | tuple[str, ...] | tuple[float, ...] | tuple[tuple[float, ...], ...],
    PlainValidator(_targets),
    _AS_IT_IS,
]
"""An array reference, expressions, numbers, or rows of numbers, one per sample."""
SampleWeights = Annotated[str | tuple[float, ...], PlainValidator(_weights), _AS_IT_IS]
"""An array reference, or positive numbers, one per sample."""
Groups = Annotated[int | str, PlainValidator(_groups), _AS_IT_IS]
""""auto" or a number of groups, at least 1."""
BoxBounds = Annotated[
    tuple[float, float],
    PlainValidator(_bounds),
    PlainSerializer(_strict_json, return_type=list, when_used="json"),
]
"""low < high, either possibly infinite (JSON has no infinity: it becomes the text "inf")."""
