"""Expressions in x, y, t that a case file may contain: real functions written as text.

Reading them is `fem_dnn._expression_language`'s business; here they are given values.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fem_dnn._expression_language import FUNCTIONS, ExpressionError, compile_expression
from fem_dnn.errors import shown

__all__ = ["FUNCTIONS", "Expression", "ExpressionError"]

Array = NDArray[np.float64]


class Expression:
    """A real function of x, y, t, written as text.

    ``x[0]``, ``x[1]``, ... are the coordinates of x, likewise for y; on intervals plain ``x``
    is ``x[0]``. A comparison counts 1 where it holds and 0 elsewhere.

    Attributes:
        text: The expression.
        variables: Names it may use, out of x, y, t.
        dimension: Number of coordinates of x and y; None: not known yet, checked when evaluated.
    """

    def __init__(
        self,
        text: str,
        variables: tuple[str, ...],
        *,
        dimension: int | None = None,
        file: str | None = None,
        key: str | None = None,
    ) -> None:
        """Read an expression.

        Args:
            text: The expression.
            variables: Names it may use, out of "x", "y", "t".
            dimension: Number of coordinates of x and y; None: not known yet.
            file: File it stands in, for error messages.
            key: Its key, for error messages.

        Raises:
            ExpressionError: It is not an expression of this language.
        """
        self.text, self.variables, self.dimension = text, variables, dimension
        self._file, self._key = file, key
        try:
            self._used, self._value = compile_expression(text, variables, dimension)
        except ExpressionError as problem:
            raise problem.at(file=file, key=key) from None

    def __repr__(self) -> str:
        return f"Expression({self.text!r}, {self.variables!r})"

    def evaluate(
        self, *, x: ArrayLike | None = None, y: ArrayLike | None = None, t: ArrayLike | None = None
    ) -> Array:
        """Values at the given points, which broadcast against each other as NumPy arrays do.

        Args:
            x: Points, shape (..., d).
            y: Points, shape (..., d).
            t: Depths, any shape.

        Returns:
            A new array whose shape is that of all given arguments broadcast, without d.

        Raises:
            ExpressionError: A value is not finite (says where), or a coordinate is used that the
                points do not have.
            ValueError: A variable that the expression uses is not given.
        """
        given = {
            name: np.asarray(values, dtype=np.float64)
            for name, values in (("x", x), ("y", y), ("t", t))
            if values is not None
        }
        arguments = [self._argument(name, given) for name in self._used]
        shapes = (v.shape if name == "t" else v.shape[:-1] for name, v in given.items())
        values = np.empty(np.broadcast_shapes(*shapes))
        values[...] = self._value(*arguments) if callable(self._value) else self._value
        wrong = np.argwhere(~np.isfinite(values))
        if len(wrong):
            raise self._not_finite(values, tuple(wrong[0]), given)
        return values

    def _argument(self, name: str, given: dict[str, Array]) -> Array:
        """The array that stands for "t", "x", "x[1]", ..."""
        if name[0] not in given:
            raise ValueError(f"{self.text} needs {name[0]}, which is not given")
        points = given[name[0]]
        if name == "t":
            return points
        dimension = points.shape[-1]
        coordinate = int(name[2]) if len(name) > 1 else 0
        if coordinate >= dimension or (len(name) == 1 and dimension > 1):
            wrong = f"{shown(self.text)} uses {name}, but {name[0]} has {dimension} coordinates"
            names = ", ".join(f"{name[0]}[{k}]" for k in range(dimension))
            raise ExpressionError(self._file, self._key, wrong, names)
        return points[..., coordinate]

    def _not_finite(
        self, values: Array, index: tuple[int, ...], given: dict[str, Array]
    ) -> ExpressionError:
        where = []
        for name, points in given.items():
            shape = values.shape if name == "t" else (*values.shape, points.shape[-1])
            numbers = np.atleast_1d(np.broadcast_to(points, shape)[index])
            point = ", ".join(f"{number:.6g}" for number in numbers)
            where.append(f"{name} = {point}" if len(numbers) == 1 else f"{name} = ({point})")
        return ExpressionError(
            self._file,
            self._key,
            f"{shown(self.text)} is {values[index]} at {', '.join(where)}",
            "expressions that are finite at every node and level",
        )
