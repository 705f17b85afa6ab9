"""The file of a checkpoint: a waypoint of a solve, and whose it is.

An npz file with the iterate's controls (`kernel`, `bias`, `outputs`, `offsets` as in
`solution.npz`: nodal values in file order, on the iterate's mesh), the places `x` and `control_t`
of the case's own mesh, and a text in JSON with the rest of a `Waypoint` and the case. It does not
depend on the number of ranks, and appears whole or not at all (`files`): whenever a run is killed
there is a good one, the last or the one before.

Whether it belongs to a case is told by the case's tables, by the mesh, and, as data in files may
have changed, by J and the gradient's norm at the initial guess.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fem_dnn._version import __version__
from fem_dnn.assembly import Model
from fem_dnn.case import Case
from fem_dnn.controls import ControlValues
from fem_dnn.errors import BadInput, shown
from fem_dnn.files import remove_leftovers, try_writing, write_whole
from fem_dnn.gram.choice import representation
from fem_dnn.solvers.history import Coarser, Iteration, Waypoint

FORMAT = 1

PROBLEM = ("mesh", "network", "data", "loss", "regularization", "bounds")
"""Sections of a case that say what is solved."""

_RESUMING = {
    "gram": 'solver.representation = "gram" with solver.method = "newton"',
    "dense": 'solver.representation = "dense"',
}
"""How a solve goes on from a checkpoint of either form."""

ALIKE = 1e-9
"""Numbers that differ by less than this, relative, are the same on other ranks or machines."""


def prepare(path: Path) -> None:
    """See that checkpoints can be written to a file, and remove what a killed run left of one.

    Raises:
        BadInput: They cannot, or what is there is something else.
    """
    try:
        try_writing(path)
        remove_leftovers(path)
    except OSError as problem:
        wrong = f"{path} cannot be written ({problem.strerror})"
        raise BadInput(None, "--checkpoint", wrong, "a file in an existing folder") from None
    if path.exists():
        _open(path).close()


def write(path: Path, model: Model, waypoint: Waypoint) -> str | None:
    """Write a waypoint to a file; why it could not be written, if so."""
    text = {
        "format": FORMAT,
        "version": __version__,
        "case": _tables(model.case),
        "iterations": [line.as_dict() for line in waypoint.iterations],
        "escapes": waypoint.escapes,
        "step": waypoint.step,
        "coarser": None if waypoint.coarser is None else asdict(waypoint.coarser),
    }
    space, levels = model.network.space, model.network.levels
    arrays: dict[str, Any] = dict(waypoint.control.arrays())
    arrays |= {"x": space.nodes, "control_t": levels.t, "checkpoint": np.array(json.dumps(text))}

    def fill(file: BinaryIO) -> None:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())  # the name must not come to stand for it before the content does

    try:
        write_whole(path, fill)
    except OSError as problem:
        return problem.strerror or str(problem)
    return None


def _open(path: Path) -> Any:
    """An open checkpoint, to be closed.

    Raises:
        BadInput: It is none.
    """
    try:
        file = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        file = None
    if not isinstance(file, np.lib.npyio.NpzFile) or "checkpoint" not in file.files:
        wrong = "is not a checkpoint of fem-dnn"
        raise BadInput(str(path), None, wrong, "one, or a new file, with --checkpoint FILE")
    return file


def read(path: Path, model: Model) -> Waypoint | None:
    """The waypoint in a file; None where there is no file.

    Raises:
        BadInput: It is no checkpoint, or that of another case.
    """
    if not path.exists():
        return None
    with _open(path) as file:
        text = json.loads(str(file["checkpoint"]))
        if text["format"] != FORMAT:
            raise BadInput(
                str(path),
                None,
                f"has the format {text['format']} (fem-dnn {text['version']})",
                f"format {FORMAT}; start without --resume",
            )
        names = {"kernel", "bias", "outputs", "offsets", "q"} & set(file.files)
        form, form_there = representation(model), "gram" if "q" in names else "dense"
        _require_same_case(path, form_there, text["case"], _tables(model.case))
        space, levels = model.network.space, model.network.levels
        for name, here in (("x", space.nodes), ("control_t", levels.t)):
            there = file[name]
            if there.shape != here.shape or not np.allclose(there, here, rtol=1e-10, atol=1e-12):
                raise _another_case(path, form_there, "the mesh was another one")
        if form != form_there:
            named = {
                "gram": "in Gram form, which newton alone knows",
                "dense": "with a dense kernel",
            }
            wrong = f"was left by a solve {named[form_there]}, and this one is {named[form]}"
            raise BadInput(str(path), None, wrong, _RESUMING[form_there])
        control = ControlValues(**{name: file[name] for name in names})
    coarser = text["coarser"]
    if coarser is not None:
        coarser = Coarser(**{**coarser, "history": _lines(coarser["history"])})
    return Waypoint(control, _lines(text["iterations"]), text["escapes"], text["step"], coarser)


def _lines(lines: list[dict[str, Any]]) -> tuple[Iteration, ...]:
    return tuple(Iteration(**line) for line in lines)


def _tables(case: Case) -> dict[str, Any]:
    """What of a case may not change from a checkpoint to its use, by full key."""
    tables = case.as_dict()
    problem = {name: tables.get(name, {}) for name in PROBLEM}
    # The initial guess is what tolerances refer to.
    solver = {"initial": case.initial.model_dump(mode="json"), "nested": case.solver.nested}
    return dict(_flat(problem | {"solver": solver}))


def _flat(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tables.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _require_same_case(path: Path, form: str, there: dict[str, Any], here: dict[str, Any]) -> None:
    for key in sorted(there.keys() | here.keys()):
        was, is_now = (shown(of[key]) if key in of else "not given" for of in (there, here))
        if there.get(key) != here.get(key):
            raise _another_case(path, form, f"{key} was {was} and is {is_now}")


def require_same_start(path: Path, model: Model, waypoint: Waypoint) -> None:
    """See that J and its gradient at the initial guess are what they were (collective)."""
    assert model.problem is not None
    first: Iteration | Coarser = waypoint.coarser or waypoint.iterations[0]
    start = model.problem.linearise(model.problem.controls.project(model.initial))
    # The gradient may be 0 by symmetry; it is compared on the scale that J has at controls of 1.
    scale = ALIKE * (abs(start.objective) + abs(first.objective))
    for what, was, is_now in (
        ("objective", first.objective, start.objective),
        ("gradient norm", first.gradient_norm, start.gradient_norm),
    ):
        if not math.isclose(was, is_now, rel_tol=ALIKE, abs_tol=scale):
            raise _another_case(
                path,
                representation(model),
                f"the {what} at the initial guess was {was:.10g} and is {is_now:.10g} (are the "
                "data the same?)",
            )


def may_change(form: str) -> str:
    """The keys of a case that may change from a checkpoint of a form (gram | dense) to its use."""
    keys = ["rtol", "atol", "max_iterations", "escape"]
    if form == "dense":
        keys.insert(0, "method")  # the Gram form is newton's alone
    return f"solver.{', '.join(keys[:-1])} and {keys[-1]}"


def _another_case(path: Path, form: str, wrong: str) -> BadInput:
    allowed = f"the same case but for {may_change(form)}; or start without --resume"
    return BadInput(str(path), None, f"belongs to another case: {wrong}", allowed)
