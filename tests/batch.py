"""Run several command lines one after the other in this process; JSON of the outcomes to stdout.

Started by `program.batch` under mpirun. Every command goes through `fem_dnn.cli.main`, as if typed;
an outcome says, for every rank, what it printed and the status it would have ended with.
"""

import contextlib
import dataclasses
import json
import sys
import time
from pathlib import Path

from mpi4py import MPI
from program import here, without_pictures

asked = json.loads(sys.argv[1])
with contextlib.nullcontext() if asked["pictures"] else without_pictures():
    outcomes = [
        MPI.COMM_WORLD.gather(dataclasses.asdict(here(*arguments, folder=Path.cwd())))
        for arguments in asked["commands"]
    ]
if MPI.COMM_WORLD.rank == 0:
    print(json.dumps(outcomes), flush=True)
    time.sleep(0.5)  # mpirun may drop what a rank prints just before it ends
