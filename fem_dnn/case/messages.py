"""From pydantic's errors to the one line that a person reads."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from fem_dnn.case.values import form_tag
from fem_dnn.errors import BadInput, shown

Place = tuple[int | str, ...]

_TYPES = {
    "float_type": ("is not a number", "a finite number"),
    "finite_number": ("is not finite", "a finite number"),
    "int_type": ("is not an integer", "an integer"),
    "bool_type": ("is not a truth value", "true, false"),
    "string_type": ("is not text", 'text, e.g. "name"'),
    "string_too_short": ("is empty", "text with something in it"),
    "tuple_type": ("is not a list", "a list of numbers"),
    "model_type": ("is not a table", "a table of keys and values"),
}
_LIMITS = {
    "greater_than": ("gt", ">"),
    "greater_than_equal": ("ge", ">="),
    "less_than": ("lt", "<"),
    "less_than_equal": ("le", "<="),
}


def bad_input(model: type[BaseModel], problem: ValidationError) -> BadInput:
    """The most telling of pydantic's errors, in the program's own words.

    Unknown keys come first: a misspelt key is often the reason why another one is missing.
    """
    errors = problem.errors(include_url=False)
    error = min(errors, key=lambda error: error["type"] != "extra_forbidden")
    context = error.get("ctx", {})
    place: Place = error["loc"]
    kind, value = error["type"], error["input"]
    if kind == "extra_forbidden":
        return _unknown_key(model, place)
    if kind == "bad_input":
        if context["key"]:
            place = (*place, context["key"])
        return BadInput(None, full_key(place), context["wrong"], context["allowed"])
    if kind == "missing" and isinstance(place[-1], int):
        wrong = f"{shown(error['input'])} is too short"
        return BadInput(None, full_key(place[:-1]), wrong, "a pair")
    if kind == "missing":
        return BadInput(None, full_key(place), "is missing", _doc(model, place))
    if kind == "literal_error":
        wrong = f"{shown(value)} is not {_with_article(str(_keys(place)[-1]))}"
        return BadInput(None, full_key(place), wrong, _alternatives(model, place))
    if kind in ("too_long", "too_short"):
        limit = context.get("max_length", context.get("min_length"))
        wrong = f"{shown(value)} has {context['actual_length']} entries"
        return BadInput(None, full_key(place), wrong, f"{limit}")
    if kind in _LIMITS:
        name, sign = _LIMITS[kind]
        limit = f"{sign} {context[name]:.12g}"
        return BadInput(None, full_key(place), f"{shown(value)} is not {limit}", f"numbers {limit}")
    if kind in _TYPES:
        wrong, allowed = _TYPES[kind]
        return BadInput(None, full_key(place), f"{shown(value)} {wrong}", allowed)
    return BadInput(None, full_key(place), f"{shown(value)}: {error['msg']}")


def full_key(place: Place) -> str:
    """Where an error is, e.g. ("mesh", "width", "<Interval>", "cells") -> mesh.width.cells."""
    key = ""
    for part in _keys(place):
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
    return key


def tables(annotation: Any) -> Iterator[type[BaseModel]]:
    """The section classes in a type annotation: one, or the forms of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from tables(argument)


def _keys(place: Place) -> Place:
    return tuple(p for p in place if isinstance(p, int) or not p.startswith("<"))


def _table_at(model: type[BaseModel], place: Place) -> type[BaseModel]:
    """The section class that holds the last named key of a place."""
    forms = [model]
    named = [part for part in place if isinstance(part, str)]
    for part in named[:-1]:
        if part.startswith("<"):
            forms = [form for form in forms if form_tag(form) == part]
        else:
            forms = list(tables(forms[0].model_fields[part].annotation))
    return forms[0]


def _field_at(model: type[BaseModel], place: Place) -> FieldInfo:
    named = [part for part in place if isinstance(part, str)]
    return _table_at(model, place).model_fields[named[-1]]


def _doc(model: type[BaseModel], place: Place) -> str:
    return " ".join((_field_at(model, place).description or "").split())


def _alternatives(model: type[BaseModel], place: Place) -> str:
    return ", ".join(map(str, get_args(_field_at(model, place).annotation)))


def _unknown_key(model: type[BaseModel], place: Place) -> BadInput:
    allowed = list(_table_at(model, place).model_fields)
    name = str(place[-1])
    near = difflib.get_close_matches(name, allowed, 1)
    parent = full_key(place[:-1])
    hints = [f"{parent}.{key}" if parent else key for key in near]
    if len(place) == 2:  # in a section: perhaps it is a key of another one
        hints += [
            f"{section}.{name}"
            for section, field in model.model_fields.items()
            for table in tables(field.annotation)
            if name in table.model_fields
        ]
    hint = f" (did you mean {hints[0]}?)" if hints else ""
    return BadInput(None, full_key(place), f"is not a key{hint}", ", ".join(allowed))


def _with_article(key: str) -> str:
    noun = key.replace("_", " ")
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
