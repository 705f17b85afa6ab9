"""The command line: arguments in, exit status out. The work is in `fem_dnn.commands`.

Exit status: 0 solved as asked, 1 not converged, 2 bad input (one line). Under MPI only rank 0
prints, and a failure on any rank ends all ranks.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fem_dnn._version import __version__
from fem_dnn.endings import end_well, say
from fem_dnn.errors import BadInput
from fem_dnn.invocation import (
    CaseFile,
    JsonFile,
    OutDir,
    Overrides,
    Quiet,
    petsc_arguments,
    run_on_case,
)
from fem_dnn.reporting import (
    branches_table,
    checks_table,
    comparison_table,
    nodes_table,
    points_table,
    value_lines,
    write_result,
)

if TYPE_CHECKING:
    # dolfinx, PETSc and matplotlib take seconds to import: commands do it when they need them.

    from fem_dnn.case import Case
    from fem_dnn.request import Request

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Finite-element variational solver for deep neural networks of infinite width and depth.",
    epilog="PETSc options follow after --, e.g. fem-dnn solve case.toml -- -snes_monitor",
)

PETSC_COMMANDS = ("solve", "check", "critical", "path", "value")
"""Commands that PETSc solvers work for."""


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Finite-element variational solver for deep neural networks of infinite width and depth."""
    if petsc_arguments and context.invoked_subcommand not in PETSC_COMMANDS:
        wrong = f"{' '.join(petsc_arguments)}: PETSc options have no effect here"
        raise BadInput(None, "--", wrong, f"after fem-dnn {', '.join(PETSC_COMMANDS)}")
    if version:
        say(f"fem-dnn {__version__}")
    elif context.invoked_subcommand is None:
        say(context.get_help())


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

    run_on_case(commands.forward, case, json, out, set_, quiet)


@app.command()
def solve(
    case: CaseFile,
    json: JsonFile = None,
    out: OutDir = None,
    set_: Overrides = None,
    adapt: Annotated[
        float | None,
        typer.Option(
            "--adapt",
            metavar="TOLERANCE",
            help="Refine the mesh until the objective's estimated error is below this.",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            metavar="FILE",
            help="Checkpoints; default: DIR/checkpoint.npz of --out.",
        ),
    ] = None,
    checkpoint_every: Annotated[
        float | None,
        typer.Option("--checkpoint-every", metavar="SECONDS", help="How often; default: 60."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint, where there is one.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Solve the learning problem."""

    def work(read: Case, request: Request) -> dict[str, Any]:
        request = replace(
            request, checkpoint=checkpoint, checkpoint_every=checkpoint_every, resume=resume
        )
        if adapt is None:
            from fem_dnn import commands

            return commands.solve(read, request).result
        from fem_dnn import adaptivity

        return adaptivity.solve_adaptively(read, adapt, request).run.result

    run_on_case(work, case, json, out, set_, quiet)


@app.command()
def check(
    case: CaseFile,
    json: JsonFile = None,
    out: OutDir = None,
    set_: Overrides = None,
    quiet: Quiet = False,
) -> None:
    """Solve, then test the theory on the result; exits 0 whatever the checks find."""
    from fem_dnn import checking

    run_on_case(
        checking.check,
        case,
        json,
        out,
        set_,
        quiet,
        table=checks_table,
        good=checking.state_was_solved,
    )


@app.command()
def critical(
    case: CaseFile,
    json: JsonFile = None,
    out: OutDir = None,
    set_: Overrides = None,
    quiet: Quiet = False,
) -> None:
    """Find distinct critical points, minimisers and saddles, and classify them."""
    from fem_dnn import searching

    run_on_case(
        searching.critical,
        case,
        json,
        out,
        set_,
        quiet,
        table=points_table,
        good=searching.any_point,
    )


@app.command()
def path(
    case: CaseFile,
    json: JsonFile = None,
    out: OutDir = None,
    set_: Overrides = None,
    quiet: Quiet = False,
) -> None:
    """Follow critical points along a number of the case: branches, folds, branch points."""
    from fem_dnn import path_following

    run_on_case(
        lambda read, request: path_following.path(read, request).result,
        case,
        json,
        out,
        set_,
        quiet,
        table=branches_table,
    )


@app.command()
def value(
    case: CaseFile,
    json: JsonFile = None,
    out: OutDir = None,
    set_: Overrides = None,
    quiet: Quiet = False,
) -> None:
    """Value function and feedback by Hamilton-Jacobi-Bellman: samples x nodes <= 3."""
    from fem_dnn import valuing

    run_on_case(valuing.value, case, json, out, set_, quiet, lines=value_lines)


@app.command()
def compare(
    case: CaseFile,
    methods: Annotated[
        str | None,
        typer.Option("--methods", metavar="A,B,...", help="Default: all of the program's."),
    ] = None,
    json: JsonFile = None,
    out: OutDir = None,
    set_: Overrides = None,
    quiet: Quiet = False,
) -> None:
    """Solve the learning problem by several methods and compare their work."""
    from fem_dnn import comparison
    from fem_dnn.solvers import METHODS

    names = list(METHODS) if methods is None else [name.strip() for name in methods.split(",")]
    comparison.require_methods(names)
    run_on_case(
        lambda read, request: comparison.compare(read, request, methods=names),
        case,
        json,
        out,
        set_,
        quiet,
        lines=comparison_table,
    )


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
    from fem_dnn import prediction

    run_on_case(
        lambda read, request: prediction.predict(result_dir, read, request),
        case,
        json,
        out,
        set_,
        quiet,
    )


@app.command()
def transfer(
    result_dir: Annotated[
        Path, typer.Argument(metavar="RESULT_DIR", help="Folder that `solve --out` has written.")
    ],
    case: CaseFile,
    json: JsonFile = None,
    out: OutDir = None,
    set_: Overrides = None,
    quiet: Quiet = False,
) -> None:
    """Project a trained network onto a case's mesh and scheme, and run it on its data."""
    from fem_dnn import network_transfer

    run_on_case(
        lambda read, request: network_transfer.transfer(result_dir, read, request),
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

    run_on_case(commands.nodes, case, json, out, set_, quiet, lines=nodes_table)


@app.command()
def validate(case: CaseFile, set_: Overrides = None, quiet: Quiet = False) -> None:
    """Check a case file, its data included, without solving, and say which commands accept it."""
    from mpi4py import MPI

    from fem_dnn.acceptance import accepting_commands
    from fem_dnn.assembly import assemble
    from fem_dnn.case import read_case_collectively

    model = assemble(read_case_collectively(MPI.COMM_WORLD, case, set_ or ()), MPI.COMM_WORLD)
    accepting, refusing = accepting_commands(model)
    if MPI.COMM_WORLD.rank == 0 and not quiet:
        space, levels = model.network.space, model.network.levels
        samples = len(model.ingredients.train.inputs)
        print(
            f"{case}: good for {', '.join(accepting)} "
            f"({samples} samples, {space.n_nodes} width nodes, {levels.layers} layers)"
        )
        for line in refusing:
            print(line)


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

    from fem_dnn.case import template
    from fem_dnn.collective import on_root
    from fem_dnn.files import write_whole

    path = out or Path(f"{dataset}.toml")

    def write() -> None:
        text = template(dataset)
        if path.exists():
            raise BadInput(str(path), None, "exists already", "another name with --out FILE")
        try:
            write_whole(path, lambda file: file.write(text.encode()))
        except OSError as problem:
            raise BadInput(str(path), None, f"cannot be written ({problem.strerror})") from None

    on_root(MPI.COMM_WORLD, write)
    say(f"{path} written; try: fem-dnn solve {path} --out {path.stem}")


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
            say(f"{known:12} {title}")
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
        write_result(json, report.as_dict())


def main() -> None:
    """Entry point of `fem-dnn`."""
    arguments = sys.argv[1:]
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    petsc_arguments[:] = arguments[cut + 1 :]
    arguments = arguments[:cut]
    command = typer.main.get_command(app)
    end_well(lambda: command.main(arguments, prog_name="fem-dnn", standalone_mode=False))
