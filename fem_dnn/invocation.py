"""What the commands on a case share: their options, and the way from case to exit status."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fem_dnn.reporting import require_writable, reserve_stdout, summary, write_result

if TYPE_CHECKING:
    # dolfinx, PETSc and matplotlib take seconds to import: commands do it when they need them.
    from rich.console import RenderableType

    from fem_dnn.case import Case
    from fem_dnn.request import Request

CaseFile = Annotated[Path, typer.Argument(metavar="CASE.toml", help="The case file.")]
JsonFile = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write the result as JSON; - is standard output."),
]
OutDir = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Folder for arrays, pictures, ParaView files."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a value of the case."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")]

petsc_arguments: list[str] = []
"""What stands after -- on the command line."""

Work = Callable[["Case", "Request"], dict[str, Any]]


def run_on_case(
    work: Work,
    case_file: Path,
    json: str | None,
    out: Path | None,
    overrides: list[str] | None,
    quiet: bool,
    lines: Callable[[dict[str, Any]], str] | None = None,
    table: Callable[[dict[str, Any]], RenderableType] | None = None,
    good: Callable[[dict[str, Any]], bool] = lambda result: result.get("converged", True),
) -> None:
    """Read the case, do the work, write and print the result; exit 1 if it is not good.

    Args:
        work: What to do: the result from the case and what is asked for.
        case_file, json, out, overrides, quiet: The options of these names.
        lines: What to print of the result; default: a summary.
        table: What to print after it.
        good: Whether a result is what was asked for.
    """
    from mpi4py import MPI
    from rich.console import Console

    from fem_dnn.case import read_case_collectively
    from fem_dnn.collective import on_root
    from fem_dnn.request import Request, petsc_options

    comm = MPI.COMM_WORLD
    options = petsc_options(petsc_arguments)
    case = read_case_collectively(comm, case_file, overrides or ())
    if json not in (None, "-"):
        on_root(comm, lambda: require_writable(Path(str(json))))
    if json == "-":
        reserve_stdout()
    console = None
    if comm.rank == 0 and not quiet:
        console = Console(stderr=json == "-", soft_wrap=True)
    result = work(case, Request(out, options, console, comm))
    if json is not None:
        on_root(comm, lambda: write_result(json, result))
    if console is not None and (json != "-" or lines is None):
        # With --json - the console is standard error.
        console.print((lines or summary)(result), highlight=False, markup=False)
        if table is not None:
            console.print(table(result), soft_wrap=False)
        if out is not None:
            console.print(f"written to {out}", highlight=False, markup=False)
    if not good(result):
        raise typer.Exit(1)
