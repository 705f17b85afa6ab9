"""The command line: arguments in, exit status out. The work is in `fem_dnn.commands`.

Exit status: 0 solved as asked, 1 not converged, 2 bad input (one line). Under MPI only rank 0
prints, and a failure on any rank ends all ranks.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import click
import typer

from fem_dnn._version import __version__
from fem_dnn.errors import BadInput, FemDnnError

if TYPE_CHECKING:
    # dolfinx, PETSc and matplotlib take seconds to import: commands do it when they need them.
    from fem_dnn.case import Case
    from fem_dnn.commands import Request

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Finite-element variational solver for deep neural networks of infinite width and depth.",
    epilog="PETSc options follow after --, e.g. fem-dnn solve case.toml -- -snes_monitor",
)

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

PETSC_COMMANDS = ("solve",)
"""Commands that PETSc solvers work for."""

_petsc_arguments: list[str] = []


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


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Finite-element variational solver for deep neural networks of infinite width and depth."""
    if _petsc_arguments and context.invoked_subcommand not in PETSC_COMMANDS:
        wrong = f"{' '.join(_petsc_arguments)}: PETSc options have no effect here"
        raise BadInput(None, "--", wrong, f"after fem-dnn {', '.join(PETSC_COMMANDS)}")
    if version:
        _say(f"fem-dnn {__version__}")
    elif context.invoked_subcommand is None:
        _say(context.get_help())


@app.command()
def forward(
    case: CaseFile,
    json: JsonFile = None,
    out: OutDir = None,
    set_: Overrides = None,
    quiet: Quiet = False,
) -> None:
    """Solve the forward problem for given controls."""
    from fem_dnn import commands

    _run(commands.forward, case, json, out, set_, quiet)


@app.command()
def solve(
    case: CaseFile,
    json: JsonFile = None,
    out: OutDir = None,
    set_: Overrides = None,
    quiet: Quiet = False,
) -> None:
    """Solve the learning problem."""
    from fem_dnn import commands

    _run(lambda read, request: commands.solve(read, request).result, case, json, out, set_, quiet)


@app.command()
def predict(
    result_dir: Annotated[
        Path, typer.Argument(metavar="RESULT_DIR", help="Folder that `solve --out` has written.")
    ],
    case: CaseFile,
    json: JsonFile = None,
    out: OutDir = None,
    set_: Overrides = None,
    quiet: Quiet = False,
) -> None:
    """Run a trained network on the inputs of a case."""
    from fem_dnn import commands

    _run(
        lambda read, request: commands.predict(result_dir, read, request),
        case,
        json,
        out,
        set_,
        quiet,
    )


@app.command()
def nodes(
    case: CaseFile,
    json: JsonFile = None,
    out: OutDir = None,
    set_: Overrides = None,
    quiet: Quiet = False,
) -> None:
    """Write the width nodes' coordinates and weights, for making input arrays."""
    from fem_dnn import commands

    _run(commands.nodes, case, json, out, set_, quiet, summary=_nodes_table)


@app.command()
def validate(case: CaseFile, set_: Overrides = None, quiet: Quiet = False) -> None:
    """Check a case file, its data included, without solving."""
    from mpi4py import MPI

    from fem_dnn.assembly import assemble
    from fem_dnn.case import read_case_collectively

    model = assemble(read_case_collectively(MPI.COMM_WORLD, case, set_ or ()), MPI.COMM_WORLD)
    if MPI.COMM_WORLD.rank == 0 and not quiet:
        space, levels = model.network.space, model.network.levels
        samples = len(model.ingredients.train.inputs)
        print(
            f"{case}: good ({samples} samples, {space.n_nodes} width nodes, {levels.layers} layers)"
        )


@app.command()
def init(
    dataset: Annotated[
        str, typer.Argument(metavar="[DATASET]", help="Data set to start from.")
    ] = "circles",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Default: DATASET.toml.")
    ] = None,
) -> None:
    """Write a commented case file."""
    from mpi4py import MPI

    from fem_dnn.case import on_root, template

    path = out or Path(f"{dataset}.toml")

    def write() -> None:
        text = template(dataset)
        if path.exists():
            raise BadInput(str(path), None, "exists already", "another name with --out FILE")
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as problem:
            raise BadInput(str(path), None, f"cannot be written ({problem.strerror})") from None

    on_root(MPI.COMM_WORLD, write)
    _say(f"{path} written; try: fem-dnn solve {path} --out {path.stem}")


@app.command()
def demo(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The demo.")] = None,
    out: OutDir = None,
    quiet: Quiet = False,
) -> None:
    """List the demos, or run one."""
    from fem_dnn import demos

    if name is None:
        for known, title in demos.available().items():
            _say(f"{known:12} {title}")
    else:
        demos.run(name, out, quiet=quiet)


@app.command()
def doctor(json: JsonFile = None) -> None:
    """Say what the environment offers: versions, BLAS and its rate, MPI, optional parts."""
    from mpi4py import MPI

    from fem_dnn import doctor as examination

    report = examination.examine()
    if MPI.COMM_WORLD.rank:
        return
    if json != "-":
        print(examination.render(report))
    if json is not None:
        _write_result(json, report.as_dict())


Work = Callable[["Case", "Request"], dict[str, Any]]


def _run(
    work: Work,
    case_file: Path,
    json: str | None,
    out: Path | None,
    overrides: list[str] | None,
    quiet: bool,
    summary: Callable[[dict[str, Any]], str] | None = None,
) -> None:
    """Read the case, do the work, write and print the result; exit 1 if not converged."""
    from mpi4py import MPI
    from rich.console import Console

    from fem_dnn.case import on_root, read_case_collectively
    from fem_dnn.commands import Request

    comm = MPI.COMM_WORLD
    options = petsc_options(_petsc_arguments)
    case = read_case_collectively(comm, case_file, overrides or ())
    if json not in (None, "-"):
        on_root(comm, lambda: _require_writable(Path(str(json))))
    if json == "-":
        _reserve_stdout()
    console = None
    if comm.rank == 0 and not quiet:
        console = Console(stderr=json == "-", soft_wrap=True)
    result = work(case, Request(out, options, console, comm))
    if json is not None:
        on_root(comm, lambda: _write_result(json, result))
    if console is not None and (json != "-" or summary is None):
        # With --json - the console is standard error.
        console.print((summary or _summary)(result), highlight=False, markup=False)
        if out is not None:
            console.print(f"written to {out}", highlight=False, markup=False)
    if not result.get("converged", True):
        raise typer.Exit(1)


def _require_writable(path: Path) -> None:
    """Complain about the result's file before the work, not after it."""
    if path.is_dir():
        raise BadInput(None, "--json", f"{path} is a folder", "a file, or - for standard output")
    if not path.parent.is_dir():
        raise BadInput(None, "--json", f"{path.parent} is not a folder", "an existing folder")


_stdout = 1
"""File descriptor of the standard output that the result goes to."""


def _reserve_stdout() -> None:
    """Keep standard output for the result: whatever else is printed there goes to standard error.

    Also what PETSc prints (-snes_monitor), which knows nothing of Python's sys.stdout.
    """
    global _stdout
    sys.stdout.flush()
    _stdout = os.dup(1)
    os.dup2(2, 1)


def _write_result(json: str, result: dict[str, Any]) -> None:
    from fem_dnn.results import as_json, write_json

    if json == "-":
        with os.fdopen(_stdout, "w", closefd=False) as stdout:
            stdout.write(as_json(result))
        return
    try:
        write_json(Path(json), result)
    except OSError as problem:
        raise BadInput(None, "--json", f"{json} cannot be written ({problem.strerror})") from None


def _summary(result: dict[str, Any]) -> str:
    """The lines that end a run."""
    lines = []
    if "converged" in result:
        word = "converged" if result["converged"] else "NOT CONVERGED"
        lines.append(f"{word}: {result['reason']}")
    if "samples" in result:
        lines.append(f"{result['samples']} samples predicted")
    if "objective" in result:
        parts = f"loss {result['loss']:.10g}, regularization {result['regularization']:.10g}"
        lines.append(f"objective {result['objective']:.12g} ({parts})")
    for name in ("accuracy", "train_accuracy", "test_accuracy"):
        if name in result:
            lines.append(f"{name.replace('_', ' ')} {result[name]:.2%}")
    if "iterations" in result:
        lines.append(
            f"{result['iterations']} iterations, {result['state_solves']} state solves, "
            f"{result['hessian_solves']} Hessian products, {result['seconds']:.2f} s"
        )
    return "\n".join(lines)


def _nodes_table(result: dict[str, Any]) -> str:
    """The nodes as comma-separated text."""
    head = ",".join([*(f"x{i}" for i in range(len(result["x"][0]))), "weight"])
    rows = (
        ",".join(map(repr, [*x, w]))
        for x, w in zip(result["x"], result["node_weights"], strict=True)
    )
    return "\n".join([head, *rows])


def main() -> None:
    """Entry point of `fem-dnn`."""
    global _petsc_arguments
    arguments = sys.argv[1:]
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    arguments, _petsc_arguments = arguments[:cut], arguments[cut + 1 :]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    try:
        status = typer.main.get_command(app).main(
            arguments, prog_name="fem-dnn", standalone_mode=False
        )
    except click.ClickException as problem:
        _leave(f"fem-dnn: {problem.format_message()}", 2)
    except BadInput as problem:
        _leave(f"fem-dnn: {problem}", 2)
    except FemDnnError as problem:
        _leave(f"fem-dnn: {problem}", 1)
    except _Interrupted:
        _abort("fem-dnn: interrupted; nothing half-written is left", 130)
    except Exception as problem:
        if os.environ.get("FEM_DNN_TRACEBACK"):
            traceback.print_exc()
        _abort(
            f"fem-dnn: internal error: {type(problem).__name__}: {problem}".replace("\n", " ")
            + " (FEM_DNN_TRACEBACK=1 shows where; please report it)",
            70,
        )
    sys.exit(status if isinstance(status, int) else 0)


class _Interrupted(BaseException):
    """A signal asks the program to end. On KeyboardInterrupt typer would end it in silence."""


def _interrupted(_signal: int, _frame: object) -> NoReturn:
    raise _Interrupted


def _rank() -> int:
    """Rank without importing mpi4py where nothing has done so yet: 0 then."""
    if "mpi4py.MPI" not in sys.modules:
        return int(os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK", "0")))
    from mpi4py import MPI

    return MPI.COMM_WORLD.rank


def _say(text: str) -> None:
    """Print from rank 0."""
    if _rank() == 0:
        print(text)


def _leave(message: str, status: int) -> NoReturn:
    """End with a message that all ranks have come to alike: rank 0 says it."""
    if _rank() == 0:
        print(message, file=sys.stderr, flush=True)
    sys.exit(status)


def _abort(message: str, status: int) -> NoReturn:
    """End all ranks, whatever they wait for, with one message."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # mpirun may send several
    parallel = "mpi4py.MPI" in sys.modules
    if parallel:
        from mpi4py import MPI

        if MPI.COMM_WORLD.size > 1:
            # If rank 0 has met the same failure, let it be the one that speaks.
            time.sleep(1.0 if MPI.COMM_WORLD.rank else 0.0)
            print(message, file=sys.stderr, flush=True)
            MPI.COMM_WORLD.Abort(status)
    print(message, file=sys.stderr, flush=True)
    sys.exit(status)
