"""`fem-dnn check`, by the command line."""

import html
import json

import pytest
from program import batch, here, merged, write_case

CASE = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.0, "cells": 3},
        "depth": {"length": 1.0, "cells": 2},
    },
    "network": {"depth_scheme": "resnet"},
    "data": {"inputs": ["1", "x[0]"], "targets": ["x[0]", "0"]},
}
NAMED = {
    "state_bound",
    "control_bound",
    "second_order",
    "hamiltonian_constant",
    "pontryagin_minimum",
    "existence_convexity",
    "existence_oscillation",
}


def given(**network):
    return merged(CASE, network={"activation": "linear", "bias": False} | network)


CASES = {
    "solved": CASE,
    "unfinished": merged(CASE, solver={"max_iterations": 1, "rtol": 1e-12}),
    "given": given(depth_scheme="dg0", kernel="1") | {"data": {"inputs": ["1"]}},
    "overflow": given(kernel="1e200"),
    "without targets": CASE | {"data": {"inputs": ["1"]}},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All cases, one after the other in one process."""
    folder = tmp_path_factory.mktemp("checks")
    commands = []
    for name, tables in CASES.items():
        write_case(folder / f"{name}.toml", tables)
        more = ["--out", name] if name == "solved" else []
        commands.append(["check", f"{name}.toml", "--json", f"{name}.json", *more])
    outcomes = batch(commands, folder=folder)
    return folder, {name: every[0] for name, every in zip(CASES, outcomes, strict=True)}


def result_of(runs, name):
    folder, outcomes = runs
    result = json.loads((folder / f"{name}.json").read_text())
    return outcomes[name], result, {check["name"]: check for check in result["checks"]}


def test_check_solves_and_checks(runs):
    outcome, result, checks = result_of(runs, "solved")
    assert outcome.status == 0, outcome.err
    assert set(checks) >= NAMED
    assert len(checks) == len(result["checks"])
    assert all(
        set(c) >= {"name", "holds", "value", "bound", "explanation"} for c in checks.values()
    )
    assert all(checks[name]["holds"] is True for name in NAMED)
    assert result["converged"] is True
    assert checks["second_order"]["value"] == pytest.approx(result["lowest_eigenvalue"], abs=1e-6)
    out = runs[0] / "solved"
    assert json.loads((out / "result.json").read_text()) == result
    assert (out / "checks.png").stat().st_size > 10_000
    assert (out / "gramian.png").stat().st_size > 10_000
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 5
    for check in checks.values():
        assert check["name"] in page
        assert html.escape(check["explanation"]) in page
    assert (out / "solution.npz").exists()


def test_an_unfinished_solve_is_checked_too(runs):
    outcome, result, checks = result_of(runs, "unfinished")
    assert outcome.status == 0, outcome.err
    assert result["converged"] is False
    assert checks["stationarity"]["holds"] is False
    assert "NOT CONVERGED" in outcome.out
    assert "stationarity" in outcome.out


def test_given_controls_are_checked_without_targets(runs):
    """dg0 on a coarse depth mesh: the state is too large, and the table says why."""
    outcome, _, checks = result_of(runs, "given")
    assert outcome.status == 0, outcome.err
    assert checks["state_bound"]["holds"] is False
    assert "dg0 under-resolves the depth" in checks["state_bound"]["explanation"]
    assert checks["second_order"]["holds"] is None
    assert "NO" in outcome.out


def test_a_state_that_cannot_be_solved(runs):
    """There is nothing to check: the exit status says so, as in `forward`."""
    outcome, result, checks = result_of(runs, "overflow")
    assert outcome.status == 1
    assert checks == {}
    assert "not finite" in result["reason"]


def test_bad_input(runs):
    outcome = runs[1]["without targets"]
    assert outcome.status == 2
    assert outcome.err.startswith("fem-dnn: without targets.toml: data.targets: is missing")
    assert outcome.err.count("\n") == 1


def test_standard_output_is_pure_json(tmp_path):
    write_case(tmp_path / "case.toml", CASES["given"])
    outcome = here("check", "case.toml", "--json", "-", folder=tmp_path)
    assert outcome.status == 0, outcome.err
    assert outcome.json["checks"]


@pytest.mark.mpi
@pytest.mark.several_ranks
def test_ranks_agree(tmp_path):
    from mpi4py import MPI

    from fem_dnn.checking import check
    from fem_dnn.request import Request

    found = [check(CASE, Request(comm=comm))["checks"] for comm in (MPI.COMM_WORLD, MPI.COMM_SELF)]
    for shared, alone in zip(*found, strict=True):
        assert shared["name"] == alone["name"]
        assert shared["holds"] is alone["holds"]
        if shared["value"] is not None and shared["name"] not in (
            "stationarity",
            "identical_samples",
        ):
            assert shared["value"] == pytest.approx(alone["value"], rel=1e-5, abs=1e-9), shared
