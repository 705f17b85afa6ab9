"""The script in meshes/ makes what is in meshes/. Serial: it starts a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gmsh")

MESHES = Path(__file__).resolve().parent.parent / "meshes"


def test_remaking_the_meshes_gives_the_same() -> None:
    command = [sys.executable, str(MESHES / "make.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("cells, area") == 4
