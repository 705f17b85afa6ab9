"""The errors that people meet, each a sentence that says what to do next.

Every error that is the user's to mend derives from `FemDnnError`; anything else that escapes is a
defect of the program.
"""

from __future__ import annotations

import json
from typing import Any, Self


class FemDnnError(Exception):
    """Base of all errors of this package that are addressed to its user."""


class BadInput(FemDnnError):
    """Input that cannot be used; its text is one line: file, key, what is wrong, what is allowed.

    Attributes:
        file: File the input came from, as the user wrote it; None where there is none (Python).
        key: Full key, e.g. ``network.activation``; None where none applies.
        wrong: What is wrong, e.g. ``"tanhh" is not an activation``.
        allowed: What would be right, e.g. ``tanh, sigmoid, relu``; None where that is evident.
    """

    def __init__(
        self, file: str | None, key: str | None, wrong: str, allowed: str | None = None
    ) -> None:
        # All four go to the base class: errors are pickled to travel between MPI ranks.
        super().__init__(file, key, wrong, allowed)
        self.file, self.key, self.wrong, self.allowed = file, key, wrong, allowed

    def __str__(self) -> str:
        """The one line, e.g. ``case.toml: mesh.depth.cells: 0 is not >= 1; allowed: ...``."""
        parts = [part for part in (self.file, self.key) if part]
        allowed = f"; allowed: {self.allowed}" if self.allowed else ""
        return " ".join(": ".join([*parts, self.wrong + allowed]).split())

    def at(self, *, file: str | None = None, key: str | None = None) -> Self:
        """The same error, with the file and the key filled in where they were not yet known."""
        return type(self)(self.file or file, self.key or key, self.wrong, self.allowed)


def shown(value: Any, limit: int = 60) -> str:
    """A value as a case file would show it, on one line and not too long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= limit else text[: limit - 1] + "…"
