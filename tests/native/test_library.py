"""Compiling at first use: kept, made anew where broken, done without where that is impossible."""

import ctypes
import shutil
from pathlib import Path

import pytest

from fem_dnn import doctor
from fem_dnn.native import library
from fem_dnn.native.library import NotCompiled

find = library.library.__wrapped__
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
    (kept,) = (fresh / "fem-dnn").iterdir()  # nothing else is left
    assert kept.suffix == ".so"
    monkeypatch.setattr(library, "_compiled", never)
    assert isinstance(find(), ctypes.CDLL)
    # Other options make another library.
    monkeypatch.setattr(library, "OPTIONS", (*library.OPTIONS, "-g"))
    with pytest.raises(AssertionError, match="compiled again"):
        find()


@needs_compiler
def test_what_is_broken_is_replaced(fresh: Path) -> None:
    name = f"sweeps-{library._key(library._compiler())}.so"
    (fresh / "fem-dnn" / "left-by-a-process-that-was-killed").mkdir(parents=True)
    (fresh / "fem-dnn" / name).write_text("half a library")
    assert isinstance(find(), ctypes.CDLL)
    assert (fresh / "fem-dnn" / name).stat().st_size > 1000


@needs_compiler
def test_a_folder_that_cannot_be_written_to_is_done_without(fresh: Path) -> None:
    (fresh / "fem-dnn").write_text("in the way")
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
