"""Checkpoints: a solve that is killed goes on, on any ranks, and ends where it would have ended."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import (
    everywhere,
    l2_problem,
    make_network,
    random_control,
    random_problem,
    relative,
    uniform,
    width_space,
)
from mpi4py import MPI
from program import ENVIRONMENT, batch, merged, run, start, write_case
from test_interruption import ranks_in

import fem_dnn
from fem_dnn import checkpoint_file
from fem_dnn.request import Request
from fem_dnn.solvers import METHODS, Tolerances, solve_newton
from fem_dnn.solvers.history import Waypoint

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF

CASE: dict[str, Any] = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.0, "cells": 8},
        "depth": {"length": 1.0, "cells": 4},
    },
    "network": {"depth_scheme": "resnet"},
    "data": {"inputs": ["x", "1 - x", "cos(3*x)"], "targets": ["1", "-x", "x**2"]},
    "regularization": {"kernel": 0.02, "bias": 0.02},
}


# A method goes on from a waypoint


def problem_and_start(comm, **options):
    strong = {"regularization": (0.2, 0.2, 0.2), "cells": 3, "samples": 2, "scheme": "resnet"}
    problem = random_problem(comm, **{**strong, "loss": "mse", "learn_outputs": True, **options})
    return problem, random_control(problem, scale=0.1)


def interrupted(method, problem, start, number, **options) -> Waypoint:
    """The waypoint of an iterate of a run that gets no further."""
    kept: list[Waypoint] = []
    method(
        problem, start, Tolerances(max_iterations=number), keep=lambda make: kept.append(make()),
        **options,
    )  # fmt: skip
    assert kept[-1].iterations[-1].iteration == number
    return kept[-1]


@pytest.mark.mpi
@pytest.mark.parametrize("bounds", [None, {"kernel": (-0.1, 0.1)}], ids=["free", "bounds"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_goes_on_from_any_on_other_ranks(name: str, bounds: Any) -> None:
    method, tolerances = METHODS[name], Tolerances(rtol=1e-8, max_iterations=2000)
    if bounds and method.within_bounds is None:
        pytest.skip("knows no bounds")
    whole = method(*problem_and_start(WORLD, bounds=bounds), tolerances)
    waypoint = interrupted(method, *problem_and_start(WORLD, bounds=bounds), 2)
    for comm in (WORLD, SELF) if WORLD.size > 1 else (SELF,):
        rest = method(*problem_and_start(comm, bounds=bounds), tolerances, resume=waypoint)
        assert rest.converged, rest.reason
        assert rest.initial_gradient_norm == waypoint.iterations[0].gradient_norm
        assert rest.gradient_norm <= 1e-8 * rest.initial_gradient_norm
        assert abs(rest.objective - whole.objective) < 1e-12
        a, b = everywhere(rest.problem, rest.control), everywhere(whole.problem, whole.control)
        assert relative(a, b) < 1e-5
        # One history, and its work and time add up.
        assert tuple(rest.history[:3]) == waypoint.iterations
        assert [line.iteration for line in rest.history] == list(range(rest.iterations + 1))
        for before, after in pairwise(rest.history):
            assert after.state_solves >= before.state_solves
            assert after.sweeps > before.sweeps
            assert after.hessian_solves >= before.hessian_solves
            assert after.linear_iterations >= before.linear_iterations
            assert after.seconds >= before.seconds


def curved(comm=SELF):
    """A problem of many Newton steps, most of them on the trust region's boundary."""
    options = {"cells": 6, "samples": 3, "regularization": (0.002, 0.002, 0.002)}
    return problem_and_start(comm, loss="l2", learn_outputs=False, **options)


@pytest.mark.parametrize("number", [1, 4, 9])
def test_newton_goes_on_downhill_with_its_trust_region(number: int) -> None:
    whole = solve_newton(*curved())
    assert whole.iterations > 12
    waypoint = interrupted(solve_newton, *curved(), number)
    rest = solve_newton(*curved(), resume=waypoint)
    assert rest.converged
    values = [line.objective for line in rest.history]
    assert all(b <= a * (1 + 1e-11) for a, b in pairwise(values))
    assert rest.iterations < 1.5 * whole.iterations
    # The next step is of the length that the last one suggests, not of a first step's.
    following = interrupted(solve_newton, *curved(), number + 1, resume=waypoint)
    assert following.step <= 2 * waypoint.step * (1 + 1e-12)


def test_the_limit_counts_the_whole_run() -> None:
    waypoint = interrupted(solve_newton, *curved(), 4)
    stopped = solve_newton(*curved(), Tolerances(max_iterations=6), resume=waypoint)
    assert stopped.iterations == 6 and "limit of 6 iterations" in stopped.reason
    at_once = solve_newton(*curved(), Tolerances(max_iterations=3), resume=waypoint)
    assert at_once.iterations == 4 and not at_once.converged
    assert at_once.objective == pytest.approx(waypoint.iterations[-1].objective, rel=1e-13)


def test_another_method_can_take_over() -> None:
    waypoint = interrupted(METHODS["gradient"], *curved(), 4)
    rest, whole = solve_newton(*curved(), resume=waypoint), solve_newton(*curved())
    assert rest.converged
    assert abs(rest.objective - whole.objective) < 1e-10 * whole.objective


def test_a_saddle_that_was_left_counts_and_is_not_met_again() -> None:
    """Exact case 5: f is carried to -f, and the straight path there is a saddle."""
    network = make_network(width_space(SELF, 2), "dg1", "linear", points=uniform(1.0, 2))
    f = np.full(2, 1.7)
    problem = l2_problem(network, f, -f, kernel=0.1, bias=0.1, weight=2.0)
    kept: list[Waypoint] = []
    zero = problem.controls.constant()
    whole = solve_newton(problem, zero, keep=lambda make: kept.append(make()))
    escapes = [waypoint.escapes for waypoint in kept]
    assert escapes[0] == 0 and escapes[-1] == 1
    rest: list[Waypoint] = []
    left = kept[escapes.index(1)]
    solution = solve_newton(problem, zero, resume=left, keep=lambda make: rest.append(make()))
    assert solution.converged and "a local minimiser" in solution.reason
    assert abs(solution.objective - whole.objective) < 1e-12
    assert {waypoint.escapes for waypoint in rest} == {1}


# Files


class Killed(Exception):
    """Stands for the end of a process."""


def killed_after(monkeypatch: pytest.MonkeyPatch, writes: int, case: dict, request: Request) -> int:
    """Solve until so many checkpoints are written, one per iteration; which iterate was last."""
    done = []
    write = checkpoint_file.write

    def write_and_die(path: Path, model: Any, waypoint: Waypoint) -> str | None:
        problem = write(path, model, waypoint)
        done.append(waypoint.iteration)
        if len(done) == writes:
            raise Killed
        return problem

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_file, "write", write_and_die)
        with pytest.raises(Killed):
            fem_dnn.solve(case, request)
    return done[-1]


NESTED = merged(CASE, solver={"nested": 2})


@pytest.fixture(scope="module")
def nested() -> dict[str, Any]:
    return fem_dnn.solve(NESTED, Request(comm=SELF)).result


@pytest.mark.parametrize("mesh", [0, 1, 2])
def test_nested_goes_on_from_every_mesh(tmp_path, monkeypatch, nested, mesh: int) -> None:
    case, whole = NESTED, nested
    # The second iterate on the mesh.
    writes = [line["mesh"] for line in whole["history"]].index(mesh) + 2
    request = Request(checkpoint=tmp_path / "c.npz", checkpoint_every=0.0, comm=SELF)
    at = killed_after(monkeypatch, writes, case, request)
    rest = fem_dnn.solve(case, replace(request, resume=True)).result
    assert rest["converged"] and rest["resumed_at"] == at == writes - 1
    assert abs(rest["objective"] - whole["objective"]) < 1e-12
    assert rest["initial_gradient_norm"] == pytest.approx(whole["initial_gradient_norm"], rel=1e-13)
    lines = rest["history"]
    assert [line["iteration"] for line in lines] == list(range(len(lines)))
    for a, b in zip(lines[:writes], whole["history"], strict=False):
        assert a["objective"] == b["objective"] and a["mesh"] == b["mesh"]
    for name in ("state_solves", "hessian_solves", "seconds", "mesh"):
        counts = [line[name] for line in lines]
        assert counts == sorted(counts)
    assert {line["mesh"] for line in lines} == {0, 1, 2}
    assert not (tmp_path / "c.npz").exists()


def test_a_limit_leaves_a_checkpoint_and_convergence_removes_it(tmp_path) -> None:
    assert Request(out=tmp_path).checkpoint_file == tmp_path / "checkpoint.npz"
    file = tmp_path / "c.npz"
    request = Request(checkpoint=file, comm=SELF)
    stopped = fem_dnn.solve(merged(CASE, solver={"max_iterations": 2}), request).result
    assert not stopped["converged"]
    assert file.exists()
    went_on = fem_dnn.solve(CASE, replace(request, resume=True)).result
    assert went_on["converged"] and went_on["resumed_at"] == 2
    assert went_on["history"][:3] == stopped["history"]
    assert went_on["state_solves"] > stopped["state_solves"]
    assert not file.exists()
    anew = fem_dnn.solve(CASE, replace(request, resume=True)).result
    assert anew["converged"] and "resumed_at" not in anew, "nothing to go on from: from the start"
    assert abs(anew["objective"] - went_on["objective"]) < 1e-12


@pytest.fixture(scope="module")
def left(tmp_path_factory) -> Path:
    """A checkpoint of CASE, its data in a file."""
    folder = tmp_path_factory.mktemp("left")
    nodes = (np.arange(8) + 0.5) / 8
    np.savez(folder / "data.npz", f=np.stack([nodes, nodes**2]), g=np.stack([1 - nodes, nodes]))
    request = Request(checkpoint=folder / "c.npz", comm=SELF)
    fem_dnn.solve(in_files(folder, solver={"max_iterations": 2}), request)
    return folder


def in_files(folder: Path, **sections: Any) -> fem_dnn.Case:
    tables = merged(CASE, **sections)
    tables["data"] = {"inputs": "data.npz:f", "targets": "data.npz:g"}
    return fem_dnn.Case.parse(tables, folder=folder)


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"regularization": {"kernel": 0.03}}, "regularization.kernel was 0.02 and is 0.03"),
        ({"solver": {"initial": {"kind": "random"}}}, "solver.initial.kind was \"zero\" and is"),
        ({"solver": {"nested": 1}}, "solver.nested was 0 and is 1"),
        ({"bounds": {"bias": [-1.0, 1.0]}}, r"bounds.bias was not given and is \[-1.0, 1.0\]"),
    ],
)  # fmt: skip
def test_the_checkpoint_of_another_case_is_refused(left: Path, sections: Any, says: str) -> None:
    request = Request(checkpoint=left / "c.npz", resume=True, comm=SELF)
    with pytest.raises(fem_dnn.BadInput, match=rf"c\.npz: belongs to another case: {says}"):
        fem_dnn.solve(in_files(left, **sections), request)
    assert (left / "c.npz").exists()


@pytest.mark.parametrize("name", ["f", "g"])
def test_other_data_of_the_same_name_are_noticed(left: Path, tmp_path: Path, name: str) -> None:
    arrays = dict(np.load(left / "data.npz"))
    arrays[name][0, 3] += 1e-6
    np.savez(tmp_path / "data.npz", **arrays)
    shutil.copy(left / "c.npz", tmp_path)
    request = Request(checkpoint=tmp_path / "c.npz", resume=True, comm=SELF)
    with pytest.raises(fem_dnn.BadInput, match="the objective at the initial guess was"):
        fem_dnn.solve(in_files(tmp_path), request)


def test_no_state_at_the_controls(left: Path, tmp_path: Path) -> None:
    """An iterate of all-at-once need not have one: nothing is gained, nothing is lost."""
    arrays = dict(np.load(left / "c.npz"))
    arrays["kernel"] = np.full_like(arrays["kernel"], np.inf)
    np.savez(tmp_path / "c.npz", **arrays)
    request = Request(checkpoint=tmp_path / "c.npz", resume=True, comm=SELF)
    with np.errstate(invalid="ignore"):
        result = fem_dnn.solve(in_files(left), request).result
    assert result["converged"] and "resumed_at" not in result


def test_a_full_disk_does_not_end_the_solve(tmp_path: Path, monkeypatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_file, "write_whole", full)
    request = Request(checkpoint=tmp_path / "c.npz", checkpoint_every=0.0, comm=SELF)
    assert fem_dnn.solve(CASE, request).result["converged"]


def test_killed_while_it_writes(left: Path, tmp_path: Path) -> None:
    """The file before is whole; what was begun is removed by the next run."""
    path = shutil.copy(left / "c.npz", tmp_path / "c.npz")
    program = (
        "import os, pathlib, signal, sys\n"
        "from fem_dnn.files import write_whole\n"
        "def die(file):\n"
        "    file.write(b'PK' * 1000)\n"
        "    file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_whole(pathlib.Path(sys.argv[1]), die)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(path)], env=ENVIRONMENT, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    request = Request(checkpoint=path, resume=True, comm=SELF)
    assert fem_dnn.solve(in_files(left), request).result["resumed_at"] == 2
    assert list(tmp_path.iterdir()) == []


# The program


def test_options_that_cannot_be(tmp_path: Path) -> None:
    write_case(tmp_path / "case.toml", CASE)
    commands = {
        "--resume: without a place for checkpoints": ["--resume"],
        "--checkpoint-every: without a place for checkpoints": ["--checkpoint-every", "5"],
        "--checkpoint-every: -1 is not a number of seconds": ["--checkpoint-every", "-1"],
        "--checkpoint-every: nan is not": ["--checkpoint-every", "nan", "--out", "o"],
        "case.toml: is not a checkpoint of fem-dnn": ["--checkpoint", "case.toml"],
        "--checkpoint: nowhere/c.npz cannot be written": ["--checkpoint", "nowhere/c.npz"],
        "--adapt: writes no checkpoints": ["--adapt", "1e-3", "--checkpoint", "c.npz"],
    }
    outcomes = batch([["solve", "case.toml", *c] for c in commands.values()], folder=tmp_path)
    for says, [outcome] in zip(commands, outcomes, strict=True):
        assert outcome.status == 2, outcome
        assert outcome.err.startswith(f"fem-dnn: {says}") and outcome.err.count("\n") == 1
    assert (tmp_path / "case.toml").read_text().startswith("[mesh]")


def last_iteration(path: Path) -> int:
    """Of a checkpoint, which is whole whenever one looks; -1 while there is none."""
    if not path.exists():
        return -1
    with np.load(path) as file:
        return int(json.loads(str(file["checkpoint"]))["iterations"][-1]["iteration"])


def test_killed_on_two_ranks_it_goes_on_on_one_and_on_two(tmp_path: Path) -> None:
    """SIGKILL leaves no time for anything."""
    width = {**CASE["mesh"]["width"], "cells": 10}
    longer = {"width": width, "depth": {"length": 2.0, "cells": 4}}
    case = merged(CASE, mesh=longer, regularization={"kernel": 5e-3, "bias": 5e-3})
    write_case(tmp_path / "case.toml", case)
    whole = fem_dnn.solve(case, Request(comm=SELF)).result
    command = ["solve", "case.toml", "--checkpoint", "c.npz", "--json", "result.json"]
    process = start(*command, "--checkpoint-every", "0", ranks=2, folder=tmp_path)
    try:
        until = time.monotonic() + 60
        while last_iteration(tmp_path / "c.npz") < 3:
            assert time.monotonic() < until and process.poll() is None, "not to be killed in time"
            time.sleep(0.002)
        for pid in ranks_in(tmp_path):
            os.kill(pid, signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    at = last_iteration(tmp_path / "c.npz")
    assert 3 <= at < whole["iterations"]
    assert not (tmp_path / "result.json").exists()
    shutil.copy(tmp_path / "c.npz", tmp_path / "one.npz")
    request = Request(checkpoint=tmp_path / "one.npz", resume=True, comm=SELF)
    on_one = fem_dnn.solve(case, request).result
    outcome = run(*command, "--resume", ranks=2, folder=tmp_path)
    assert outcome.status == 0, outcome.err
    assert f"going on from c.npz: iteration {at}, objective" in outcome.out
    on_two = json.loads((tmp_path / "result.json").read_text())
    for result, ranks in ((on_one, 1), (on_two, 2)):
        assert result["resumed_at"] == at and result["ranks"] == ranks
        assert abs(result["objective"] - whole["objective"]) < 1e-12
        assert result["initial_gradient_norm"] == pytest.approx(whole["initial_gradient_norm"])
        for a, b in zip(result["history"][: at + 1], whole["history"], strict=False):
            assert a["objective"] == pytest.approx(b["objective"], rel=1e-6)
    assert not list(tmp_path.glob("*.npz")), "solved: nothing to go on with"
