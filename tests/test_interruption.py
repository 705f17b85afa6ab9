"""Ctrl-C and SIGTERM: the run ends soon, says so once, and leaves nothing half-written."""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from program import start, write_case

pytestmark = pytest.mark.alone

# Quick to say its first word, and not done for minutes: the tolerance is out of reach.
ENDLESS = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.0, "cells": 16},
        "depth": {"length": 4.0, "cells": 8},
    },
    "network": {"depth_scheme": "dg2"},
    "data": {"inputs": ["x[0]", "sin(9*x[0])"], "targets": ["cos(5*x[0])", "x[0]**2"]},
    "regularization": {"kernel": 1e-7, "bias": 1e-7},
    "solver": {"rtol": 0.0, "atol": 0.0, "max_iterations": 1000000},
}

PATIENCE = 15.0
"""Seconds to end in, on a busy machine."""


def wait_for_line(process: subprocess.Popen[str], text: str) -> str:
    """Read standard output up to a line with the text."""
    assert process.stdout is not None
    seen, until = "", time.monotonic() + 60
    while text not in seen:
        ready, _, _ = select.select([process.stdout], [], [], until - time.monotonic())
        assert ready, f"never said {text!r}: {seen}"
        chunk = os.read(process.stdout.fileno(), 4096).decode()
        assert chunk, f"ended before it said {text!r}: {seen}"
        seen += chunk
    return seen


def ranks_in(folder: Path) -> list[int]:
    """Processes of the program in a folder, mpirun itself not among them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        # Processes come and go while one looks.
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if words[1:3] == [b"-m", b"fem_dnn"] and (process / "cwd").resolve() == folder:
                found.append(int(process.name))
    return sorted(found)


@pytest.fixture
def under_way(tmp_path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the endless solve on some ranks and waits until it is under way."""
    processes = []

    def begin(ranks: int) -> subprocess.Popen[str]:
        write_case(tmp_path / "case.toml", ENDLESS)
        arguments = ["solve", "case.toml", "--out", "out", "--json", "result.json"]
        processes.append(start(*arguments, ranks=ranks, folder=tmp_path))
        wait_for_line(processes[0], "|gradient|")
        return processes[0]

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


def messages(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("fem-dnn:")]


MESSAGE = "fem-dnn: interrupted; nothing half-written is left"


def check_nothing_is_left(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["case.toml", "out"]
    assert list((folder / "out").iterdir()) == []
    assert ranks_in(folder) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_interrupted(under_way, tmp_path, number):
    process = under_way(1)
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert err == MESSAGE + "\n"
    assert process.returncode == 130
    check_nothing_is_left(tmp_path)


@pytest.mark.parametrize("rank", [0, 1])
def test_one_rank_interrupted(under_way, tmp_path, rank):
    """It takes the others with it, and one of them says why."""
    process = under_way(2)
    pids = ranks_in(tmp_path)
    assert len(pids) == 2
    os.kill(pids[rank], signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE)
    assert messages(err) == [MESSAGE]
    assert "Traceback" not in err
    assert process.returncode not in (0, 1, 2)
    check_nothing_is_left(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_mpirun_interrupted(under_way, tmp_path, number):
    """mpirun passes it on to all ranks, and may no longer pass on what they say."""
    process = under_way(2)
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert len(messages(err)) <= 1
    assert "Traceback" not in err
    assert process.returncode != 0
    check_nothing_is_left(tmp_path)


def test_interrupted_while_it_starts(tmp_path):
    """Imports take a second or so; a signal then is no defect of the program either."""
    write_case(tmp_path / "case.toml", ENDLESS)
    process = start("solve", "case.toml", "--out", "out", folder=tmp_path)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode in (130, -signal.SIGTERM)
    assert "Traceback" not in err
    assert "internal error" not in err
