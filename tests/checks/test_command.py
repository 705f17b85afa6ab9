"""`fem-dnn check`, by the command line."""

import json

import pytest
from program import merged, run, write_case

CASE = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.0, "cells": 4},
        "depth": {"length": 1.0, "cells": 2},
    },
    "network": {"depth_scheme": "resnet"},
    "data": {"inputs": ["1", "x[0]"], "targets": ["x[0]", "0"]},
}
NAMED = {"state_bound", "control_bound", "second_order"}


def test_check_solves_and_checks(tmp_path):
    write_case(tmp_path / "case.toml", CASE)
    outcome = run("check", "case.toml", "--json", "-", "--out", "out", folder=tmp_path)
    assert outcome.status == 0, outcome.err
    result = outcome.json
    checks = {check["name"]: check for check in result["checks"]}
    assert set(checks) >= NAMED
    assert len(checks) == len(result["checks"])
    assert all(
        {"name", "holds", "value", "bound", "explanation"} <= set(c) for c in checks.values()
    )
    assert all(checks[name]["holds"] is True for name in NAMED)
    assert result["converged"] is True
    assert checks["second_order"]["value"] == pytest.approx(result["lowest_eigenvalue"], abs=1e-6)
    assert json.loads((tmp_path / "out/result.json").read_text()) == result
    assert (tmp_path / "out/checks.png").stat().st_size > 10_000
    assert (tmp_path / "out/solution.npz").exists()


def test_an_unfinished_solve_is_checked_too(tmp_path):
    write_case(tmp_path / "case.toml", merged(CASE, solver={"max_iterations": 1, "rtol": 1e-12}))
    outcome = run("check", "case.toml", "--json", "r.json", folder=tmp_path)
    assert outcome.status == 0, outcome.err
    result = json.loads((tmp_path / "r.json").read_text())
    holds = {check["name"]: check["holds"] for check in result["checks"]}
    assert result["converged"] is False
    assert holds["stationarity"] is False
    assert "NOT CONVERGED" in outcome.out
    assert "stationarity" in outcome.out


def test_given_controls_are_checked_without_targets(tmp_path):
    """dg0 on a coarse depth mesh: the state is too large, and the table says why."""
    network = {"depth_scheme": "dg0", "activation": "linear", "kernel": "1", "bias": False}
    tables = merged(CASE, network=network)
    tables["data"] = {"inputs": ["1"]}
    write_case(tmp_path / "case.toml", tables)
    outcome = run("check", "case.toml", "--json", "r.json", folder=tmp_path)
    assert outcome.status == 0, outcome.err
    checks = {c["name"]: c for c in json.loads((tmp_path / "r.json").read_text())["checks"]}
    assert checks["state_bound"]["holds"] is False
    assert "dg0 under-resolves the depth" in checks["state_bound"]["explanation"]
    assert checks["second_order"]["holds"] is None
    assert "NO" in outcome.out


def test_a_state_that_cannot_be_solved(tmp_path):
    """There is nothing to check: the exit status says so, as in `forward`."""
    network = {"depth_scheme": "resnet", "activation": "linear", "kernel": "1e200", "bias": False}
    write_case(tmp_path / "case.toml", merged(CASE, network=network))
    outcome = run("check", "case.toml", "--json", "-", "--quiet", folder=tmp_path)
    assert outcome.status == 1
    assert outcome.json["checks"] == []
    assert "not finite" in outcome.json["reason"]


def test_bad_input(tmp_path):
    tables = merged(CASE, network={"kernel": True})
    tables["data"] = {"inputs": ["1"]}
    write_case(tmp_path / "case.toml", tables)
    outcome = run("check", "case.toml", folder=tmp_path)
    assert outcome.status == 2
    assert outcome.err.startswith("fem-dnn: case.toml: data.targets: is missing")
    assert outcome.err.count("\n") == 1


@pytest.mark.mpi
def test_ranks_agree(tmp_path):
    from mpi4py import MPI

    from fem_dnn.checking import check
    from fem_dnn.request import Request

    found = [check(CASE, Request(comm=comm))["checks"] for comm in (MPI.COMM_WORLD, MPI.COMM_SELF)]
    for here, alone in zip(*found, strict=True):
        assert here["name"] == alone["name"]
        assert here["holds"] is alone["holds"]
        if here["value"] is not None and here["name"] not in ("stationarity", "identical_samples"):
            assert here["value"] == pytest.approx(alone["value"], rel=1e-5, abs=1e-9), here
