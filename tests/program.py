"""The program as people run it: by its command line, in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def batch(commands: Sequence[Sequence[str | Path]], *, ranks: int = 1, folder: Path) -> list[Any]:
    """Run many commands one after the other in one process per rank, to start up only once.

    Returns:
        For every command the outcomes on all ranks.
    """
    texts = json.dumps([[str(word) for word in command] for command in commands])
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
