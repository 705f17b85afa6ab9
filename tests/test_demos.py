"""The demos run as they are: as scripts, on one rank and on two, and as notebooks.

Each demo asserts its own number at the end; here it only has to get there and leave its pictures.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from program import batch

from fem_dnn import demos
from fem_dnn.errors import BadInput

PICTURES = {
    "controllability": ("hidden_state", "kernel", "convergence", "controllability"),
    "feedback": ("hidden_state", "kernel", "convergence", "feedback"),
    "turnpike": ("hidden_state", "kernel", "convergence", "turnpike"),
    "continuum": ("hidden_state", "kernel", "convergence", "continuum"),
    "disc": ("hidden_state", "kernel", "convergence", "turned"),
    "bang_bang": ("hidden_state", "kernel", "convergence", "bang_bang"),
    "dynamics": ("hidden_state", "kernel", "dynamics"),
    "existence": ("hidden_state", "convergence", "velocity_set", "oscillation", "turns", "gaps"),
    "digits": ("hidden_state", "kernel", "convergence", "confusion"),
    "bifurcation": ("bifurcation", "circles"),
    "circles": ("hidden_state", "kernel", "convergence", "decision_region", "trajectories"),
}

FILES = {"bifurcation": ("branches.npz", "result.json")}
"""Other files than those of a solve."""


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def test_every_demo_has_a_title_and_is_tested() -> None:
    assert set(demos.available()) == set(PICTURES)
    assert all(len(title) > 10 for title in demos.available().values())


def test_unknown_demo() -> None:
    with pytest.raises(BadInput, match="circles"):
        demos.run("squares")


# Circles run on two ranks here and on one as a notebook; what ranks change is the same for all.
@pytest.mark.parametrize(
    ("name", "ranks"), [(name, 2 if name == "circles" else 1) for name in PICTURES]
)
def test_as_script(name: str, ranks: int, tmp_path: Path) -> None:
    out = tmp_path / "out"
    [[first, *others]] = batch([["demo", name, "--out", out]], ranks=ranks, folder=tmp_path)
    assert {one.status for one in (first, *others)} == {0}, first.err[-2000:]
    assert not any(one.out or one.err for one in others)
    said = first.out
    assert said.count("pictures:") == 1  # rank 0 alone speaks
    for picture in PICTURES[name]:
        assert (out / f"{picture}.png").stat().st_size > 10_000
    for file in FILES.get(name, ("state.pvd", "solution.npz")):
        assert (out / file).is_file()


def test_as_notebook(tmp_path: Path) -> None:
    pytest.importorskip("jupytext")
    notebook = tmp_path / "circles.ipynb"
    script = demos.folder() / "circles.py"
    run(
        [sys.executable, "-m", "jupytext", "--to", "ipynb", "-o", str(notebook), str(script)],
        tmp_path,
    )
    run(
        [
            sys.executable,
            "-m",
            "nbconvert",
            "--to",
            "notebook",
            "--execute",
            "--inplace",
            str(notebook),
        ],
        tmp_path,
    )
    assert "pictures:" in notebook.read_text()
    assert (tmp_path / "results" / "circles" / "decision_region.png").is_file()
