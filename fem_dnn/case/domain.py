"""[mesh]: the width domain Y and the depth interval (0, T), each in one of several forms."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag, model_validator

from fem_dnn.case.values import (
    Count,
    CountPair,
    Numbers,
    Pair,
    Positive,
    PositivePair,
    Section,
    bad,
    form_tag,
    require_table,
)
from fem_dnn.errors import shown


class Interval(Section):
    """Y = (start, start + length) with equal cells."""

    shape: Literal["interval"]
    """The form of Y."""
    start: float = 0.0
    """Left end."""
    length: Positive
    """|Y|."""
    cells: Count
    """Number of cells: at degree 0, of neurons."""

    @property
    def dimension(self) -> int:
        """Number of coordinates of x."""
        return 1


class Rectangle(Section):
    """Y = a rectangle with cells[0] x cells[1] equal quadrilaterals."""

    shape: Literal["rectangle"]
    """The form of Y."""
    start: Pair = (0.0, 0.0)
    """Lower left corner."""
    length: PositivePair
    """Side lengths."""
    cells: CountPair
    """Numbers of cells along the two sides."""

    @property
    def dimension(self) -> int:
        """Number of coordinates of x."""
        return 2


class WidthFile(Section):
    """Y from a mesh file."""

    file: str = Field(min_length=1)
    """Gmsh (.msh) or XDMF (.xdmf) file of intervals, triangles, quadrilaterals, tetrahedra or
    hexahedra; relative to the case file."""

    @property
    def dimension(self) -> None:
        """Not known before the file is read."""
        return None


class UniformDepth(Section):
    """(0, length) in equal layers."""

    length: Positive
    """T."""
    cells: Count
    """Number of layers."""

    @property
    def slab_ends(self) -> tuple[float, ...]:
        """0 = t_0 < ... < t_layers = T."""
        return tuple(self.length * n / self.cells for n in range(self.cells + 1))


class GradedDepth(Section):
    """(0, T) in layers that end at given points."""

    points: Numbers
    """Slab ends 0 = t_0 < t_1 < ... < t_layers = T."""

    @property
    def slab_ends(self) -> tuple[float, ...]:
        """0 = t_0 < ... < t_layers = T."""
        return self.points

    @model_validator(mode="after")
    def _increasing(self) -> Self:
        points = self.points
        increasing = all(a < b for a, b in pairwise(points))
        if len(points) < 2 or points[0] != 0 or not increasing:
            raise bad(
                f"{shown(points)} does not start at 0 and increase strictly",
                "at least two numbers 0 = t_0 < t_1 < ...",
                "points",
            )
        return self


_SHAPES: dict[str, type[Section]] = {"interval": Interval, "rectangle": Rectangle}


def _width_form(value: Any) -> str:
    if isinstance(value, BaseModel):
        return form_tag(type(value))
    return form_tag(WidthFile if "file" in value else _SHAPES[value["shape"]])


def _check_width_form(value: Any) -> Any:
    allowed = 'interval, rectangle (or `file = "..."` instead)'
    if not isinstance(value, dict) or "file" in value:
        return require_table(value, '{ shape = "interval", length = 1.0, cells = 64 }')
    shape = value.get("shape")
    if shape is None:
        raise bad("is missing", allowed, "shape")
    if shape not in list(_SHAPES):
        raise bad(f"{shown(shape)} is not a shape", allowed, "shape")
    return value


def _depth_form(value: Any) -> str:
    if isinstance(value, BaseModel):
        return form_tag(type(value))
    return form_tag(GradedDepth if "points" in value else UniformDepth)


def _check_depth_form(value: Any) -> Any:
    if isinstance(value, dict) and "points" in value:
        for key in ("cells", "length"):
            if key in value:
                raise bad(
                    "cannot be given together with mesh.depth.points",
                    "length and cells, or points alone",
                    key,
                )
    return require_table(value, "{ length = 1.0, cells = 32 }, or { points = [0.0, 0.1, 0.3] }")


Width = Annotated[
    Annotated[Interval, Tag(form_tag(Interval))]
    | Annotated[Rectangle, Tag(form_tag(Rectangle))]
    | Annotated[WidthFile, Tag(form_tag(WidthFile))],
    Discriminator(_width_form),
    BeforeValidator(_check_width_form),
]
Depth = Annotated[
    Annotated[UniformDepth, Tag(form_tag(UniformDepth))]
    | Annotated[GradedDepth, Tag(form_tag(GradedDepth))],
    Discriminator(_depth_form),
    BeforeValidator(_check_depth_form),
]


class Mesh(Section):
    """The depth-width cylinder Y x (0, T)."""

    width: Width
    """The width domain Y: an interval, a rectangle, or a mesh file."""
    depth: Depth
    """The depth interval (0, T): length and cells, or points."""
