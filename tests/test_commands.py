"""forward, predict, nodes, init and validate, by the command line."""

import json
import re
import tomllib

import numpy as np
import pytest
from program import batch, here, merged, write_case
from reference import Controls, Reference
from scipy.special import softmax

from fem_dnn.case.templates import RECIPES

pytestmark = pytest.mark.usefixtures("no_pictures")

# forward


def test_forward_has_the_closed_form(tmp_path):
    """Rank-one kernel, tanh: alpha m + b = asinh(sinh(alpha m_0 + b) exp(alpha c t)).

    psi = 1 + x makes [level, x, y] and its transpose different.
    """
    alpha, b = 0.7, 0.2
    tables = {
        "mesh": {
            "width": {"shape": "interval", "length": 1.0, "cells": 3},
            "depth": {"length": 1.0, "cells": 16},
        },
        "network": {
            "depth_scheme": "dg2",
            "width_degree": 2,
            "kernel": f"{alpha} * (1 + y[0])",
            "bias": b,
        },
        "data": {"inputs": ["x[0]**2", "cos(pi * x[0])"]},
    }
    write_case(tmp_path / "case.toml", tables)
    outcome = here("forward", "case.toml", "--json", "-", "--out", "out", folder=tmp_path)
    assert outcome.status == 0, outcome.err
    a = dict(np.load(tmp_path / "out/solution.npz"))
    x, h, c = a["x"][:, 0], a["node_weights"], 1.5
    assert c == pytest.approx((1 + x) @ h, rel=1e-14)
    f_I = np.stack([x**2, np.cos(np.pi * x)])
    m_0 = (f_I * (1 + x)) @ h
    t = a["t"][:, None]
    m = (np.arcsinh(np.sinh(alpha * m_0 + b) * np.exp(alpha * c * t)) - b) / alpha
    exact = f_I + ((m - m_0) / c)[:, :, None]
    assert a["state"] == pytest.approx(exact, abs=1e-9)
    assert np.abs(a["state"] - exact).max() > 1e-15, "a discretisation has an error"
    assert a["kernel"][5] == pytest.approx(np.tile(alpha * (1 + x), (9, 1)), rel=1e-14)
    assert "objective" not in outcome.json  # no targets
    assert (tmp_path / "out/result.json").exists()


def test_forward_evaluates_the_objective(tmp_path):
    """R counts what is given; expressions in t are evaluated at the control levels."""
    x, y = 0.25 + 0.5 * np.arange(2)[:, None], 0.25 + 0.5 * np.arange(2)
    t = np.array([0.0, 0.5])
    tables = {
        "mesh": {
            "width": {"shape": "interval", "length": 1.0, "cells": 2},
            "depth": {"length": 1.0, "cells": 2},
        },
        "network": {"depth_scheme": "resnet", "kernel": "x[0] - 2*y[0] + t", "bias": "t*x[0]"},
        "data": {"inputs": ["1", "x[0]"], "targets": ["0", "1"]},
        "regularization": {"kernel": 0.3, "bias": 0.4},
    }
    write_case(tmp_path / "case.toml", tables)
    outcome = here("forward", "case.toml", "--json", "result.json", "--quiet", folder=tmp_path)
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")
    result = json.loads((tmp_path / "result.json").read_text())
    kernel = (x - 2 * y)[None] + t[:, None, None]
    bias = t[:, None] * x[:, 0]
    f = np.array([[1.0, 1.0], x[:, 0]])
    for n in range(2):
        f = f + 0.5 * np.tanh(0.5 * f @ kernel[n].T + bias[n])
    loss = 0.5 * 0.5 * np.sum(0.5 * (f - np.array([[0.0], [1.0]])) ** 2)
    R = 0.5 * 0.3 * 0.125 * np.sum(kernel**2) + 0.5 * 0.4 * 0.25 * np.sum(bias**2)
    assert result["loss"] == pytest.approx(loss, rel=1e-14)
    assert result["regularization"] == pytest.approx(R, rel=1e-14)
    assert result["objective"] == result["loss"] + result["regularization"]


# solve, restart, predict

rng = np.random.default_rng(0)
INPUTS, NEW = rng.standard_normal((9, 4)), rng.standard_normal((5, 4))
CLASSES = np.arange(9) % 3

CASE = {
    "mesh": {
        "width": {"shape": "rectangle", "length": [1.0, 1.0], "cells": [2, 2]},
        "depth": {"length": 1.0, "cells": 2},
    },
    "network": {"depth_scheme": "resnet"},
    "data": {"inputs": "train.npz:f", "targets": "train.npz:c"},
    "loss": {"kind": "softmax", "train_outputs": True},
    "solver": {"rtol": 1e-6},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    np.savez(folder / "train.npz", f=INPUTS, c=CLASSES)
    np.savez(folder / "new.npz", f=NEW, c=np.array([0, 1, 2, 2, 2]))
    write_case(folder / "case.toml", CASE)
    outcome = here("solve", "case.toml", "--out", "result", "--json", "-", folder=folder)
    assert outcome.status == 0, outcome.err
    return folder, outcome.json


def expected_outputs(folder, inputs):
    a = dict(np.load(folder / "result/solution.npz"))
    reference = Reference(
        a["node_weights"], a["t"], "resnet", "tanh", inputs, CLASSES, "softmax", CLASSES, (0, 0, 0)
    )
    f = reference.march(Controls(a["kernel"], a["bias"]))["ends"][-1]
    return (f * a["node_weights"]) @ a["outputs"].T + a["offsets"]


def test_default_outputs_are_as_many_as_classes(trained):
    folder, _ = trained
    a = np.load(folder / "result/solution.npz")
    assert a["outputs"].shape == (3, 4)
    assert a["offsets"].shape == (3,)


def test_restart_from_a_file(trained):
    """A solution as initial guess is seen to be one: its gradient is below atol."""
    folder, result = trained
    start = 'solver.initial={ kind = "file", path = "result/solution.npz" }'
    outcome = here(
        *["solve", "case.toml", "--set", start, "--set", "solver.atol=1e-5", "--json", "-"],
        folder=folder,
    )
    assert outcome.status == 0
    assert outcome.json["iterations"] == 0
    assert outcome.json["objective"] == pytest.approx(result["objective"], rel=1e-14)
    assert outcome.json["gradient_norm"] == pytest.approx(result["gradient_norm"], rel=1e-6)


def test_predict(trained):
    folder, _ = trained
    data = {"inputs": "new.npz:f", "targets": "new.npz:c"}
    write_case(folder / "new.toml", merged(CASE, data=data))
    arguments = ["predict", "result", "new.toml"]
    outcome = here(*arguments, "--json", "-", "--out", "predicted", folder=folder)
    assert outcome.status == 0, outcome.err
    result = outcome.json
    z = expected_outputs(folder, NEW)
    assert np.array(result["outputs"]) == pytest.approx(z, abs=1e-12)
    assert result["classes"] == z.argmax(axis=1).tolist()
    assert np.array(result["probabilities"]) == pytest.approx(softmax(z, axis=1), abs=1e-12)
    right = np.mean(z.argmax(axis=1) == [0, 1, 2, 2, 2])
    assert result["accuracy"] == pytest.approx(right, abs=1e-15)
    written = np.load(folder / "predicted/predictions.npz")
    assert written["classes"].tolist() == result["classes"]


def test_predict_without_targets(trained):
    folder, result = trained
    tables = merged(CASE)
    del tables["data"]["targets"]
    write_case(folder / "inputs.toml", tables)
    outcome = here("predict", "result", "inputs.toml", "--json", "-", folder=folder)
    assert outcome.status == 0, outcome.err
    assert "accuracy" not in outcome.json
    classes = np.array(outcome.json["classes"])
    assert np.mean(classes == CLASSES) == pytest.approx(result["train_accuracy"], abs=1e-15)


def test_predict_on_a_data_set(tmp_path):
    """The accuracies of the training are found again, with the scaling learned then."""
    here("init", "iris", "--out", "case.toml", folder=tmp_path)
    small = ["--set", "network.depth_scheme=resnet", "--set", "mesh.width.cells=4"]
    some = ["--set", "solver.max_iterations=2"]
    solved = here(
        "solve", "case.toml", *small, *some, "--out", "out", "--json", "-", folder=tmp_path
    )
    assert solved.status == 1
    outcome = here("predict", "out", "case.toml", *small, "--json", "-", folder=tmp_path)
    assert outcome.status == 0, outcome.err
    assert outcome.json["samples"] == 150
    assert len(outcome.json["classes"]) == 150
    for name in ("train_accuracy", "test_accuracy"):
        assert outcome.json[name] == solved.json[name]
        assert 0.5 < outcome.json[name] <= 1
    assert solved.json["history"][-1]["accuracy"] == solved.json["train_accuracy"]


# nodes


def test_nodes(tmp_path):
    """On a rectangle of degree 1: last coordinate slowest; as text, JSON and npz alike."""
    width = {"shape": "rectangle", "start": [0.0, 1.0], "length": [2.0, 1.0], "cells": [2, 1]}
    tables = merged(CASE, mesh={"width": width}, network={"width_degree": 1})
    np.savez(tmp_path / "train.npz", f=np.ones((2, 8)), c=np.array([0, 1]))
    write_case(tmp_path / "case.toml", tables)
    outcome = here("nodes", "case.toml", "--json", "nodes.json", "--out", "out", folder=tmp_path)
    assert outcome.status == 0, outcome.err
    g = np.array([-1, 1]) * np.sqrt(3) / 6
    columns = np.concatenate([0.5 + g, 1.5 + g])
    expected = np.array([[x, y] for y in 1.5 + g for x in columns])
    result = json.loads((tmp_path / "nodes.json").read_text())
    assert np.array(result["x"]) == pytest.approx(expected, abs=1e-14)
    assert result["node_weights"] == pytest.approx(np.full(8, 0.25), abs=1e-14)
    lines = [line for line in outcome.out.splitlines() if re.match(r"[\d.]+,[\d.]+,[\d.]+$", line)]
    rows = np.array([[float(number) for number in line.split(",")] for line in lines])
    assert np.array_equal(rows, np.column_stack([result["x"], result["node_weights"]]))
    written = np.load(tmp_path / "out/nodes.npz")
    assert np.array_equal(written["x"], result["x"])
    assert np.array_equal(written["node_weights"], result["node_weights"])


# init, validate


@pytest.fixture(scope="module")
def initialised(tmp_path_factory):
    """Every data set's template, written and validated."""
    folder = tmp_path_factory.mktemp("init")
    commands = [word for name in RECIPES for word in (["init", name], ["validate", f"{name}.toml"])]
    outcomes = batch([*commands, ["validate", "iris.toml", "--quiet"]], folder=folder)
    return folder, [outcome for [outcome] in outcomes]


def test_every_template_is_valid(initialised):
    folder, outcomes = initialised
    for number, name in enumerate(RECIPES):
        written, validated = outcomes[2 * number : 2 * number + 2]
        assert (written.status, written.err) == (0, "")
        assert f"{name}.toml written" in written.out
        assert (validated.status, validated.err) == (0, "")
        assert f"{name}.toml: good" in validated.out
        text = (folder / f"{name}.toml").read_text()
        assert tomllib.loads(text)["data"]["dataset"] == name
        assert text.count("#") > 20, "a commented case file"


def test_validate_quietly(initialised):
    _, outcomes = initialised
    assert (outcomes[-1].status, outcomes[-1].out, outcomes[-1].err) == (0, "", "")
