"""Compiling at first use: kept, made anew where broken, done without where that is impossible."""

import ctypes
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

from fem_dnn import doctor
from fem_dnn.native import library
from fem_dnn.native.library import NotCompiled

find = library._found.__wrapped__
needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None, reason="there is no C compiler to be tried"
)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache folder, and options that take little time."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    quick = tuple(option for option in library.OPTIONS if option != "-O3")
    monkeypatch.setattr(library, "OPTIONS", quick)
    return tmp_path


def never(*_: object) -> Path:
    raise AssertionError("compiled again")


@needs_compiler
def test_it_is_compiled_once(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(find(), ctypes.CDLL)
    kept = {path.suffix for path in (fresh / "fem-dnn").iterdir()}
    assert kept == {".so", ""}  # beside the lock nothing else is left
    monkeypatch.setattr(library, "_compiled", never)
    assert isinstance(find(), ctypes.CDLL)
    # Other options make another library.
    monkeypatch.setattr(library, "OPTIONS", (*library.OPTIONS, "-g"))
    with pytest.raises(AssertionError, match="compiled again"):
        find()


@needs_compiler
def test_what_is_broken_is_replaced(fresh: Path) -> None:
    name = f"sweeps-{library._key(library._commands()[0])}.so"
    (fresh / "fem-dnn" / "left-by-a-process-that-was-killed").mkdir(parents=True)
    (fresh / "fem-dnn" / name).write_text("half a library")
    assert isinstance(find(), ctypes.CDLL)
    assert (fresh / "fem-dnn" / name).stat().st_size > 1000


@needs_compiler
def test_a_folder_that_cannot_be_written_to_is_done_without(fresh: Path) -> None:
    (fresh / "fem-dnn").write_text("in the way")
    assert isinstance(find(), ctypes.CDLL)


def script(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


@needs_compiler
def test_a_compiler_keeps_its_name_and_its_words(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ccache wants: called by a link of a compiler's name, or before the compiler."""
    by_name = script(fresh / "wrapper", 'case "$0" in *-cc) exec cc "$@";; esac', "exit 1")
    (fresh / "cached-cc").symlink_to(by_name)
    before = script(fresh / "before", '[ "$1" = cc ] && exec "$@"')
    for chosen in (str(fresh / "cached-cc"), f"{before} cc", f"{before} cc '-DUNUSED=\"b c\"'"):
        monkeypatch.setenv("CC", chosen)
        assert isinstance(find(), ctypes.CDLL)
    assert len([*(fresh / "fem-dnn").glob("*.so")]) == 3


@needs_compiler
def test_the_next_compiler_is_tried(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for broken in ("false", str(script(fresh / "no-program", "").resolve())):
        monkeypatch.setattr(sysconfig, "get_config_var", lambda _, broken=broken: broken)
        assert isinstance(find(), ctypes.CDLL)
    with monkeypatch.context() as patched:  # nor is the broken one tried when there is a library
        patched.setattr(library, "_compiled", never)
        assert isinstance(find(), ctypes.CDLL)


ONE_OF_SEVERAL = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("library", sys.argv[1])
library = importlib.util.module_from_spec(spec)
spec.loader.exec_module(library)
print("ready", flush=True)
sys.stdin.readline()
print(library.why_not(), flush=True)
"""


@needs_compiler
@pytest.mark.parametrize("fails", [False, True])
def test_of_processes_that_start_together_one_compiles(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """The others wait; where it fails all have tried and say why."""
    pytest.importorskip("fcntl")
    end = "exit 1" if fails else 'exec cc "$@" -O0'
    slow = script(fresh / "slow-cc", f"echo >> {fresh}/calls", "sleep 0.3", end)
    monkeypatch.setenv("CC", str(slow))
    command = [sys.executable, "-c", ONE_OF_SEVERAL, str(library.__file__)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60)[0].strip() for process in processes]
    calls = len((fresh / "calls").read_text())
    if fails:
        assert all("slow-cc fails" in reason for reason in told)
        assert calls == 2 * len(library.TUNED)
    else:
        assert told == ["None", "None"]
        assert calls == 1


@needs_compiler
def test_of_a_team_of_threads_one_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, library_of = [], library._library

    def noted(commands: Sequence[library.Command]) -> ctypes.CDLL:
        calls.append(commands)
        time.sleep(0.1)
        return library_of(commands)

    monkeypatch.setattr(library, "_library", noted)
    monkeypatch.setattr(library, "_found", cache(find))
    with ThreadPoolExecutor(3) as pool:
        found = [each.result() for each in [pool.submit(library.library) for _ in range(3)]]
    assert all(one is found[0] for one in found)
    assert len(calls) == 1


@needs_compiler
def test_without_locks_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "fcntl", None)
    assert isinstance(find(), ctypes.CDLL)


@pytest.mark.parametrize(
    ("compiler", "reason"), [("no-such-compiler", "no-such-compiler"), ("false", "fails")]
)
def test_without_a_compiler_there_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, compiler: str, reason: str
) -> None:
    monkeypatch.setenv("CC", compiler)
    found = find()
    assert isinstance(found, NotCompiled)
    assert reason in str(found)


def test_the_doctor_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "why_not", lambda: "no C compiler found")
    (finding,) = [found for found in doctor._optional_parts() if found.name == "sweeps in C"]
    assert finding.verdict is doctor.Verdict.ABSENT
    assert finding.value == "absent: no C compiler found"
