"""What the environment offers and what it lacks: versions, BLAS and its rate, MPI, optional parts.

The solver spends its time in dense matrix products, so the rate of one is measured and set next to
what this processor should give: a reference BLAS, easily installed by accident, is 20 times slower.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc
from slepc4py import SLEPc
from threadpoolctl import threadpool_info

from fem_dnn._version import __version__
from fem_dnn.native.library import why_not

REQUIRED = (
    "fenics-dolfinx",
    "fenics-basix",
    "fenics-ffcx",
    "mpi4py",
    "petsc4py",
    "slepc4py",
    "numpy",
    "scipy",
    "scikit-learn",
    "pydantic",
    "typer",
    "rich",
    "numexpr",
    "matplotlib",
    "threadpoolctl",
)
# Module -> what it is for.
OPTIONAL = {
    "pyvista": "pictures of three-dimensional meshes",
    "gmsh": "making width meshes with Gmsh",
    "adios4dolfinx": "checkpoints that any number of ranks can read",
    "h5py": "looking into HDF5 files from Python",
    "torch": "comparing with networks in PyTorch",
    "jupytext": "demos as notebooks",
    "nbconvert": "executing notebooks",
    "pytest": "running the tests",
    "hypothesis": "the tests on random cases",
    "mypy": "checking types (make lint)",
    "ruff": "checking style (make lint)",
}
# Double-precision operations per cycle and core: (multiply, add) x vector length x two units.
_OPERATIONS_PER_CYCLE = {"avx512f": 32, "fma": 16, "avx": 8, "sse2": 4, "asimd": 8}
# Fraction of the peak that a good library exceeds on an idle machine; a reference BLAS reaches 4 %.
_EXPECTED_FRACTION = 0.35
# Peak of a core where the processor does not tell: on the low side of what is in use.
_MODEST_PEAK = 30.0


class Verdict(StrEnum):
    """What a finding means for whoever wants to compute."""

    GOOD = "good"
    POOR = "poor"  # works, but not as it should
    WRONG = "wrong"  # the program cannot work like this
    ABSENT = "absent"  # an optional part


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: Group it belongs to, e.g. ``versions``.
        name: What was looked at, e.g. ``numpy``.
        value: What was found, for people.
        verdict: What that means.
        advice: What to do about it, or what an absent part is for; empty where there is nothing.
    """

    topic: str
    name: str
    value: str
    verdict: Verdict = Verdict.GOOD
    advice: str = ""


@dataclass(frozen=True)
class Report:
    """Everything `examine` found.

    Attributes:
        findings: In the order of the printed report.
        gflops: Measured rate of a double-precision matrix product, in 1e9 operations per second;
            on several ranks, all computing at once, that of the slowest.
        peak_gflops: What the processor could do at most with as many threads; None if unknown.
    """

    findings: tuple[Finding, ...]
    gflops: float
    peak_gflops: float | None

    @property
    def healthy(self) -> bool:
        """Whether nothing is poor or wrong."""
        return all(f.verdict in (Verdict.GOOD, Verdict.ABSENT) for f in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        return {"healthy": self.healthy, **asdict(self)}


def examine() -> Report:
    """Look at the environment. Collective on all ranks; takes about a second.

    Returns:
        The report, the same on every rank but for what differs between them.
    """
    comm = MPI.COMM_WORLD
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    threads = max((pool["num_threads"] for pool in pools), default=1)
    comm.Barrier()  # all measure at the same time, as they will compute
    gflops = comm.allreduce(measure_gflops(), MPI.MIN)
    peak = peak_gflops(_processor_description(), threads)
    findings = (
        *_versions(),
        _scalar_type(PETSc.ScalarType),
        *_parallel(_usable_cores(), comm.size, threads),
        *_blas_libraries(pools),
        rate_finding(gflops, peak, threads, tuned=bool(pools)),
        *_optional_parts(),
    )
    return Report(findings, gflops, peak)


def render(report: Report) -> str:
    """The report as text, one line per finding, under one heading per topic."""
    marks = {Verdict.GOOD: " ", Verdict.POOR: "!", Verdict.WRONG: "X", Verdict.ABSENT: "-"}
    width = max(len(finding.name) for finding in report.findings)
    lines: list[str] = []
    topic = ""
    for finding in report.findings:
        if finding.topic != topic:
            topic = finding.topic
            lines += ["", topic] if lines else [topic]
        advice = f"  ({finding.advice})" if finding.advice else ""
        mark = marks[finding.verdict]
        lines.append(f"{mark} {finding.name.ljust(width)}  {finding.value}{advice}")
    summary = "all is well" if report.healthy else "see the lines marked ! or X"
    return "\n".join([*lines, "", summary])


def measure_gflops(order: int = 2000, trial_order: int = 500) -> float:
    """Rate of a double-precision matrix product of numpy, in 1e9 operations per second.

    A product of `trial_order` comes first; where that takes so long that one of `order` would take
    seconds, its rate is the answer.
    """
    rate = _product_rate(trial_order)
    return rate if 2e-9 * order**3 / rate > 2.0 else _product_rate(order)


def _product_rate(order: int) -> float:
    """Rate of a product of two matrices of the given order, their first touch not counted."""
    a = np.full((order, order), 0.5)
    b = a.copy()
    a[:8] @ b
    start = time.perf_counter()
    a @ b
    return 2e-9 * order**3 / (time.perf_counter() - start)


def peak_gflops(description: str, threads: int) -> float | None:
    """What a processor can do at most, in 1e9 double-precision operations per second.

    Args:
        description: Text of Linux's ``/proc/cpuinfo``.
        threads: Cores used.

    Returns:
        clock x operations per cycle x threads, or None if the text does not tell.
    """
    clock = re.search(r"^cpu MHz\s*:\s*([\d.]+)", description, re.MULTILINE)
    features = re.search(r"^(?:flags|Features)\s*:\s*(.*)", description, re.MULTILINE)
    if clock is None or features is None:
        return None
    known = features[1].split()
    operations = max((n for name, n in _OPERATIONS_PER_CYCLE.items() if name in known), default=0)
    return 1e-3 * float(clock[1]) * operations * threads or None


def rate_finding(gflops: float, peak: float | None, threads: int, *, tuned: bool) -> Finding:
    """Judge a measured rate against the processor's peak.

    Args:
        gflops: The rate, in 1e9 operations per second.
        peak: What the processor could do with these threads; None if unknown.
        threads: Threads of the product.
        tuned: Whether a BLAS tuned for the processor is loaded; slow, it is only being disturbed.
    """
    expected = _EXPECTED_FRACTION * (_MODEST_PEAK * threads if peak is None else peak)
    value = (
        f"{gflops:.1f} GFLOP/s with {threads} thread{'s' if threads > 1 else ''};"
        f" expected on an idle machine: {expected:.0f} or more"
    )
    verdict, advice = Verdict.GOOD, ""
    if gflops < expected and tuned:
        advice = "is the machine busy with something else?"
    elif gflops < expected:
        verdict, advice = (
            Verdict.POOR,
            (
                "a reference BLAS: install OpenBLAS (Debian: libopenblas0-pthread;"
                " conda: libblas=*=*openblas)"
            ),
        )
    return Finding("dense linear algebra", "matrix product", value, verdict, advice)


def _processor_description() -> str:
    """Linux's own description of the processor; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def _usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _versions() -> list[Finding]:
    """Versions of this program, of Python and of everything that the program needs."""
    found = [
        Finding("versions", "fem-dnn", __version__),
        Finding("versions", "Python", platform.python_version()),
        Finding("versions", "PETSc", ".".join(map(str, PETSc.Sys.getVersion()))),
        Finding("versions", "SLEPc", ".".join(map(str, SLEPc.Sys.getVersion()))),
        Finding("versions", "MPI library", MPI.Get_library_version().split("\n")[0].split(",")[0]),
    ]
    for project in REQUIRED:
        try:
            found.append(Finding("versions", project, importlib.metadata.version(project)))
        except importlib.metadata.PackageNotFoundError:
            found.append(Finding("versions", project, "not found", Verdict.WRONG, "install it"))
    return found


def _scalar_type(scalar: type) -> Finding:
    """The type of PETSc's scalars, which must be real and of double precision."""
    if np.dtype(scalar) == np.float64:
        return Finding("versions", "PETSc scalars", "real, double precision")
    advice = "use a PETSc and a dolfinx built for real double-precision scalars"
    return Finding("versions", "PETSc scalars", np.dtype(scalar).name, Verdict.WRONG, advice)


def _parallel(cores: int, ranks: int, threads: int) -> list[Finding]:
    """Cores, MPI ranks and BLAS threads per rank, and whether they fit."""
    found = [
        Finding("parallel", "cores", str(cores)),
        Finding("parallel", "MPI ranks", str(ranks)),
    ]
    busy = threads > 1 and ranks * threads > cores
    verdict, advice = (
        (Verdict.POOR, "ranks x threads exceeds the cores: set OMP_NUM_THREADS=1")
        if busy
        else (Verdict.GOOD, "")
    )
    return [*found, Finding("parallel", "BLAS threads per rank", str(threads), verdict, advice)]


def _blas_libraries(pools: list[dict[str, Any]]) -> list[Finding]:
    """The BLAS libraries loaded, which may be one for numpy and another one for PETSc."""
    if pools:
        return [
            Finding(
                "dense linear algebra",
                "BLAS library",
                f"{pool['internal_api']} {pool['version'] or ''} ({pool['filepath']})",
            )
            for pool in pools
        ]
    # The reference BLAS has no threads, so threadpoolctl does not know it.
    return [Finding("dense linear algebra", "BLAS library", "unknown or the reference BLAS")]


def _optional_parts() -> list[Finding]:
    """Which optional parts are there, and what those that are absent would be for."""
    found = []
    for module, purpose in OPTIONAL.items():
        if importlib.util.find_spec(module) is None:
            found.append(Finding("optional parts", module, "absent", Verdict.ABSENT, purpose))
        else:
            found.append(Finding("optional parts", module, "present", advice=purpose))
    purpose = "small networks in half the time, and less"
    reason = why_not()
    verdict = Verdict.GOOD if reason is None else Verdict.ABSENT
    value = "compiled" if reason is None else f"absent: {reason}"
    return [*found, Finding("optional parts", "sweeps in C", value, verdict, purpose)]
