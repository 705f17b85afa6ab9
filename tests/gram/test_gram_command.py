"""Cases that are solved in Gram form, by the command line."""

import json

import numpy as np
import pytest
from program import batch, merged, write_case

SAMPLES, CELLS, LAYERS = 2, 12, 2

TABLES = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.0, "cells": CELLS},
        "depth": {"length": 1.0, "cells": LAYERS},
    },
    "network": {"activation": "tanh", "depth_scheme": "resnet"},
    "data": {
        "inputs": ["sin(3 * x[0])", "cos(2 * x[0])"],
        "targets": ["0.5 * cos(3 * x[0])", "x[0]"],
    },
    "regularization": {"kernel": 5e-2, "bias": 1e-1},
    "solver": {"rtol": 1e-9},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gram")
    write_case(folder / "case.toml", TABLES)
    write_case(folder / "relu.toml", merged(TABLES, network={"activation": "relu"}))
    new = {"inputs": ["sin(4 * x[0])"], "targets": ["0 * x[0]"]}
    write_case(folder / "new.toml", merged(TABLES, data=new))
    return folder


@pytest.fixture(scope="module")
def outcomes(folder):
    gram, dense = (["--set", f"solver.representation={form}"] for form in ("gram", "dense"))
    solve = ["solve", "case.toml"]
    commands = {
        "gram": [*solve, "--out", "gram", *gram],
        "dense": [*solve, "--out", "dense", *dense],
        "relu": ["solve", "relu.toml", *gram],
        "nested": [*solve, *gram, "--set", "solver.nested=1"],
        "small": solve,
        "large": [*solve, "--set", "mesh.width.cells=256"],
        "check": ["check", "case.toml", *gram],
    }
    full = [[*words, "--quiet", "--json", f"{name}.json"] for name, words in commands.items()]
    return dict(zip(commands, (o[0] for o in batch(full, folder=folder)), strict=True))


@pytest.fixture(scope="module")
def results(folder, outcomes):
    return {file.stem: json.loads(file.read_text()) for file in folder.glob("*.json")}


def test_the_form_is_chosen_and_said(outcomes, results):
    forms = {name: result["representation"] for name, result in results.items()}
    assert forms == {
        "gram": "gram",
        "dense": "dense",
        "small": "dense",
        "large": "gram",
        "check": "gram",
    }
    gram, dense = results["gram"], results["dense"]
    assert outcomes["gram"].status == outcomes["dense"].status == outcomes["check"].status == 0
    for name in ("objective", "loss", "regularization", "initial_gradient_norm"):
        assert gram[name] == pytest.approx(dense[name], rel=1e-8), name
    for name, value in dense["error_estimate"].items():
        if isinstance(value, float):
            assert gram["error_estimate"][name] == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize(
    ("name", "why"), [("relu", "initial guess, constant"), ("nested", "solver.nested")]
)
def test_what_has_no_gram_form_is_refused_by_name(outcomes, name, why):
    outcome = outcomes[name]
    assert outcome.status == 2
    assert why in outcome.err and "solver.representation" in outcome.err
    assert outcome.err.count("\n") == 1


def test_the_solution_holds_q_and_all_that_the_dense_one_does(folder, outcomes):
    gram, dense = (dict(np.load(folder / f"{name}/solution.npz")) for name in ("gram", "dense"))
    assert gram["q"].shape == (LAYERS, SAMPLES, CELLS) == gram["control_state"].shape
    assert set(gram) == {*dense, "q", "control_state"}
    for name in ("kernel", "bias", "state", "adjoint"):
        scale = np.abs(dense[name]).max()
        assert gram[name] == pytest.approx(dense[name], abs=1e-6 * scale), name
    assert np.array_equal(gram["control_state"], gram["state"][:-1])
    a = np.einsum("ksx,ksy->kxy", gram["q"], gram["control_state"]) / 5e-2
    assert gram["kernel"] == pytest.approx(a, rel=1e-12)
    assert gram["bias"] == pytest.approx(gram["q"].sum(axis=1) / 1e-1, rel=1e-12)


def test_checks_hold(results):
    checks = {check["name"]: check for check in results["check"]["checks"]}
    for name in ("stationarity", "second_order", "state_bound", "hamiltonian_constant"):
        assert name in checks
    assert all(check["holds"] is not False for check in checks.values() if "bound" in check["name"])
    assert checks["stationarity"]["holds"]


def test_a_network_without_its_kernel_predicts_the_same(folder, outcomes):
    """Above 4 096 nodes q and the states at the levels stand for the kernel."""
    arrays = dict(np.load(folder / "gram/solution.npz"))
    del arrays["kernel"]
    (folder / "large").mkdir()
    np.savez(folder / "large/solution.npz", **arrays)
    names = {"gram": "whole", "large": "parts"}
    commands = [
        ["predict", name, "new.toml", "--quiet", "--json", f"predicted/{file}.json"]
        for name, file in names.items()
    ]
    (folder / "predicted").mkdir()
    assert all(o[0].status == 0 for o in batch(commands, folder=folder))
    whole, parts = (
        json.loads((folder / f"predicted/{file}.json").read_text())["outputs"]
        for file in names.values()
    )
    assert np.array(parts) == pytest.approx(np.array(whole), rel=1e-11)
