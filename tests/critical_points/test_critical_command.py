"""`fem-dnn critical`, by the command line."""

import json

import numpy as np
import pytest
from program import batch, merged, run, write_case

CASE = {
    "mesh": {
        "width": {"shape": "interval", "length": 2.0, "cells": 2},
        "depth": {"length": 1.0, "cells": 6},
    },
    "network": {"activation": "linear", "depth_scheme": "resnet"},
    "data": {"inputs": ["1.27"], "targets": ["-1.27"]},
    "loss": {"weight": 20.0},
    "regularization": {"kernel": 1.0, "bias": 1.0},
    "critical": {"points": 3, "starts": 1},
}
CASES = {
    "found": CASE,
    "bounded": CASE | {"bounds": {"kernel": [-1.0, 1.0]}},
    "kink": merged(
        CASE,
        network={"activation": "relu"},
        solver={"initial": {"kind": "zero"}},
        critical={"starts": 0},
    ),
    "nothing": merged(CASE, network={"kernel": "1", "bias": False}),
    "overflow": merged(
        CASE, solver={"initial": {"kind": "constant", "kernel": 1e200, "bias": 0.0}}
    ),
}
FIELDS = {"objective", "gradient_norm", "kind", "negative_eigenvalues", "lowest_eigenvalue"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("critical")
    commands = []
    for name, tables in CASES.items():
        write_case(folder / f"{name}.toml", tables)
        more = ["--out", name] if name == "found" else []
        commands.append(["critical", f"{name}.toml", "--json", f"{name}.json", *more])
    commands.append(["predict", "found/points/1", "found.toml"])
    (folder / "found/points/7").mkdir(parents=True)
    (folder / "found/points/7/solution.npz").write_bytes(b"of an earlier run")
    outcomes = batch(commands, folder=folder)
    return folder, {
        name: every[0] for name, every in zip([*CASES, "predict"], outcomes, strict=True)
    }


def test_saddle_and_minimisers(runs):
    folder, outcomes = runs
    outcome = outcomes["found"]
    assert outcome.status == 0, outcome.err
    result = json.loads((folder / "found.json").read_text())
    points = result["points"]
    assert result["converged"] is True
    assert sorted(point["kind"] for point in points) == ["minimum", "minimum", "saddle"]
    assert all(set(point) >= FIELDS for point in points)
    assert [point["number"] for point in points] == [1, 2, 3]
    copies = [point for point in points if point["copy_of"] is not None]
    assert [point["copy_recognised_by"] for point in copies] == ["mirror image"]
    assert result["objective"] == min(point["objective"] for point in points)
    assert result["objective"] == pytest.approx(result["loss"] + result["regularization"])
    assert "1 is a symmetric copy" in result["reason"]
    for point in points:
        saddle = point["kind"] == "saddle"
        assert point["negative_eigenvalues"] == int(saddle)
        assert (point["lowest_eigenvalue"] < 0) == saddle
        assert point["eigenvalue_bound"] < 1e-9
        squares = sum(norm**2 for norm in point["norms"].values())
        assert point["regularization"] == pytest.approx(0.5 * squares, rel=1e-10)
        assert point["nearest_distance"] > 0.1
    for text in ("saddle", "lowest eigenvalue", "neg."):
        assert text in outcome.out


def test_files(runs):
    folder, _ = runs
    out = folder / "found"
    result = json.loads((out / "result.json").read_text())
    assert result == json.loads((folder / "found.json").read_text())
    assert (out / "critical.png").stat().st_size > 10_000
    assert sorted(each.name for each in (out / "points").iterdir()) == ["1", "2", "3"]
    lowest = min(result["points"], key=lambda point: point["objective"])
    arrays = np.load(out / "solution.npz")
    same = np.load(out / "points" / str(lowest["number"]) / "solution.npz")
    assert np.array_equal(arrays["kernel"], same["kernel"])
    weights = same["control_weights"]
    norm = np.sqrt(np.einsum("l,lx,x->", weights, same["bias"] ** 2, same["node_weights"]))
    assert norm == pytest.approx(lowest["norms"]["bias"], rel=1e-12)


def test_a_point_serves_predict(runs):
    outcome = runs[1]["predict"]
    assert outcome.status == 0, outcome.err


def test_what_is_refused_and_what_fails(runs):
    folder, outcomes = runs
    assert outcomes["bounded"].status == 2
    assert "bounds.kernel" in outcomes["bounded"].err
    assert outcomes["nothing"].status == 2
    assert "nothing to train" in outcomes["nothing"].err
    assert outcomes["kink"].status == 1
    kink = json.loads((folder / "kink.json").read_text())
    assert kink["converged"] is False
    assert kink["points"] == []
    assert "critical.starts" in kink["reason"]
    assert outcomes["overflow"].status == 1
    assert "not finite" in json.loads((folder / "overflow.json").read_text())["reason"]


@pytest.mark.parametrize("ranks", [2])
def test_json_on_standard_output_of_several_ranks(tmp_path, ranks):
    write_case(tmp_path / "case.toml", CASE)
    outcome = run(
        *["critical", "case.toml", "--json", "-", "--set", "critical.points=1"],
        ranks=ranks,
        folder=tmp_path,
    )
    assert outcome.status == 0, outcome.err
    assert [point["kind"] for point in outcome.json["points"]] == ["saddle"]
    assert outcome.json["ranks"] == ranks
