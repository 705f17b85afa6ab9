"""What `solve` writes, recomputed by an independent implementation (`reference`).

Few runs, each of which differs from the others in as much as possible.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program import here, merged, write_case
from reference import Controls, Reference

pytestmark = pytest.mark.usefixtures("no_pictures")

rng = np.random.default_rng(42)

RESNET = {
    "mesh": {
        "width": {"shape": "interval", "start": -0.5, "length": 1.5, "cells": 4},
        "depth": {"points": [0.0, 0.3, 0.5, 1.1]},
    },
    "network": {"depth_scheme": "resnet", "kernel_mask": "case.npz:mask"},
    "data": {
        "inputs": "case.npz:inputs",
        "targets": "case.npz:targets",
        "tracking_targets": "case.npz:tracking",
        "weights": "case.npz:weights",
    },
    "loss": {
        "kind": "mse",
        "weight": 1.7,
        "outputs": ["1", "x[0]**2"],
        "offsets": [0.3, -0.2],
        "train_outputs": True,
        "tracking": 0.7,
    },
    "regularization": {"kernel": 0.02, "bias": 0.03, "outputs": 0.05},
    "solver": {"initial": {"kind": "random", "seed": 7, "scale": 0.8}},
}
RESNET_ARRAYS = {
    "inputs": rng.standard_normal((3, 4)),
    "targets": rng.standard_normal((3, 2)),
    "tracking": rng.standard_normal((4, 3, 4)),
    "weights": np.array([0.2, 0.5, 0.9]),
    "mask": np.array([[1, 0, 1, 1], [0, 1, 1, 0], [1, 1, 1, 0], [0, 0, 1, 1]]),
}

DG1 = {
    "mesh": {
        "width": {"shape": "rectangle", "length": [1.0, 2.0], "cells": [2, 1]},
        "depth": {"length": 1.2, "cells": 2},
    },
    "network": {"activation": "sigmoid", "width_degree": 1, "bias": "x[1] - t * x[0]"},
    "data": {
        "inputs": ["x[0]", "sin(pi * x[1])", 1],
        "targets": [2, 0, 1],
        "tracking_targets": ["t * x[1]", "x[0] - t**2", "0.5"],
        "weights": [1.0, 0.5, 0.25],
    },
    "loss": {
        "kind": "softmax",
        "outputs": "case.npz:outputs",
        "offsets": [0.1, 0.0, -0.4],
        "tracking": 0.4,
    },
    "regularization": {"kernel": 0.01, "bias": 0.5},
    "solver": {"initial": {"kind": "random", "seed": 3}},
}
DG1_ARRAYS = {"outputs": rng.standard_normal((3, 8))}

DG2 = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.0, "cells": 2},
        "depth": {"points": [0.0, 0.4, 1.0]},
    },
    "network": {
        "activation": "softplus",
        "width_degree": 2,
        "depth_scheme": "dg2",
        "kernel": "case.npz:kernel",
    },
    "data": {"inputs": ["x[0]", "cos(3*x[0])"], "targets": ["1", "exp(-x[0])"]},
    "loss": {"tracking": 2.0},
    "regularization": {"bias": 0.2},
    "solver": {"method": "lbfgs", "initial": {"kind": "constant", "bias": 0.3}},
}
DG2_ARRAYS = {"kernel": rng.standard_normal((6, 6, 6))}

DG0 = {
    "mesh": {
        "width": {
            "shape": "rectangle",
            "start": [1.0, -1.0],
            "length": [1.0, 1.0],
            "cells": [2, 3],
        },
        "depth": {"length": 1.0, "cells": 3},
    },
    "network": {
        "activation": "gelu",
        "depth_scheme": "dg0",
        "bias": False,
        "kernel_mask": "abs(x[1] - y[1]) < 0.5",
    },
    "data": {"inputs": "case.npz:inputs", "targets": "case.npz:targets"},
    "loss": {"kind": "logistic", "train_outputs": True, "outputs": ["x[0] - 1.4"], "weight": 3.0},
    "regularization": {"kernel": 0.1},
}
DG0_ARRAYS = {
    "inputs": rng.standard_normal((4, 6)),
    "targets": np.array([1, -1, -1, 1]),
}

CASES = {
    "resnet": (RESNET, RESNET_ARRAYS),
    "dg1": (DG1, DG1_ARRAYS),
    "dg2": (DG2, DG2_ARRAYS),
    "dg0": (DG0, DG0_ARRAYS),
}


@dataclass
class Solved:
    """A case, what `solve` says and writes, and the reference of the same problem."""

    name: str
    folder: Path
    result: dict[str, Any]
    arrays: dict[str, np.ndarray]
    reference: Reference
    trained: dict[str, np.ndarray | None]

    @property
    def controls(self) -> Controls:
        a = self.arrays
        if "outputs" not in a:
            return Controls(a["kernel"], a["bias"])
        return Controls(a["kernel"], a["bias"], a["outputs"], a["offsets"])


@pytest.fixture(scope="module", params=CASES)
def solved(request, tmp_path_factory) -> Solved:
    name = request.param
    tables, given = CASES[name]
    folder = tmp_path_factory.mktemp(name)
    np.savez(folder / "case.npz", **given)
    (folder / "elsewhere").mkdir()
    write_case(folder / "case.toml", tables)
    # Arrays are found next to the case file, not in the working directory.
    outcome = here(
        "solve", "../case.toml", "--out", "../out", "--json", "-", folder=folder / "elsewhere"
    )
    assert outcome.status == 0, outcome.err
    with np.load(folder / "out/solution.npz", allow_pickle=False) as file:
        arrays = dict(file)
    return Solved(
        name,
        folder,
        outcome.json,
        arrays,
        reference_of(tables, given, arrays),
        trained(tables, given, arrays),
    )


def reference_of(tables, given, arrays) -> Reference:
    """The reference of a case, with its data evaluated here."""
    data, loss, x = tables["data"], tables["loss"], arrays["x"]
    network, strength = tables["network"], tables.get("regularization", {})
    names = {"exp": np.exp, "sin": np.sin, "cos": np.cos, "pi": np.pi, "x": x.T}

    def functions(entries):
        if entries == f"case.npz:{entries[9:]}":
            return given[entries[9:]].astype(float)
        rows = [eval(str(entry), names) * np.ones(len(x)) for entry in entries]
        return np.stack(rows)

    inputs = functions(data["inputs"])
    kind = loss.get("kind", "l2")
    targets = data["targets"]
    if isinstance(targets, str):
        targets = given["targets"]
    else:
        targets = functions(targets) if kind == "l2" else np.array(targets)
    weights = data.get("weights", np.full(len(inputs), 1 / len(inputs)))
    reference = Reference(
        h=arrays["node_weights"],
        t=arrays["t"],
        scheme=network.get("depth_scheme", "dg1"),
        activation=network.get("activation", "tanh"),
        inputs=inputs,
        weights=given["weights"] if isinstance(weights, str) else np.array(weights),
        loss=kind,
        targets=targets,
        penalties=tuple(strength.get(name, 1e-2) for name in ("kernel", "bias", "outputs")),
        loss_weight=loss.get("weight", 1.0),
        mu=loss.get("tracking", 0.0),
    )
    followed, times = data.get("tracking_targets", []), reference.tracking_t
    if isinstance(followed, str):  # at the slab ends, piecewise linear between them
        ends = given["tracking"]
        reference.tracked = 0.5 * (ends[:-1] + ends[1:])
        assert len(times) == len(ends) - 1
    elif followed:
        values = [
            [eval(entry, {**names, "t": t}) * np.ones(len(x)) for entry in followed] for t in times
        ]
        reference.tracked = np.array(values)
    elif kind == "l2":  # the targets serve
        reference.tracked = np.broadcast_to(targets, (len(times), *targets.shape))
    return reference


def trained(tables, given, arrays) -> dict[str, np.ndarray | None]:
    parts: dict[str, np.ndarray | None] = {}
    network = tables["network"]
    if network.get("kernel", True) is True:
        mask = network.get("kernel_mask")
        if mask == "case.npz:mask":
            parts["kernel"] = given["mask"]
        elif mask:
            height = arrays["x"][:, 1]
            parts["kernel"] = (np.abs(height[:, None] - height) < 0.5).astype(float)
        else:
            parts["kernel"] = None
    if network.get("bias", True) is True:
        parts["bias"] = None
    if tables["loss"].get("train_outputs"):
        parts |= {"outputs": None, "offsets": None}
    return parts


def initial(solved: Solved) -> Controls:
    """The initial guess, as the contract describes it."""
    tables, given = CASES[solved.name]
    a, x = solved.arrays, solved.arrays["x"]
    guess = tables.get("solver", {}).get("initial", {"kind": "zero"})
    kernel, bias = np.zeros(a["kernel"].shape), np.zeros(a["bias"].shape)
    if guess["kind"] == "random":
        generator = np.random.default_rng(guess["seed"])
        scale = guess.get("scale", 1.0)
        kernel = scale * generator.standard_normal(kernel.shape)
        if "bias" in solved.trained:
            bias = scale * generator.standard_normal(bias.shape)
    if guess["kind"] == "constant":
        bias[:] = guess["bias"]
    if solved.name == "dg2":
        kernel = given["kernel"]
    if solved.name == "dg1":
        t = solved.reference.control_t[:, None]
        bias = x[:, 1] - t * x[:, 0]
    mask = solved.trained.get("kernel")
    if mask is not None:
        kernel = kernel * mask
    z = Controls(kernel, bias)
    if solved.name == "resnet":
        z.outputs = np.stack([np.ones(4), x[:, 0] ** 2])
        z.offsets = np.array([0.3, -0.2])
    elif solved.name == "dg1":
        z.outputs, z.offsets = given["outputs"], np.array([0.1, 0.0, -0.4])
    elif solved.name == "dg0":
        z.outputs, z.offsets = x[:, 0][None] - 1.4, np.zeros(1)
    return z


def objective(solved: Solved, z: Controls) -> tuple[float, float]:
    """Loss and regularization."""
    reference = solved.reference
    learned = "outputs" in solved.trained
    return float(reference.loss_value(z)), float(reference.regularization(z, learned))


def test_places_and_weights(solved):
    """The nodes in file order: coordinates sorted, the last one slowest."""
    a, reference = solved.arrays, solved.reference
    assert np.array_equal(np.lexsort(np.round(a["x"], 10).T), np.arange(len(a["x"])))
    expected = {
        "resnet": -0.5 + 0.375 * (np.arange(4) + 0.5),
        "dg2": np.concatenate(
            [c / 2 + (0.5 + np.sqrt(0.15) * np.arange(-1, 2)) / 2 for c in (0, 1)]
        ),
    }
    if solved.name in expected:
        assert a["x"][:, 0] == pytest.approx(expected[solved.name], abs=1e-14)
    if solved.name == "dg0":
        assert a["x"][:3] == pytest.approx(np.array([[1.25, -5 / 6], [1.75, -5 / 6], [1.25, -0.5]]))
    area = {"resnet": 1.5, "dg1": 2.0, "dg2": 1.0, "dg0": 1.0}[solved.name]
    assert a["node_weights"].sum() == pytest.approx(area, rel=1e-14)
    assert a["control_t"] == pytest.approx(reference.control_t, abs=1e-14)
    assert a["control_weights"] == pytest.approx(reference.control_weights, abs=1e-14)
    assert a["sample_weights"] == pytest.approx(reference.weights, abs=0)
    assert len(a["t"]) == len(a["state"]) == len(a["adjoint"])


def test_the_initial_guess(solved):
    """Its objective and gradient norm, to round-off: they pin every convention at once."""
    z, first = initial(solved), solved.result["history"][0]
    gradient = solved.reference.gradient(z, solved.trained)
    norm = solved.reference.norm(gradient, z)
    assert first["objective"] == pytest.approx(sum(objective(solved, z)), rel=1e-12)
    assert first["gradient_norm"] == pytest.approx(norm, rel=1e-10)
    assert solved.result["initial_gradient_norm"] == pytest.approx(norm, rel=1e-10)


def test_objective(solved):
    loss, regularization = objective(solved, solved.controls)
    result = solved.result
    assert result["loss"] == pytest.approx(loss, rel=1e-12)
    assert result["regularization"] == pytest.approx(regularization, rel=1e-12)
    assert result["objective"] == result["loss"] + result["regularization"]
    assert result["objective"] < result["history"][0]["objective"]


def test_stationarity(solved):
    """The gradient, recomputed from the arrays alone, is as small as claimed."""
    gradient = solved.reference.gradient(solved.controls, solved.trained)
    norm = solved.reference.norm(gradient, solved.controls)
    claimed = solved.result["gradient_norm"]
    assert claimed <= max(1e-12, 1e-8 * solved.result["initial_gradient_norm"])
    assert norm == pytest.approx(claimed, rel=1e-2, abs=1e-13)


def test_state_and_adjoint(solved):
    z, a = solved.controls, solved.arrays
    assert a["state"] == pytest.approx(solved.reference.march(z)["ends"], abs=1e-12)
    assert a["state"][0] == pytest.approx(solved.reference.inputs, abs=1e-15)
    assert a["adjoint"] == pytest.approx(solved.reference.adjoint(z), abs=1e-11)


def test_what_is_given_stays(solved):
    """Masked entries are 0, all others are trained; a given kernel or bias is written as it is."""
    kernel, bias, start = solved.arrays["kernel"], solved.arrays["bias"], initial(solved)
    if "kernel" in solved.trained:
        mask = solved.trained["kernel"]
        assert np.all((kernel != 0) == (1 if mask is None else mask))
    else:
        assert kernel == pytest.approx(start.kernel, rel=1e-14)
    if "bias" not in solved.trained:
        assert bias == pytest.approx(start.bias, abs=1e-15)


def test_the_result_file_is_what_was_printed(solved):
    assert json.loads((solved.folder / "out/result.json").read_text()) == solved.result


def test_history_ends_at_the_result(solved):
    result, last = solved.result, solved.result["history"][-1]
    assert last["objective"] == result["objective"]
    assert last["gradient_norm"] == result["gradient_norm"]
    assert result["iterations"] == last["iteration"] == len(result["history"]) - 1
    assert result["converged"] is True
    for name in ("state_solves", "hessian_solves", "linear_iterations", "ranks"):
        assert isinstance(result[name], int)
    assert (result["linear_iterations"] > 0) == (solved.name != "dg2")  # L-BFGS solves none


def test_the_written_controls_reproduce_the_objective(solved):
    """`forward` with the kernel and bias of `solution.npz`."""
    tables, _ = CASES[solved.name]
    given = {"kernel": "out/solution.npz:kernel", "bias": "out/solution.npz:bias"}
    change = {"network": given}
    if "outputs" in solved.trained:
        offsets = solved.arrays["offsets"].tolist()
        outputs = {"outputs": "out/solution.npz:outputs", "offsets": offsets}
        change["loss"] = {**outputs, "train_outputs": False}
    write_case(solved.folder / "forward.toml", merged(tables, **change))
    outcome = here("forward", "forward.toml", "--json", "-", folder=solved.folder)
    assert outcome.status == 0, outcome.err
    assert outcome.json["loss"] == pytest.approx(solved.result["loss"], rel=1e-13)
    if "outputs" not in solved.trained:  # else R has the output layer's share
        assert outcome.json["objective"] == pytest.approx(solved.result["objective"], rel=1e-13)


def test_the_gradient_formula_on_the_arrays(tmp_path):
    """lambda a + sum_s w_s sigma'(u) p f = 0 and its like for b, layer by layer (resnet)."""
    tables = merged(RESNET, loss={"tracking": 0.0, "train_outputs": False})
    del tables["network"]["kernel_mask"], tables["data"]["tracking_targets"]
    np.savez(tmp_path / "case.npz", **RESNET_ARRAYS)
    case = write_case(tmp_path / "case.toml", tables)
    outcome = here("solve", case, "--out", "out", "--quiet", folder=tmp_path)
    assert outcome.status == 0, outcome.err
    assert outcome.out == outcome.err == ""
    a = dict(np.load(tmp_path / "out/solution.npz"))
    f, p, w = a["state"][:-1], a["adjoint"][1:], a["sample_weights"][:, None]
    u = np.einsum("nxy,nsy,y->nsx", a["kernel"], f, a["node_weights"]) + a["bias"][:, None]
    q = w * (1 - np.tanh(u) ** 2) * p
    kernel = 0.02 * a["kernel"] + np.einsum("nsx,nsy->nxy", q, f)
    bias = 0.03 * a["bias"] + q.sum(axis=1)
    assert np.abs(kernel).max() < 1e-6 * np.abs(0.02 * a["kernel"]).max()
    assert np.abs(bias).max() < 1e-6 * np.abs(0.03 * a["bias"]).max()
    # p(T) of loss mse carries the loss weight and not w_s.
    z = (a["state"][-1] * a["node_weights"]) @ a["outputs"].T + a["offsets"]
    terminal = 1.7 * (z - RESNET_ARRAYS["targets"]) @ a["outputs"]
    assert a["adjoint"][-1] == pytest.approx(terminal, abs=1e-13)
