"""The program as people run it: by its command line, in a process of its own or in the tests'."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from fem_dnn import cli, reporting

MODULE = [sys.executable, "-m", "fem_dnn"]

ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join(
        [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    ).rstrip(os.pathsep),
    # Ranks that wait for each other leave the cores to those that work; 3 ranks fit on 2 cores.
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}

SECONDS = 120
"""After so long a run counts as hung; under mpirun it ends by itself a little earlier."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as strict JSON: NaN and Infinity are none."""
        return json.loads(self.out, parse_constant=lambda name: 1 / 0)


def mpirun(ranks: int) -> list[str]:
    return ["mpirun", "-n", str(ranks)] if ranks > 1 else []


def start(*arguments: str | Path, ranks: int = 1, folder: Path) -> subprocess.Popen[str]:
    """Start the program in a folder and do not wait for it."""
    return subprocess.Popen(
        [*mpirun(ranks), *MODULE, *map(str, arguments)],
        cwd=folder,
        env=ENVIRONMENT,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def run(*arguments: str | Path, ranks: int = 1, folder: Path) -> Outcome:
    """Run the program in a folder."""
    process = start(*arguments, ranks=ranks, folder=folder)
    try:
        out, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()
        out, err = process.communicate()
        raise AssertionError(f"hung: {arguments}\n{out}\n{err}") from None
    return Outcome(process.returncode, out, err)


def here(*arguments: str | Path, folder: Path) -> Outcome:
    """Run the program in a folder, in this process: to start one takes longer than most cases.

    The streams are those of the process (file descriptors), so that what PETSc or a child prints
    is seen as well. Signals, closed pipes and what PETSc itself reports need `run`.
    """
    with (
        mock.patch.object(sys, "argv", ["fem-dnn", *map(str, arguments)]),
        mock.patch.dict(os.environ),
        contextlib.chdir(folder),
        _signal_handlers_kept(),
        _streams() as read,
    ):
        try:
            cli.main()
        except SystemExit as end:
            status = end.code
        out, err = read()
    assert isinstance(status, int)
    return Outcome(status, out, err)


@contextlib.contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """The program's end with the run."""
    numbers = signal.SIGINT, signal.SIGTERM
    kept = [signal.getsignal(number) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, kept, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def _streams() -> Iterator[Any]:
    """Standard output and error go into files; yields what reads these."""
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2)]
        for number, file in zip((1, 2), files, strict=True):
            kept = os.dup(number)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, number)
            os.dup2(file.fileno(), number)
        out, err = (stack.enter_context(os.fdopen(n, "w", closefd=False)) for n in (1, 2))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))

        def read() -> list[str]:
            out.flush()
            err.flush()
            for file in files:
                file.seek(0)
            return [file.read() for file in files]

        try:
            yield read
        finally:
            if reporting._stdout != 1:  # of `--json -`
                os.close(reporting._stdout)
                reporting._stdout = 1


def without_pictures() -> Any:
    """The standard pictures of `--out` are not drawn: for those who only look at its arrays.

    They take longer than most tests' cases; `test_pictures` and the demos look at them.
    """
    return mock.patch("fem_dnn.pictures.standard_pictures", lambda *_, **__: None)


def batch(
    commands: Sequence[Sequence[str | Path]],
    *,
    ranks: int = 1,
    folder: Path,
    pictures: bool = True,
) -> list[Any]:
    """Run many commands one after the other: here, or in one process per rank for several.

    Args:
        commands: The words of each.
        ranks: How many.
        folder: Where.
        pictures: Whether `--out` draws its standard pictures.

    Returns:
        For every command the outcomes on all ranks.
    """
    if ranks == 1:
        with contextlib.nullcontext() if pictures else without_pictures():
            return [[here(*command, folder=folder)] for command in commands]
    texts = json.dumps(
        {"pictures": pictures, "commands": [[*map(str, command)] for command in commands]}
    )
    script = Path(__file__).with_name("batch.py")
    finished = subprocess.run(
        [*mpirun(ranks), sys.executable, str(script), texts],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == "", "something was printed behind Python's back"
    return [[Outcome(**one) for one in outcome] for outcome in json.loads(finished.stdout)]


def toml(value: Any) -> str:
    """A value in TOML's notation; tables are written inline."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def write_case(path: Path, tables: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write a case file."""
    lines = []
    for section, table in tables.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {toml(value)}" for key, value in table.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def merged(tables: Mapping[str, Any], **sections: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A case with some keys of some sections changed or added."""
    names = [*tables, *(name for name in sections if name not in tables)]
    return {name: {**tables.get(name, {}), **sections.get(name, {})} for name in names}
