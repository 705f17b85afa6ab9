"""The case: all sections together, where it came from, and what follows from what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from fem_dnn.case.commands import Constant, Critical, Initial, PathFollowing, Solver, Value, Zero
from fem_dnn.case.domain import Mesh
from fem_dnn.case.messages import bad_input
from fem_dnn.case.model import Bounds, Data, Loss, Network, Regularization
from fem_dnn.case.relations import require_consistent
from fem_dnn.case.support import require_supported
from fem_dnn.case.values import Section
from fem_dnn.errors import BadInput, shown
from fem_dnn.expressions import Expression


class Case(Section):
    """One case file: a problem and how to treat it.

    Build it with `Case.parse` or `fem_dnn.case.read_case`, whose errors are `BadInput`.
    """

    mesh: Mesh
    """The depth-width cylinder."""
    network: Network = Field(default_factory=Network)
    """The state equation."""
    data: Data
    """The samples."""
    loss: Loss = Field(default_factory=Loss)
    """What is to be small."""
    regularization: Regularization = Field(default_factory=Regularization)
    """What keeps the controls small."""
    bounds: Bounds = Field(default_factory=Bounds)
    """Box bounds on the controls."""
    solver: Solver = Field(default_factory=Solver)
    """How to solve."""
    critical: Critical = Field(default_factory=Critical)
    """For `fem-dnn critical`."""
    path: PathFollowing = Field(default_factory=PathFollowing)
    """For `fem-dnn path`."""
    value: Value = Field(default_factory=Value)
    """For `fem-dnn value`."""

    _file: str | None = PrivateAttr(default=None)
    _folder: Path = PrivateAttr(default=Path())

    @classmethod
    def parse(
        cls, tables: Mapping[str, Any], file: str | None = None, folder: Path | str | None = None
    ) -> Self:
        """Check a case given as nested tables.

        Args:
            tables: What the TOML file holds.
            file: Name for error messages.
            folder: Folder that file paths in the case refer to; default: the working directory.

        Raises:
            BadInput: The case is wrong, or asks for what the program cannot do yet.
        """
        try:
            case = cls.checked(tables)
            require_supported(case)
        except BadInput as problem:
            raise problem.at(file=file) from None
        case._file, case._folder = file, Path(folder or ".")
        return case

    @classmethod
    def checked(cls, tables: Mapping[str, Any]) -> Self:
        """Check against the schema alone, whether the program can do it yet or not.

        Raises:
            BadInput: The case is wrong.
        """
        try:
            return cls.model_validate(dict(tables))
        except ValidationError as problem:
            raise bad_input(cls, problem) from None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        require_consistent(self)
        return self

    @property
    def file(self) -> str | None:
        """Name of the case file for messages; None for a case made in Python."""
        return self._file

    @property
    def folder(self) -> Path:
        """Folder that relative paths in the case refer to."""
        return self._folder

    @property
    def initial(self) -> Initial:
        """The initial guess: as asked for, else zero, for relu a small constant bias."""
        if self.solver.initial is not None:
            return self.solver.initial
        return Constant() if self.network.activation == "relu" else Zero()

    def as_dict(self) -> dict[str, Any]:
        """The whole case, defaults included, in terms of JSON; `Case.parse` reads it back."""
        return self.model_dump(mode="json", exclude_none=True)

    def with_value(self, key: str, value: Any) -> Case:
        """The same case with another value at a full key such as "regularization.kernel".

        Raises:
            BadInput: The value is not allowed there.
        """
        return type(self).parse(self.tables_with(key, value), self.file, self.folder)

    def tables_with(self, key: str, value: Any) -> dict[str, Any]:
        """`as_dict` with another value at a full key, not checked."""
        tables = self.as_dict()
        *sections, last = key.split(".")
        table = tables
        for section in sections:
            table = table.setdefault(section, {})
        table[last] = value
        return tables

    def number(self, key: str) -> float:
        """The real number at a full key such as "regularization.kernel".

        Raises:
            BadInput: There is no such number.
        """
        value: Any = self
        for part in key.split("."):
            value = getattr(value, part, None) if part in _fields(value) else None
        if not isinstance(value, float):
            raise BadInput(self.file, None, f"{shown(key)} is not a real number of the case")
        return value

    def expression(self, key: str, text: str, variables: tuple[str, ...]) -> Expression:
        """An expression of this case, which knows the width's dimension and its own key."""
        dimension = self.mesh.width.dimension
        return Expression(text, variables, dimension=dimension, file=self.file, key=key)

    def error(self, key: str, wrong: str, allowed: str | None = None) -> BadInput:
        """An error about a key of this case."""
        return BadInput(self.file, key, wrong, allowed)


def _fields(value: Any) -> Mapping[str, Any]:
    return type(value).model_fields if isinstance(value, Section) else {}
