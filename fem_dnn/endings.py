"""How a run ends: its exit status, one message, and all ranks together."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

import click

from fem_dnn.errors import BadInput, FemDnnError


def end_well(work: Callable[[], object]) -> NoReturn:
    """Do the work and end the process as the contract says.

    Exit status: the work's own if it returns a number, else 0; 1 for an error of the program's
    subject, 2 for bad input, 130 after a signal, 70 for a defect of the program. Where standard
    output is closed early (`| head`) the end is quiet, with status 1.
    """
    # Else PETSc takes a closed pipe for a crash, says so at length and aborts.
    options = os.environ.get("PETSC_OPTIONS", "")
    os.environ["PETSC_OPTIONS"] = f"{options} -no_signal_handler".lstrip()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    try:
        status = work()
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer must not fail once more when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
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


def say(text: str) -> None:
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
