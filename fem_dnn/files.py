"""Files that appear whole or not at all: written under another name, then renamed.

What is no file on a disk (a pipe, /dev/null) is written to as it is: it must not be replaced.
"""

from __future__ import annotations

import errno
import glob
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that it is never seen half-written.

    Args:
        path: The file; of a symbolic link, the file that it points to.
        write: Writes the content to an open binary file.

    Raises:
        OSError: It cannot be written.
    """
    if _is_stream(path):
        with path.open("wb") as file:
            write(file)
        return
    handle, name, path = _neighbour(path)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp's own mode would shut others out
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def try_writing(path: Path) -> None:
    """Find out whether `write_whole` could write a file, and leave everything as it was.

    Raises:
        OSError: It could not.
    """
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if _is_stream(path):
        # Opening a pipe would wait for its reader, and then tell it that all has been said.
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return
    handle, name, _ = _neighbour(path)
    os.close(handle)
    os.unlink(name)


def remove_leftovers(path: Path) -> None:
    """Remove what a process left that was killed while it wrote a file with `write_whole`.

    Raises:
        OSError: It cannot be removed.
    """
    real = Path(os.path.realpath(path))
    for leftover in real.parent.glob(f".{glob.escape(real.name)}.????????"):
        leftover.unlink(missing_ok=True)


def _is_stream(path: Path) -> bool:
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _neighbour(path: Path) -> tuple[int, str, Path]:
    """A new file in the folder where the file really is: descriptor, name; and that file."""
    path = Path(os.path.realpath(path))
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    return handle, name, path
