"""What is asked of a command: a case, and where its results, options and words go."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpi4py import MPI
from rich.console import Console

from fem_dnn.case import Case, read_case_collectively
from fem_dnn.collective import on_root
from fem_dnn.errors import BadInput
from fem_dnn.files import try_writing

CaseLike = Case | str | Path | Mapping[str, Any]
"""A case, its file, or its tables."""


@dataclass(frozen=True)
class Request:
    """What is common to the solving commands.

    Attributes:
        out: Folder for arrays, pictures and ParaView files; None: none are written.
        options: PETSc options without prefix.
        console: Where progress goes; None on other ranks and where nothing is to be said.
        comm: Communicator.
        checkpoint: File for a solve's checkpoints; None: `checkpoint.npz` in the folder, if any.
        checkpoint_every: Seconds from one to the next; 0: every iteration; None: 60.
        resume: Whether a solve goes on from the checkpoint, where there is one.
    """

    out: Path | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    console: Console | None = None
    comm: MPI.Comm = field(default_factory=lambda: MPI.COMM_WORLD)
    checkpoint: Path | None = None
    checkpoint_every: float | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        every = self.checkpoint_every
        if every is not None and not (math.isfinite(every) and every >= 0):
            wrong = f"{every:g} is not a number of seconds"
            raise BadInput(None, "--checkpoint-every", wrong, "0 (every iteration) or more")
        for name, given in (("--checkpoint-every", every is not None), ("--resume", self.resume)):
            if given and self.checkpoint_file is None:
                where = "with --out DIR or --checkpoint FILE"
                raise BadInput(None, name, "without a place for checkpoints", where)

    @property
    def checkpoint_file(self) -> Path | None:
        """Where checkpoints go; None: nowhere."""
        if self.checkpoint is not None or self.out is None:
            return self.checkpoint
        return self.out / "checkpoint.npz"

    def prepare_out(self) -> None:
        """Make the folder, when the input is known to be good and before the long work.

        Raises:
            BadInput: It cannot be made, or nothing can be written there.
        """
        if self.out is None:
            return
        out = self.out

        def make() -> None:
            try:
                out.mkdir(parents=True, exist_ok=True)
            except OSError as problem:
                raise BadInput(
                    None, "--out", f"{out} cannot be made a folder ({problem.strerror})"
                ) from None
            try:
                try_writing(out / "result.json")
            except OSError as problem:
                wrong = f"{out} cannot be written to ({problem.strerror})"
                raise BadInput(None, "--out", wrong, "a folder to write in") from None

        on_root(self.comm, make)

    def say(self, text: str) -> None:
        """Tell the person in front of it."""
        if self.console is not None:
            self.console.print(text, highlight=False)


def read_any(case: CaseLike, request: Request) -> Case:
    """A case from whatever names it."""
    if isinstance(case, Case):
        return case
    if isinstance(case, Mapping):
        return Case.parse(case)
    return read_case_collectively(request.comm, case)


def petsc_options(arguments: list[str]) -> dict[str, object]:
    """PETSc options from `-name [value]` arguments.

    Raises:
        BadInput: Something is not an option.
    """
    options: dict[str, object] = {}
    name = None
    for argument in arguments:
        if argument.startswith("-") and not _is_number(argument):
            name = argument.lstrip("-")
            options[name] = None
        elif name is not None:
            options[name], name = argument, None
        else:
            raise BadInput(None, "--", f'"{argument}" is not a PETSc option', "-name [value]")
    return options


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
