"""`fem-dnn value`, by the command line and from Python."""

import json

import numpy as np
import pytest
from mpi4py import MPI
from program import batch, merged, write_case

from fem_dnn.commands import solve
from fem_dnn.request import Request
from fem_dnn.valuing import value

CASE = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.0, "cells": 1},
        "depth": {"length": 1.5, "cells": 4},
    },
    "network": {"kernel": False},
    "data": {"inputs": ["0"], "targets": ["0.9"]},
    "regularization": {"kernel": 0.05, "bias": 0.1},
    "value": {"cells": 60},
}
BOTH = merged(
    CASE,
    mesh={"depth": {"length": 1.0, "cells": 6}},
    network={"kernel": True},
    value={"cells": 60},
    solver={"escape": False},
)
FLIP = merged(
    BOTH,
    mesh={"width": {"shape": "interval", "length": 2.0, "cells": 2}},
    network={"activation": "linear"},
    data={"inputs": ["2*(x[0]<1)-1"], "targets": ["1-2*(x[0]<1)"]},
    loss={"weight": 10.0},
    regularization={"bias": 0.2},
    value={"cells": 40},
)
"""Theory.md section 9, case 5: f to -f, with two mirror-image minimisers; kappa |f| = 2.8."""

WRONG = {
    "four dimensions": (
        merged(CASE, mesh={"width": {"shape": "interval", "length": 1.0, "cells": 4}}),
        "value: has 4 state dimensions (1 samples x 4 nodes); allowed: samples x nodes <= 3",
    ),
    "derivatives": (
        merged(CASE, regularization={"bias_depth": 0.1}),
        "regularization.bias_depth: is 0.1",
    ),
    "free bias": (merged(CASE, regularization={"bias": 0.0}), "regularization.bias: is 0.0"),
    "learned outputs": (
        merged(CASE, loss={"kind": "mse", "train_outputs": True}, data={"targets": [0.5]}),
        "loss.train_outputs: is true",
    ),
    "outside": (
        merged(CASE, value={"box": [[0.5, 2.0]]}),
        "value.box: [0.5, 2] does not hold the input 0 of sample 0, node 0",
    ),
    "pairs": (merged(CASE, value={"box": [[-1, 1]] * 2}), "value.box: has 2 pairs for 1 state"),
    "too fine": (
        merged(BOTH, data={"inputs": ["0", "1"], "targets": ["1", "0"]}, value={"cells": 10_000}),
        "value.cells: 10000 in 2 dimensions makes 1.0e+08 grid points; allowed: at most 5476",
    ),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("value")
    small = merged(CASE, value={"box": [[-0.2, 0.5]], "feedback": False})
    tables = {"case": CASE, "small": small} | {name: t for name, (t, _) in WRONG.items()}
    commands = []
    for name, table in tables.items():
        write_case(folder / f"{name}.toml", table)
        more = ["--json", f"{name}.json", "--quiet"]
        commands.append(["value", f"{name}.toml", *more, *(["--out", "out"] * (name == "case"))])
    found = batch(commands, folder=folder)
    return folder, {name: one for name, [one] in zip(tables, found, strict=True)}


def test_the_known_objective(outcomes):
    """Theory.md section 9, case 2; open loop and closed loop agree with V."""
    folder, found = outcomes
    assert (found["case"].status, found["case"].out, found["case"].err) == (0, "", "")
    result = json.loads((folder / "case.json").read_text())
    assert result["converged"]
    assert abs(result["value"] - 0.0314161896) < min(result["error_estimate"], 1e-4)
    assert result["optimal_objective"] == pytest.approx(0.0314161896, abs=1e-9)
    assert result["closed_loop_objective"] == pytest.approx(0.0314161896, abs=1e-7)
    assert result["adjoint_difference"] < 0.03
    assert result["nondifferentiable"]["largest_fraction"] == 0.0
    [[low, high]] = result["grid"]["box"]
    assert low < 0 and high > 0.9
    assert "the same within the errors" in result["reason"]
    for name in ("result.json", "solution.npz", "value.png", "value_gradient.png"):
        assert (folder / "out" / name).exists()
    arrays = np.load(folder / "out/value.npz")
    steps = result["grid"]["steps"]
    assert arrays["values"].shape == (steps + 1, 61)
    assert np.allclose(arrays["values"][-1], 0.5 * (arrays["axis_0"] - 0.9) ** 2)
    assert arrays["closed_state"][-1].item() == pytest.approx(0.8135, abs=0.05)


def test_a_box_that_is_too_small(outcomes):
    folder, found = outcomes
    result = json.loads((folder / "small.json").read_text())
    assert found["small"].status == 1
    assert not result["converged"]
    assert "leaves the box" in result["reason"] and "enlarge value.box" in result["reason"]
    assert result["closed_loop_objective"] is None


@pytest.mark.parametrize("name", WRONG)
def test_bad_input(outcomes, name):
    outcome = outcomes[1][name]
    assert outcome.status == 2
    assert outcome.err.startswith(f"fem-dnn: {name}.toml: {WRONG[name][1]}"), outcome.err
    assert outcome.err.count("\n") == 1
    assert not (outcomes[0] / f"{name}.json").exists()


def agrees(result):
    """V, corrected by the open loop's own error, and the closed loop within the estimate."""
    objective = result["optimal_objective"] - (result["optimal_objective_error"] or 0.0)
    assert result["converged"], result["reason"]
    assert 0 < result["error_estimate"] < 0.02 * result["value"]
    assert abs(result["value"] - objective) < result["error_estimate"]
    assert abs(result["closed_loop_objective"] - objective) < result["error_estimate"]
    assert result["adjoint_difference"] < 0.05
    return True


PROBLEMS = {
    "tracking": {
        "loss": {"tracking": 2.0},
        "data": {"tracking_targets": ["0.3*sin(3*t)"]},
    },
    "bounds and a node of weight 3": {
        "bounds": {"kernel": [-0.1, 0.2], "bias": [-0.5, 0.4]},
        "mesh": {"width": {"shape": "interval", "length": 3.0, "cells": 1}},
    },
    "given kernel": {"network": {"kernel": "0.5*cos(3*t)"}},
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_one_dimension(name):
    assert agrees(value(merged(BOTH, **PROBLEMS[name])))


def test_two_samples_of_a_class_each():
    tables = merged(
        BOTH,
        data={"inputs": ["0.5", "-0.2"], "targets": [-1, 1]},
        loss={"kind": "logistic", "outputs": ["1"]},
        value={"cells": 24},
    )
    assert agrees(value(tables))


def test_masked_kernel_of_two_nodes():
    tables = merged(
        BOTH,
        mesh={"width": {"shape": "interval", "length": 1.0, "cells": 2}},
        network={"kernel_mask": "x[0]<0.5"},
        data={"inputs": ["x[0]+0.2"], "targets": ["1-x[0]"]},
        value={"cells": 16},
    )
    assert agrees(value(tables))


def test_three_nodes():
    tables = merged(
        BOTH,
        mesh={"width": {"shape": "interval", "length": 1.0, "cells": 3}},
        data={"inputs": ["x[0]-0.5"], "targets": ["0.4*cos(6*x[0])"]},
        value={"cells": 10},
    )
    assert agrees(value(tables))


def test_a_saddle_is_seen_to_be_none_of_the_best():
    """V is the global infimum, has its kink on the mirror line, and the feedback leaves that."""
    at_saddle = value(FLIP)
    assert at_saddle["open_loop"]["converged"]
    assert at_saddle["value"] < 0.75 * at_saddle["optimal_objective"]
    assert "no global minimiser" in at_saddle["reason"]
    assert at_saddle["nondifferentiable"]["at_input"]
    assert at_saddle["adjoint_difference"] > 0.1
    aside = {"initial": {"kind": "constant", "bias": 0.3}}
    best = solve(merged(FLIP, solver=aside)).result["objective"]
    assert abs(at_saddle["value"] - best) < at_saddle["error_estimate"]
    assert abs(at_saddle["closed_loop_objective"] - best) < at_saddle["error_estimate"]


@pytest.mark.mpi
@pytest.mark.several_ranks
def test_ranks_agree():
    """Also where there are fewer width cells than ranks."""
    tables = merged(
        BOTH,
        mesh={"depth": {"length": 1.0, "cells": 2}},
        data={"inputs": ["0.5", "-0.2"], "targets": ["-0.2", "0.3"]},
        value={"cells": 8},
    )
    here, alone = (value(tables, Request(comm=comm)) for comm in (MPI.COMM_WORLD, MPI.COMM_SELF))
    assert here["ranks"] == MPI.COMM_WORLD.size
    for name in ("value", "coarse_value", "closed_loop_objective", "optimal_objective"):
        assert here[name] == pytest.approx(alone[name], rel=1e-11), name
