"""Files that appear whole or not at all, and the question beforehand whether they can."""

import os
import stat
import tempfile

import pytest

from fem_dnn.errors import BadInput
from fem_dnn.files import try_writing, write_whole
from fem_dnn.reporting import require_writable
from fem_dnn.request import Request


def hello(file):
    file.write(b"hello")


def refuse(*_args, **_options):
    raise PermissionError(13, "Permission denied")


def test_a_file_is_replaced_and_others_may_read_it(tmp_path):
    path = tmp_path / "a"
    path.write_text("something longer")
    write_whole(path, hello)
    assert path.read_bytes() == b"hello"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")

    def fail(file):
        file.write(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_whole(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_and_its_file_is_written(tmp_path):
    (tmp_path / "folder").mkdir()
    link = tmp_path / "link"
    link.symlink_to("folder/file")
    for _ in range(2):  # there is no such file, there is one
        write_whole(link, hello)
        assert link.is_symlink()
        assert [p.name for p in (tmp_path / "folder").iterdir()] == ["file"]
        assert link.read_bytes() == b"hello"


def test_a_pipe_is_written_to(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        try_writing(path)
        write_whole(path, hello)
        assert os.read(reader, 100) == b"hello"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_trying_changes_nothing(tmp_path):
    path = tmp_path / "a"
    try_writing(path)
    assert list(tmp_path.iterdir()) == []
    path.write_text("old")
    try_writing(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_trying_finds_out(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        try_writing(tmp_path)
    with pytest.raises(NotADirectoryError):
        try_writing(tmp_path / "file/below")
    with pytest.raises(FileNotFoundError):
        try_writing(tmp_path / "nowhere/file")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError):
        try_writing(tmp_path / "pipe")


def test_a_folder_without_permission_is_bad_input_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "mkstemp", refuse)  # root may write everywhere
    with pytest.raises(BadInput, match=r"^--json: .*r.json cannot be written \(Permission denied"):
        require_writable(tmp_path / "r.json")
    with pytest.raises(BadInput, match=r"^--out: .* cannot be written to \(Permission denied"):
        Request(out=tmp_path).prepare_out()
