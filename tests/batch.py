"""Run several command lines one after the other in this process; JSON of the outcomes to stdout.

Started by `program.batch`, under mpirun too. Every command goes through `fem_dnn.cli.main`, as if
typed; an outcome says, for every rank, what it printed and the status it would have ended with.
"""

import contextlib
import io
import json
import sys
import time
from unittest import mock

from mpi4py import MPI

from fem_dnn import cli


def outcome(arguments: list[str]) -> dict[str, object]:
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["fem-dnn", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
            status: object = "returned"
        except SystemExit as end:
            status = end.code
    return {"status": status, "out": out.getvalue(), "err": err.getvalue()}


commands = json.loads(sys.argv[1])
outcomes = [MPI.COMM_WORLD.gather(outcome(arguments)) for arguments in commands]
if MPI.COMM_WORLD.rank == 0:
    print(json.dumps(outcomes), flush=True)
    time.sleep(0.5)  # mpirun may drop what a rank prints just before it ends
