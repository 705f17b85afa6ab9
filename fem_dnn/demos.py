"""The demos: scripts in `demos/`, which are notebooks as well (jupytext's percent format).

Each is run as it is: `fem-dnn demo NAME`, `python demos/NAME.py`, or cell by cell.
"""

from __future__ import annotations

import ast
import os
import runpy
import sysconfig
from pathlib import Path

from fem_dnn.errors import BadInput

_OUT = "FEM_DNN_DEMO_OUT"
_QUIET = "FEM_DNN_DEMO_QUIET"


def folder() -> Path:
    """Where the demos are: in the checkout, or where the package's installation put them."""
    checkout = Path(__file__).resolve().parent.parent / "demos"
    installed = Path(sysconfig.get_path("data")) / "share" / "fem-dnn" / "demos"
    return checkout if checkout.is_dir() else installed


def available() -> dict[str, str]:
    """Names and titles of the demos."""
    return {path.stem: _title(path) for path in sorted(folder().glob("*.py"))}


def _title(path: Path) -> str:
    """The first heading of a demo's text."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# # "):
            return line[4:]
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or path.stem


def run(name: str, out: Path | None = None, *, quiet: bool = False) -> None:
    """Run a demo.

    Args:
        name: One of `available()`.
        out: Folder for its pictures; default results/NAME.
        quiet: Without progress.

    Raises:
        BadInput: No such demo.
    """
    demos = available()
    if name not in demos:
        raise BadInput(None, "demo", f'"{name}" is not a demo', ", ".join(demos))
    if out is not None:
        os.environ[_OUT] = str(out)
    if quiet:
        os.environ[_QUIET] = "1"
    runpy.run_path(str(folder() / f"{name}.py"), run_name="__main__")


def output_folder(name: str) -> Path:
    """Where a demo puts its pictures: as asked for, else results/NAME."""
    return Path(os.environ.get(_OUT, Path("results") / name))


def quiet() -> bool:
    """Whether the demo was asked to say nothing."""
    return bool(os.environ.get(_QUIET))
