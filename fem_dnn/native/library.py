"""The C sources compiled for this processor, at first use, and kept in the user's cache folder.

A library's name is a hash of the sources, the compiler and the processor. It is made in a folder of
its own and renamed, so any number of processes may do that at once, and one that is stopped leaves
nothing that another could take for a library.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sysconfig
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

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
"""After which a compiler is given up."""


class NotCompiled(Exception):
    """Why there is no library."""


@cache
def library() -> ctypes.CDLL | NotCompiled:
    """The library; where there is none, why."""
    try:
        return _library(_compiler())
    except NotCompiled as reason:
        return reason


def why_not() -> str | None:
    """Why sweeps are not compiled here; None if they are."""
    found = library()
    return str(found) if isinstance(found, NotCompiled) else None


def _compiler() -> str:
    """The C compiler: that of the environment variable CC, else Python's own or a usual one."""
    chosen = os.environ.get("CC")
    for command in [chosen] if chosen else [sysconfig.get_config_var("CC"), "cc", "gcc", "clang"]:
        path = shutil.which(command.split()[0]) if command and command.strip() else None
        if path is not None:
            return os.path.realpath(path)
    raise NotCompiled(f"no C compiler found{f' under CC={chosen}' if chosen else ''}")


def _library(compiler: str) -> ctypes.CDLL:
    cache_folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    kept = Path(cache_folder) / "fem-dnn" / f"sweeps-{_key(compiler)}.so"
    with suppress(OSError):  # it is not there yet, or broken
        return ctypes.CDLL(str(kept))
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            os.replace(_compiled(compiler, Path(folder)), kept)
        return ctypes.CDLL(str(kept))
    # Nothing can be kept, or no program may be started from there: for this process alone, then.
    try:
        with tempfile.TemporaryDirectory() as folder:
            return ctypes.CDLL(str(_compiled(compiler, Path(folder))))
    except OSError as problem:
        raise NotCompiled(str(problem)) from None


def _key(compiler: str) -> str:
    """A hash of everything on which the library depends."""
    about = os.stat(compiler)
    parts = [compiler, str(about.st_size), str(about.st_mtime_ns), platform.machine(), _processor()]
    digest = hashlib.sha256("\n".join([*parts, *OPTIONS]).encode())
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


def _compiled(compiler: str, folder: Path) -> Path:
    """Compile the sources into a folder."""
    made, complaints = folder / "sweeps.so", ""
    for tuned in TUNED:
        command = [compiler, *OPTIONS, *([tuned] if tuned else []), "-o", str(made)]
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
            raise NotCompiled(f"{compiler} takes over {SECONDS:.0f} seconds") from None
        if done.returncode == 0 and made.exists():
            return made
        complaints = done.stderr.strip()
    last = complaints.splitlines()[-1] if complaints else "says nothing"
    raise NotCompiled(f"{compiler} fails: {last}")
