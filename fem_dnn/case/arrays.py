"""Arrays and functions that a case names: loaded or evaluated, and checked.

No pickle is ever read, so an array file cannot execute code either.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fem_dnn.case.values import REFERENCE, split_reference
from fem_dnn.errors import BadInput, shown

if TYPE_CHECKING:
    from fem_dnn.case.schema import Case

Array = NDArray[np.float64]
Shapes = Mapping[tuple[str, ...], tuple[int | None, ...]]
"""Meanings of the axes -> their lengths, None where any will do; one entry per allowed shape."""


def is_array(entries: object) -> bool:
    """Whether a key's value names an array in a file."""
    return isinstance(entries, str) and split_reference(entries) is not None


def load_array(
    reference: str, folder: Path, key: str, shapes: Shapes | None = None, *, file: str | None = None
) -> Array:
    """Load an array from "file.npz:name" or "file.npy".

    Args:
        reference: File, relative to the folder, and the array's name in it.
        folder: Folder of the case file.
        key: Key of the case that names it, for error messages.
        shapes: Allowed shapes, e.g. ``{("samples", "nodes"): (None, 64)}``; default: any.
        file: Case file, for error messages.

    Returns:
        A float64 array; integers and truth values are converted.

    Raises:
        BadInput: No such file or name, not an array of finite real numbers, or a wrong shape.
    """
    try:
        array = _load(reference, folder)
        if array.dtype.kind not in "fiub":
            wrong = f"holds {array.dtype} instead of numbers"
            raise BadInput(None, None, f"{shown(reference)} {wrong}", "an array of real numbers")
        if shapes is not None and not any(_fits(array.shape, s) for s in shapes.values()):
            wrong = f"{shown(reference)} has shape {array.shape}"
            raise BadInput(None, None, wrong, " or ".join(map(_described, shapes.items())))
        values = array.astype(np.float64)
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            index = tuple(map(int, bad[0]))
            wrong = f"{shown(reference)} is {values[index]} at index {index}"
            raise BadInput(None, None, wrong, "finite numbers")
    except BadInput as problem:
        raise problem.at(file=file, key=key) from None
    return values


def array_names(path: Path) -> set[str]:
    """The names of the arrays in an npz file; none where it is not one that can be read."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return set(getattr(content, "files", ()))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return set()


def functions_array(
    case: Case,
    key: str,
    entries: str | tuple[Any, ...],
    *,
    x: ArrayLike,
    meaning: tuple[str, ...] = ("samples", "nodes"),
    count: int | None = None,
) -> Array:
    """Functions on Y as nodal values: loaded, or evaluated from expressions in x.

    Args:
        case: The case.
        key: Full key, e.g. "data.inputs".
        entries: The key's value: an array reference, or expressions (or constants).
        x: Nodes in file order, shape (nodes, d).
        meaning: What the two axes are.
        count: How many functions there have to be; None: any number.

    Returns:
        Shape (count, nodes).

    Raises:
        BadInput: As `load_array` and `Expression.evaluate`, or another number of functions.
    """
    nodes = len(np.asarray(x))
    if isinstance(entries, str):
        shapes: Shapes = {meaning: (count, nodes)}
        return load_array(entries, case.folder, key, shapes, file=case.file)
    if count is not None and len(entries) != count:
        raise case.error(key, f"has {len(entries)} entries", f"{count} ({meaning[0]})")
    rows = [
        case.expression(f"{key}[{number}]", str(entry), ("x",)).evaluate(x=x)
        for number, entry in enumerate(entries)
    ]
    return np.stack(rows)


def field_array(
    case: Case,
    key: str,
    text: str,
    shapes: Shapes,
    *,
    x: ArrayLike,
    y: ArrayLike | None = None,
    t: ArrayLike | None = None,
) -> Array:
    """A kernel, bias or mask: loaded, or evaluated at points that broadcast.

    Args:
        case: The case.
        key: Full key, e.g. "network.kernel".
        text: The key's value: an array reference, or an expression.
        shapes: Allowed shapes of an array, see `load_array`.
        x: Points, e.g. of shape (nodes, 1, d) for a kernel.
        y: Points, e.g. of shape (1, nodes, d); None: the expression is in x (and t) alone.
        t: Depths, e.g. of shape (levels, 1, 1); None: the expression is in x (and y) alone.

    Returns:
        For a reference the array in the shape it has; for an expression the points' common shape.

    Raises:
        BadInput: As `load_array` and `Expression.evaluate`.
    """
    if split_reference(text):
        return load_array(text, case.folder, key, shapes, file=case.file)
    given = {"x": x, "y": y, "t": t}
    variables = tuple(name for name, points in given.items() if points is not None)
    return case.expression(key, text, variables).evaluate(x=x, y=y, t=t)


def _load(reference: str, folder: Path) -> NDArray[Any]:
    parts = split_reference(reference)
    if parts is None:
        raise BadInput(None, None, f"{shown(reference)} is not an array file", REFERENCE)
    path, name = folder / parts[0], parts[1]
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            if name is None:
                return content
            wrong = f"{shown(reference)} names an array in a file that holds only one"
            raise BadInput(None, None, wrong, shown(parts[0]))
        with content:
            if name in content.files:
                return np.asarray(content[name])
            wrong = f"{path} has no array {shown(name)}" if name else f"{path} holds several arrays"
            names = ", ".join(f"{parts[0]}:{known}" for known in content.files)
            raise BadInput(None, None, wrong, names or "a file with arrays in it")
    except OSError as problem:
        wrong = f"{path} cannot be read ({problem.strerror or problem})"
        raise BadInput(None, None, wrong, REFERENCE) from None
    except BadInput:
        raise
    except (ValueError, EOFError, zipfile.BadZipFile):
        wrong = f"{shown(reference)} is not an array of numbers as numpy.savez writes it"
        raise BadInput(None, None, wrong, REFERENCE) from None


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        n is None or m == n for m, n in zip(shape, wanted, strict=True)
    )


def _described(shape: tuple[tuple[str, ...], tuple[int | None, ...]]) -> str:
    """E.g. "(samples, nodes) = (any, 64)"."""
    meaning, lengths = shape
    comma = "," if len(meaning) == 1 else ""
    numbers = ", ".join("any" if n is None else str(n) for n in lengths)
    return f"({', '.join(meaning)}{comma}) = ({numbers}{comma})"
