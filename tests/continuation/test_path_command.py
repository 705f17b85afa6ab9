"""`fem-dnn path`, by the command line."""

import json

import numpy as np
import pytest
from program import batch, merged, run, write_case

# gelu, bias only: of two neurons without connection the first one folds first (test_branches).
CASE = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.0, "cells": 2},
        "depth": {"length": 1.0, "cells": 1},
    },
    "network": {"activation": "gelu", "depth_scheme": "resnet", "kernel": False},
    "data": {"inputs": ["0"], "targets": ["1 + 0.2*x[0]"]},
    "solver": {"initial": {"kind": "constant", "bias": -0.9}},
    "path": {"parameter": "regularization.bias", "start": 0.05, "stop": 0.2},
}

CASES = {
    "good": CASE,
    "unfinished": merged(CASE, solver={"max_iterations": 0}),
    "given": merged(CASE, network={"bias": "t"}),
    "bounds": merged(CASE, bounds={"bias": [-3.0, 3.0]}),
    "parameter": merged(CASE, path={"parameter": "solver.rtol", "stop": 0.06}),
    "untrained": merged(CASE, path={"parameter": "regularization.kernel"}),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("path")
    commands = []
    for name, tables in CASES.items():
        write_case(folder / f"{name}.toml", tables)
        commands.append(["path", f"{name}.toml", "--json", f"{name}.json", "--out", name])
    outcomes = batch(commands, folder=folder)
    return folder, {name: every[0] for name, every in zip(CASES, outcomes, strict=True)}


def test_branches(runs):
    folder, outcomes = runs
    outcome, out = outcomes["good"], folder / "good"
    assert outcome.status == 0, outcome.err
    result = json.loads((folder / "good.json").read_text())
    assert result == json.loads((out / "result.json").read_text())
    assert result["converged"] and result["logarithmic"] is False
    first = result["branches"][0]
    assert {event["kind"] for event in first["events"]} == {"fold"}
    assert "converged: 1 branch, 1 fold, 0 branch points" in outcome.out
    arrays = np.load(out / "branches.npz")
    assert np.array_equal(arrays["branch0_parameter"], first["parameter"])
    size = np.sqrt(np.mean(arrays["branch0_bias"] ** 2, axis=(1, 2)))  # |Y| T = 1
    kept = arrays["branch0_points"]
    assert np.allclose(size, np.array(first["control_norm"])[kept], rtol=1e-12)
    assert (out / "bifurcation.png").stat().st_size > 10_000


def test_no_first_point(runs):
    folder, outcomes = runs
    result = json.loads((folder / "unfinished.json").read_text())
    assert outcomes["unfinished"].status == 1
    assert not result["converged"] and result["branches"] == []
    assert result["reason"].startswith("no first point: ")
    assert not (folder / "unfinished" / "branches.npz").exists()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("given", "network"),
        ("bounds", "bounds"),
        ("parameter", "path.parameter"),
        ("untrained", "path.parameter"),
    ],
)
def test_bad_input(runs, name, key):
    folder, outcomes = runs
    outcome = outcomes[name]
    assert outcome.status == 2 and outcome.err.count("\n") == 1
    assert f"{name}.toml: {key}" in outcome.err
    assert not (folder / f"{name}.json").exists() and not (folder / name).exists()


def test_standard_output_is_the_result_alone_on_two_ranks(runs):
    folder, _ = runs
    words = ["path", "good.toml", "--json", "-", "--", "-ksp_max_it", "50"]
    outcome = run(*words, ranks=2, folder=folder)
    assert outcome.status == 0, outcome.err
    assert outcome.json["ranks"] == 2
    alone = json.loads((folder / "good.json").read_text())
    for one, other in zip(alone["branches"], outcome.json["branches"], strict=True):
        assert one["parameter"] == pytest.approx(other["parameter"], rel=1e-6)


def test_validate_knows_whether_path_accepts_the_case(runs):
    folder, _ = runs
    good, bad = (["validate", f"{name}.toml"] for name in ("good", "parameter"))
    [accepted], [refused] = batch([good, bad], folder=folder)
    assert "path, predict" in accepted.out
    assert '\nnot for path: path.parameter "solver.rtol" is no number' in refused.out
