"""Can this machine's own Python run fem-dnn? Called by `prepare` as ``python3 host.py CACHE``.

Prints one line. Status 0: the prefix to use, this Python's own or that of a virtual environment on
top of it (made in the folder CACHE) that adds what is missing from PyPI. Status 3: why its dolfinx
is of no use. Status 1: what is wrong and what to do.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
# What must come with dolfinx, because it has to be built with the same PETSc and MPI.
COMPILED = ("fenics-dolfinx", "mpi4py", "petsc4py", "slepc4py")


def requirements() -> dict[str, str]:
    """Requirements of the package and its tests from pyproject.toml: project name -> clauses."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    return {(m := re.match(r"[\w.-]+", line))[0]: line[m.end() :] for line in lines}


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, e.g. (3, 10, 1) of ``3.10.1+dfsg1``."""
    return tuple(map(int, re.match(r"\d+(\.\d+)*", version)[0].split(".")))


def satisfied(version: str, clauses: str) -> bool:
    """Whether a version meets clauses such as ``>=0.9,<0.12``."""
    compare = {">=": tuple.__ge__, "<": tuple.__lt__}
    return all(
        compare[operator](numbers(version), numbers(bound))
        for operator, bound in re.findall(r"(>=|<)\s*([\d.]+)", clauses)
    )


def installed(project: str) -> str | None:
    """Version of an installed project, None if it is absent."""
    try:
        return importlib.metadata.version(project)
    except importlib.metadata.PackageNotFoundError:
        return None


def unmet(required: dict[str, str]) -> list[str]:
    """The requirements that are absent or have the wrong version, as pip takes them."""
    return [
        project + clauses
        for project, clauses in required.items()
        if (version := installed(project)) is None or not satisfied(version, clauses)
    ]


def run(*command: str) -> None:
    """Run a command that speaks only if it fails: then its last error is raised."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith(("E:", "ERROR:"))]
        raise OSError((errors or lines or [f"{command[0]}: status {done.returncode}"])[-1])


def ensure_pip() -> None:
    """Install pip with apt-get if this Python has none and we may."""
    if importlib.util.find_spec("pip") or importlib.util.find_spec("ensurepip"):
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise OSError("there is no pip; on Debian run: sudo apt-get install -y python3-pip")
    print("fem-dnn: installing python3-pip on this machine", file=sys.stderr)
    run("apt-get", "update")
    run("apt-get", "install", "-y", "--no-install-recommends", "python3-pip")
    importlib.invalidate_caches()


def make_virtual_environment(environment: Path, missing: list[str]) -> None:
    """Make a virtual environment on top of this Python, with what is missing from PyPI."""
    print(
        f"fem-dnn: adding {', '.join(missing)} to {sys.prefix}, in {environment}", file=sys.stderr
    )
    ensure_pip()
    shutil.rmtree(environment, ignore_errors=True)
    run(sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", str(environment))
    # Where this Python is itself in a virtual environment, --system-site-packages means its base.
    (packages,) = (environment / "lib").glob("python3*/site-packages")
    folders = [path for path in sys.path[1:] if path.endswith("-packages")]
    (packages / "host.pth").write_text("".join(f"{folder}\n" for folder in folders))
    python = str(environment / "bin" / "python3")
    if importlib.util.find_spec("pip") is None:
        run(python, "-m", "ensurepip")
    run(python, "-m", "pip", "install", *missing)
    (environment / "complete").touch()


def prefix(cache: Path, missing: list[str]) -> Path:
    """Prefix of a Python that has everything, made if need be; one at a time."""
    if not missing:
        return Path(sys.prefix)
    identity = "\n".join([sys.executable, sys.version, *sys.path[1:], *missing])
    environment = cache / f"venv-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    if not (environment / "complete").exists():
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (environment / "complete").exists():
                make_virtual_environment(environment, missing)
    return environment


def main() -> int:
    """Decide, and print the one line."""
    required = requirements()
    compiled = {project: required.pop(project) for project in COMPILED}
    dolfinx = installed("fenics-dolfinx") or "of unknown version"
    if dolfinx[0] not in "0123456789" or not satisfied(dolfinx, compiled["fenics-dolfinx"]):
        print(
            f"the dolfinx of {sys.executable} is {dolfinx},"
            f" fem-dnn needs {compiled['fenics-dolfinx']}"
        )
        return 3
    if absent := unmet(compiled):
        print(
            f"{sys.executable} has dolfinx {dolfinx} but not {', '.join(absent)}: install it there"
            " (conda install; apt-get install python3-slepc4py-real; ...), or use a private"
            " environment: FEM_DNN_ENVIRONMENT=private"
        )
        return 1
    missing = unmet(required)
    try:
        print(prefix(Path(sys.argv[1]), missing))
    except OSError as error:
        print(
            f"{', '.join(missing)} could not be added to {sys.executable} ({error}): install them"
            " there, or use a private environment: FEM_DNN_ENVIRONMENT=private"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
