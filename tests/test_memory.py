"""What a memory limit leaves room for: more portions, shorter stretches, or a refusal."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import relative
from mpi4py import MPI
from program import ENVIRONMENT, merged, run, write_case

from fem_dnn.assembly import Model, assemble
from fem_dnn.case import Case
from fem_dnn.commands import solve
from fem_dnn.errors import BadInput
from fem_dnn.gram import GramProblem
from fem_dnn.gram.choice import choose_representation
from fem_dnn.memory import LIBRARIES, Needs, within_memory
from fem_dnn.portions import PortionedLinearisation, PortionedProblem
from fem_dnn.request import Request

WORLD = MPI.COMM_WORLD
SAMPLES = 3000

TABLES: dict[str, Any] = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.0, "cells": 8},
        "depth": {"cells": 4, "length": 1.0},
    },
    "network": {"activation": "tanh", "depth_scheme": "resnet"},
    "data": {"inputs": "waves.npz:inputs", "targets": "waves.npz:targets"},
    "regularization": {"kernel": 0.05, "bias": 0.05},
}
WIDE = merged(
    TABLES,
    mesh={
        "width": {"shape": "interval", "length": 1.0, "cells": 3000},
        "depth": {"cells": 12, "length": 1.0},
    },
    data={"inputs": ["sin(3*x)", "x"], "targets": ["x", "0.3"]},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with many samples."""
    folder = tmp_path_factory.mktemp("memory")
    x, s = (np.arange(8) + 0.5) / 8, np.linspace(0, 3, SAMPLES)[:, None]
    np.savez(folder / "waves.npz", inputs=np.sin(x + s), targets=np.cos(x + s))
    return folder


def model_of(tables: dict[str, Any], folder: Path, **solver: Any) -> Model:
    case = Case.parse(merged(tables, solver=solver), folder=folder)
    return choose_representation(assemble(case, WORLD))


@pytest.mark.mpi
def test_without_a_limit_nothing_changes(folder: Path) -> None:
    model = model_of(TABLES, folder)
    assert within_memory(model) is model.problem


@pytest.mark.mpi
def test_the_less_memory_the_more_portions(folder: Path) -> None:
    plain = model_of(TABLES, folder)
    assert plain.problem is not None
    needs = Needs.of(plain.problem, "newton")
    enough = 1e-9 * (needs.fixed + needs.whole)
    whole = within_memory(model_of(TABLES, folder, memory_gb=1.01 * enough))
    assert not isinstance(whole, PortionedProblem)
    least = 1e-9 * (needs.fixed + needs.least)
    limits = np.geomspace(1.001 * least, 0.99 * enough, 5)
    counts, kept = [], []
    for limit in limits:
        problem = within_memory(model_of(TABLES, folder, memory_gb=float(limit)))
        assert isinstance(problem, PortionedProblem)
        size = -(-needs.samples // problem.count)
        used = size * needs.portion + 2 * size * problem.resident * needs.at_point
        assert problem.remembered is not None
        assert needs.fixed + used <= 1e9 * limit
        assert problem.work is not plain.problem.work
        counts.append(problem.count)
        kept.append(problem.resident / problem.count)
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 4 * counts[-1] > 4
    assert kept[-1] > kept[0]


@pytest.mark.mpi
@pytest.mark.parametrize("method", ["newton", "lbfgs", "gradient"])
def test_too_little_is_refused_with_what_is_enough(folder: Path, method: str) -> None:
    with pytest.raises(BadInput, match=r"but every rank needs [0-9.]+ GB") as refused:
        within_memory(model_of(TABLES, folder, memory_gb=0.01, method=method))
    assert refused.value.key == "solver.memory_gb"
    enough = 1.01 * float(refused.value.wrong.split()[-2])
    within_memory(model_of(TABLES, folder, memory_gb=enough, method=method))


@pytest.mark.mpi
@pytest.mark.parametrize("method", ["all-at-once", "sweep", "layerwise"])
def test_methods_that_hold_all_states_know_no_limit(folder: Path, method: str) -> None:
    with pytest.raises(BadInput, match=f"{method} has to hold the states of all samples"):
        within_memory(model_of(TABLES, folder, memory_gb=1.0, method=method))


@pytest.mark.mpi
def test_in_gram_form_stretches_become_shorter(folder: Path) -> None:
    lengths = []
    for more in (1.0, 0.0156, 0.01499):
        limit = 1e-9 * LIBRARIES + more / WORLD.size
        problem = within_memory(model_of(WIDE, folder, memory_gb=limit))
        assert isinstance(problem, GramProblem)
        assert problem.layers_at_once is not None
        assert problem.cut == (problem.layers_at_once < 12)
        lengths.append(problem.layers_at_once)
    assert lengths[0] == 12
    assert lengths[0] > lengths[1] > lengths[2] >= 1, lengths
    with pytest.raises(BadInput, match="but every rank needs"):
        within_memory(model_of(WIDE, folder, memory_gb=0.2))


@pytest.mark.mpi
def test_a_limited_solve_finds_the_same(folder: Path) -> None:
    """Also on nested meshes, and over groups of samples."""
    ways: list[dict[str, Any]] = [
        {},
        {"nested": 1},
        {"method": "lbfgs", "sample_groups": WORLD.size},
    ]
    problem = model_of(TABLES, folder).problem
    assert problem is not None
    for way in ways:
        needs, solutions = Needs.of(problem, str(way.get("method", "newton"))), []
        limits: list[dict[str, Any]] = [{}, {"memory_gb": 1e-9 * (needs.fixed + needs.whole / 4)}]
        for limit in limits:
            case = Case.parse(merged(TABLES, solver=way | limit), folder=folder)
            run = solve(case, Request(comm=WORLD))
            assert run.solution is not None
            assert run.solution.converged
            assert isinstance(run.solution.at, PortionedLinearisation) == bool(limit)
            assert (run.estimate is None) == bool(limit)
            solutions.append(run.solution)
        whole, limited = solutions
        assert limited.objective == pytest.approx(whole.objective, rel=1e-12)
        assert relative(limited.control, whole.control) < 1e-6
    assert "memory_gb" in case.as_dict()["solver"]


PEAK = """
import re, sys
from pathlib import Path
from fem_dnn.cli import main
try:
    main()
except SystemExit:
    pass
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1], file=sys.stderr)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system tells no peaks")
def test_the_process_stays_within_the_limit(folder: Path) -> None:
    """Whose states at one point alone would not fit beside the program itself."""
    s = np.linspace(0, 3, 60_000)[:, None]
    x = (np.arange(8) + 0.5) / 8
    np.savez(folder / "many.npz", inputs=np.sin(x + s), targets=np.cos(x + s))
    tables = merged(
        TABLES,
        mesh={"width": TABLES["mesh"]["width"], "depth": {"cells": 8, "length": 1.0}},
        data={"inputs": "many.npz:inputs", "targets": "many.npz:targets"},
        solver={"method": "lbfgs", "max_iterations": 2, "memory_gb": 0.25},
    )
    assert 4 * 8 * 8 * 8 * len(s) > 0.25e9 - LIBRARIES
    write_case(folder / "case.toml", tables)
    finished = subprocess.run(
        [sys.executable, "-c", PEAK, "solve", "case.toml", "--quiet"],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert 1.024e-6 * int(finished.stderr.split()[-1]) < 0.25


def test_the_program_names_key_and_least(folder: Path) -> None:
    write_case(folder / "small.toml", merged(TABLES, solver={"memory_gb": 0.1}))
    outcome = run("solve", "small.toml", "--out", "nothing", folder=folder)
    assert outcome.status == 2
    assert "solver.memory_gb: is 0.1, but every rank needs 0.2" in outcome.err
    assert not (folder / "nothing").exists()
