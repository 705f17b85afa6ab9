"""[solver], [critical], [path], [value]: how the commands go about their work."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag, model_validator

from fem_dnn.case.values import (
    Count,
    CountOrZero,
    Groups,
    NonNegative,
    Pair,
    Positive,
    Section,
    Seed,
    bad,
    form_tag,
    require_table,
)
from fem_dnn.errors import shown


class Zero(Section):
    """a = 0, b = 0."""

    kind: Literal["zero"] = "zero"
    """The kind of initial guess."""


class Constant(Section):
    """Constant controls."""

    kind: Literal["constant"] = "constant"
    """The kind of initial guess."""
    kernel: float = 0.0
    """a."""
    bias: float = 0.1
    """b."""


class Random(Section):
    """scale * numpy.random.default_rng(seed).standard_normal: kernel [level, x, y], then bias."""

    kind: Literal["random"] = "random"
    """The kind of initial guess."""
    seed: Seed = 0
    """Seed of the generator."""
    scale: Positive = 1.0
    """Standard deviation."""


class FromFile(Section):
    """Controls of an earlier result on the same mesh.

    The Gram form starts from the ones of least regularization that move the case's samples along
    the same way.
    """

    kind: Literal["file"] = "file"
    """The kind of initial guess."""
    path: str = Field(min_length=1)
    """An npz file with `kernel` and `bias`, such as solution.npz; or, in Gram form, with `q` and
    `control_state` instead of `kernel`."""


_KINDS: dict[str, type[Section]] = {
    "zero": Zero,
    "constant": Constant,
    "random": Random,
    "file": FromFile,
}


def _initial_form(value: Any) -> str:
    return form_tag(type(value) if isinstance(value, BaseModel) else _KINDS[value["kind"]])


def _check_initial_form(value: Any) -> Any:
    if not isinstance(require_table(value, '{ kind = "zero" }'), dict):
        return value
    if "kind" not in value:
        raise bad("is missing", ", ".join(_KINDS), "kind")
    if value["kind"] not in list(_KINDS):
        raise bad(f"{shown(value['kind'])} is not a kind", ", ".join(_KINDS), "kind")
    return value


Initial = Annotated[
    Annotated[Zero, Tag(form_tag(Zero))]
    | Annotated[Constant, Tag(form_tag(Constant))]
    | Annotated[Random, Tag(form_tag(Random))]
    | Annotated[FromFile, Tag(form_tag(FromFile))],
    Discriminator(_initial_form),
    BeforeValidator(_check_initial_form),
]


class Solver(Section):
    """How the optimality system is solved."""

    method: Literal["newton", "all-at-once", "lbfgs", "sweep", "layerwise", "gradient"] = "newton"
    """The optimality solver."""
    rtol: Annotated[float, Field(ge=0, lt=1)] = 1e-8
    """On the L2 norm of the reduced gradient, relative to its value at the initial guess."""
    atol: NonNegative = 1e-12
    """On the L2 norm of the reduced gradient."""
    max_iterations: CountOrZero = 500
    """Iterations after which to stop; one of newton is a Newton step or up to 30 cheaper ones."""
    escape: bool = True
    """Descend to a minimiser and leave saddles on the way (critical and path never do)."""
    initial: Initial | None = None
    """The initial guess: zero, constant (kernel, bias), random (seed, scale), or file (path).
    Default: zero; for relu constant, because zero is a kink there."""
    representation: Literal["auto", "dense", "gram"] = "auto"
    """How `solve` and `check` hold the kernel: dense, or as a sum over samples (gram; newton, from
    zero or a file, without mask, bounds or penalised derivatives), which costs O(nodes samples^2)
    instead of O(nodes^2 samples). auto: gram where it is possible and there are 256 nodes, and 4
    per sample, or more. `critical`, `path`, `value`, `compare` and `solve --adapt` hold it dense
    and refuse gram; auto is dense for them."""
    sample_groups: Groups = "auto"
    """Under MPI: `solve`, `check` and `compare` deal the samples out over so many groups of ranks,
    each with all width nodes distributed over its own ranks; a divisor of the number of ranks, at
    most one per sample. Not for the Gram form nor for all-at-once, sweep and layerwise, which have
    one group. auto: the number whose exchanges cost the least (docs/parallel.md)."""
    memory_gb: Positive | None = None
    """Memory in GB (1e9 bytes) that a rank may take in `solve`. Where the states of all samples do
    not fit, the dense form takes samples a portion at a time and the Gram form layers, and makes
    anew what it has dropped; what `--out` writes at the end, states and adjoints among it, comes on
    top. Default: no limit, but the Gram form keeps 8 GB of states at most. For newton, lbfgs and
    gradient."""
    nested: CountOrZero = 0
    """Coarser meshes to solve on first: cells and layers are halved so many times (those of a mesh
    file are kept, its layers halved), the coarsest is solved from the initial guess, and every
    solution is the next mesh's guess."""


class Critical(Section):
    """`fem-dnn critical`: the search for distinct critical points.

    Newton's method with deflation, from `solver.initial` and from random starts, until the
    gradient meets `solver.rtol` or `solver.atol`; the rest of `solver` but `max_iterations` does
    not count. Not for controls with bounds.
    """

    points: Count = 5
    """Stop after this many distinct points."""
    starts: CountOrZero = 10
    """Random starts besides the initial one."""
    seed: Seed = 0
    """Seed of the first random start; the others have the next ones."""
    scale: Positive = 1.0
    """Their standard deviation, and the size of controls that the search expects."""
    distance: Positive = 1e-4
    """Points closer than this in L2, relative, are the same."""


class PathFollowing(Section):
    """`fem-dnn path`: critical points along a parameter."""

    parameter: str = "regularization.kernel"
    """The number of the case that varies."""
    start: float = 1e-1
    """Its first value."""
    stop: float = 1e-3
    """Its last value."""
    max_points: Count = 200
    """Points to compute at the most."""
    branch_switching: bool = True
    """Follow the branches that cross at branch points too."""

    @model_validator(mode="after")
    def _goes_somewhere(self) -> Self:
        if self.start == self.stop:
            raise bad(f"{self.stop} is also path.start", "another value", "stop")
        return self


class Value(Section):
    """`fem-dnn value`: the value functional, for at most 3 state dimensions."""

    box: Annotated[tuple[Pair, ...], Field(strict=False, min_length=1, max_length=3)] | None = None
    """[low, high] per state dimension: sample after sample, in each node after node. Default: holds
    the optimal trajectory with room."""
    cells: Annotated[int, Field(ge=2, le=100_000)] = 200
    """Per dimension, on the finer of two grids; the coarser one has half."""
    feedback: bool = True
    """Also run the closed loop."""

    @model_validator(mode="after")
    def _nonempty_box(self) -> Self:
        for low, high in self.box or ():
            if not low < high:
                raise bad(f"[{low}, {high}] is empty", "[low, high] with low < high", "box")
        return self
