"""The C sources compiled for this processor, at first use, and kept in the user's cache folder.

A library's name is a hash of the sources, the compiler and the processor. It is made in a folder of
its own and renamed, so any number of processes may do that at once, and one that is stopped leaves
nothing that another could take for a library. Of several that start together one does it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TextIO

try:
    import fcntl
except ImportError:  # not every platform has it
    fcntl = None  # type: ignore[assignment]

Command = tuple[str, ...]

SOURCES = Path(__file__).parent
"""Folder of the C sources."""

OPTIONS = (
    *("-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared"),
    *("-DREAL=double", "-DWITH_ACTIVATIONS"),
)
"""None of them changes what is done with infinities and with what is not a number."""

TUNED = ("-march=native", "-mcpu=native", None)
"""How compilers are told to use all that this processor has; the first that is understood."""

SECONDS = 120.0
"""After which a compiler, or waiting for another process' one, is given up."""


class NotCompiled(Exception):
    """Why there is no library."""


_thread = threading.Lock()


def library() -> ctypes.CDLL | NotCompiled:
    """The library; where there is none, why."""
    with _thread:  # the first of a team of threads compiles, the others wait
        return _found()


@cache
def _found() -> ctypes.CDLL | NotCompiled:
    try:
        return _library(_commands())
    except NotCompiled as reason:
        return reason


def function(code: ctypes.CDLL, name: str, arguments: Sequence[Any]) -> Callable[..., None]:
    """A function of the library, which returns nothing, told the types of its arguments."""
    found: Any = getattr(code, name)
    found.argtypes, found.restype = arguments, None
    called: Callable[..., None] = found
    return called


def why_not() -> str | None:
    """Why sweeps are not compiled here; None if they are."""
    found = library()
    return str(found) if isinstance(found, NotCompiled) else None


def _commands() -> list[Command]:
    """The C compilers that may be tried: the environment variable CC, else Python's and usual ones.

    What a command is called is kept: some programs (ccache) go by the name of the link to them.
    """
    chosen = os.environ.get("CC", "").strip()
    commands = []
    for told in [chosen] if chosen else [sysconfig.get_config_var("CC"), "cc", "gcc", "clang"]:
        try:
            name, *words = shlex.split(told or "")
        except ValueError:  # nothing, or a quotation that does not end
            continue
        path = shutil.which(name)
        if path is not None and (path, *words) not in commands:
            commands.append((path, *words))
    if not commands:
        raise NotCompiled(f"no C compiler found{f' under CC={chosen}' if chosen else ''}")
    return commands


def _library(commands: Sequence[Command]) -> ctypes.CDLL:
    cache_folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(cache_folder) / "fem-dnn"
    kept = {command: folder / f"sweeps-{_key(command)}.so" for command in commands}
    if (known := _loaded(kept.values())) is not None:
        return known
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with _turn(folder):
            if (known := _loaded(kept.values())) is not None:
                return known
            with tempfile.TemporaryDirectory(dir=folder) as room:
                made, command = _made(commands, Path(room))
                os.replace(made, kept[command])
        return ctypes.CDLL(str(kept[command]))
    # Nothing can be kept, or no program may be started from there: for this process alone, then.
    try:
        with tempfile.TemporaryDirectory() as room:
            return ctypes.CDLL(str(_made(commands, Path(room))[0]))
    except OSError as problem:
        raise NotCompiled(str(problem)) from None


def _loaded(libraries: Iterable[Path]) -> ctypes.CDLL | None:
    """The first of some libraries that is there and not broken."""
    for path in libraries:
        with suppress(OSError):
            return ctypes.CDLL(str(path))
    return None


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """While the first process is here, others wait, and then go on at the same time.

    If the first has failed or died they compile each for itself, which takes no longer than for
    one. The lock goes with the process that holds it; where there are no locks nobody waits.
    """
    with open(folder / "lock", "w") as file:
        end, waited = time.monotonic() + SECONDS, False
        while not _locked(file) and time.monotonic() < end:
            waited = True
            time.sleep(0.05)
        if waited:
            file.close()
        yield


def _locked(file: TextIO) -> bool:
    """Whether another process does not hold this lock."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _key(command: Command) -> str:
    """A hash of everything on which the library depends."""
    parts = [*command, platform.machine(), _processor(), *OPTIONS]
    for path in filter(None, map(shutil.which, command)):  # ccache and the compiler it starts
        about = os.stat(path)
        parts += [os.path.realpath(path), str(about.st_size), str(about.st_mtime_ns)]
    digest = hashlib.sha256("\n".join(parts).encode())
    for source in sorted(SOURCES.glob("*.[ch]")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:24]


def _processor() -> str:
    """What this processor is and has, as far as the system tells."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return platform.processor()
    # Clock and load change from one moment to the next.
    told = ("model", "cpu family", "flags", "Features", "CPU", "isa")
    return "\n".join(line for line in first.splitlines() if line.startswith(told))


def _made(commands: Sequence[Command], folder: Path) -> tuple[Path, Command]:
    """The sources compiled into a folder by the first compiler that can, and which that is."""
    failures = []
    for command in commands:
        try:
            return _compiled(command, folder), command
        except NotCompiled as reason:
            failures.append(str(reason))
    raise NotCompiled("; ".join(failures))


def _compiled(compiler: Command, folder: Path) -> Path:
    """Compile the sources into a folder."""
    made, name, complaints = folder / "sweeps.so", shlex.join(compiler), ""
    for tuned in TUNED:
        command = [*compiler, *OPTIONS, *([tuned] if tuned else []), "-o", str(made)]
        try:
            done = subprocess.run(
                [*command, *map(str, sorted(SOURCES.glob("*.c")))],
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=SECONDS,
                text=True,
                errors="replace",
            )
        except subprocess.TimeoutExpired:
            raise NotCompiled(f"{name} takes over {SECONDS:.0f} seconds") from None
        except OSError as problem:
            raise NotCompiled(f"{name} cannot be started: {problem.strerror}") from None
        if done.returncode == 0 and made.exists():
            return made
        complaints = done.stderr.strip()
    last = complaints.splitlines()[-1] if complaints else "says nothing"
    raise NotCompiled(f"{name} fails: {last}")
