"""The command line itself: options, streams, exit status."""

import json
import os
import stat

import numpy as np
import pytest
from program import batch, here, merged, run, start, without_pictures, write_case

import fem_dnn

CASE = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.0, "cells": 3},
        "depth": {"length": 1.0, "cells": 2},
    },
    "data": {"inputs": ["x[0]", "1"], "targets": ["0", "x[0]**2"]},
}

RESULT_KEYS = {
    *("converged", "reason", "objective", "loss", "regularization", "gradient_norm"),
    *("initial_gradient_norm", "iterations", "linear_iterations", "state_solves"),
    *("hessian_solves", "seconds", "ranks", "version", "history"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    write_case(folder / "case.toml", CASE)
    return folder


@pytest.fixture(scope="module")
def solved(folder):
    """JSON on standard output, with PETSc printing too."""
    return run(
        *["solve", "case.toml", "--json", "-"],
        *["--", "-snes_monitor", "-ksp_max_it", "50", "-snes_converged_reason"],
        folder=folder,
    )


def test_version(folder):
    outcome = run("--version", folder=folder)
    assert (outcome.status, outcome.out, outcome.err) == (0, f"fem-dnn {fem_dnn.__version__}\n", "")


def test_only_rank_0_speaks_and_writes(folder):
    outcomes = batch(
        [["--version"], [], ["demo"], ["init", "iris"], ["validate", "case.toml"]],
        ranks=2,
        folder=folder,
    )
    for first, second in outcomes:
        assert (first.status, first.err) == (0, "")
        assert first.out != ""
        assert (second.status, second.out, second.err) == (0, "", "")
    assert "Usage: fem-dnn" in outcomes[1][0].out
    assert "digits" in outcomes[2][0].out
    assert (folder / "iris.toml").exists()


def test_standard_output_is_the_result_alone(solved):
    assert solved.status == 0
    assert solved.json.keys() >= RESULT_KEYS
    assert solved.json["version"] == fem_dnn.__version__
    assert solved.json["ranks"] == 1


def test_the_rest_goes_to_standard_error(solved):
    assert "0 SNES Function norm" in solved.err  # PETSc's
    assert "fem_dnn_ solve converged due to CONVERGED_FNORM_ABS" in solved.err
    assert "converged: " in solved.err  # the program's own
    assert "Traceback" not in solved.err


def test_petsc_options_are_kept_with_the_result(solved):
    expected = {"snes_monitor": None, "ksp_max_it": "50", "snes_converged_reason": None}
    assert solved.json["petsc_options"] == expected


def test_the_same_case_twice(folder, solved):
    """Bit for bit; --quiet says nothing, --json FILE says the same as --json -."""
    outcome = run("solve", "case.toml", "--quiet", "--json", "result.json", folder=folder)
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")
    again = json.loads((folder / "result.json").read_text())
    once = solved.json
    for name in RESULT_KEYS - {"seconds", "history"}:
        assert again[name] == once[name], name
    for one, two in zip(once["history"], again["history"], strict=True):
        assert {**one, "seconds": 0} == {**two, "seconds": 0}


def test_overrides_and_the_initial_guess(folder):
    """--set; `rtol` counts from the initial guess and the history starts there."""
    overrides = ["--set", "mesh.depth.cells=3", "--set", "network.depth_scheme=resnet"]
    random = ["--set", 'solver.initial={ kind = "random", seed = 1 }', "--set", "solver.rtol=1e-3"]
    outcome = here("solve", "case.toml", *overrides, *random, "--json", "-", folder=folder)
    result = outcome.json
    assert outcome.status == 0
    assert result["case"]["mesh"]["depth"] == {"length": 1.0, "cells": 3}
    assert result["case"]["network"]["depth_scheme"] == "resnet"
    norms = [line["gradient_norm"] for line in result["history"]]
    assert norms[0] == result["initial_gradient_norm"]
    assert norms[-1] == result["gradient_norm"]
    assert norms[-1] <= 1e-3 * norms[0] < min(norms[:-1])


@pytest.mark.parametrize(
    "method", ["newton", "all-at-once", "lbfgs", "sweep", "layerwise", "gradient"]
)
def test_not_converged(folder, method):
    """Exit status 1, advice in the reason, results written all the same."""
    out = f"stopped-{method}"
    settings = ["--set", "solver.max_iterations=1", "--set", f"solver.method={method}"]
    with without_pictures():
        outcome = here("solve", "case.toml", *settings, "--out", out, folder=folder)
    assert outcome.status == 1
    assert outcome.err == ""
    assert "NOT CONVERGED: " in outcome.out
    result = json.loads((folder / out / "result.json").read_text())
    assert result["converged"] is False
    assert result["iterations"] == 1
    assert "solver.max_iterations" in result["reason"]
    assert result["gradient_norm"] > 1e-8 * result["initial_gradient_norm"]
    with np.load(folder / out / "solution.npz") as arrays:
        assert np.all(np.isfinite(arrays["kernel"]))
        assert np.any(arrays["kernel"] != 0)


def test_absolute_tolerance(folder):
    """Where the initial gradient is below atol only negative curvature is looked for."""
    convex = ["--set", "regularization.kernel=10.0", "--set", "regularization.bias=10.0"]
    outcome = here(
        *["solve", "case.toml", "--json", "-", "--set", "solver.atol=10.0", *convex],
        folder=folder,
    )
    assert outcome.status == 0
    result = outcome.json
    assert result["iterations"] == 0
    assert result["gradient_norm"] == result["initial_gradient_norm"] > 0
    assert result["hessian_solves"] > 0


# One neuron, three samples: at zero controls the gradient vanishes and the Hessian does not.
# f(T) = f_I + T log 2 (softplus), p = f(T) - g = -c (1, -2, 1), orthogonal to 1 and to f_I.
C, LOG2 = 2.0, float(np.log(2))
SADDLE = merged(
    CASE,
    mesh={"width": {"shape": "interval", "length": 1.0, "cells": 1}},
    network={"activation": "softplus"},
    data={
        "inputs": ["-1", "0", "1"],
        "targets": [-1 + LOG2 + C, LOG2 - 2 * C, 1 + LOG2 + C],
    },
    solver={"atol": 1e-7},
)


def test_a_saddle_is_not_taken_for_a_solution(folder):
    write_case(folder / "saddle.toml", SADDLE)
    outcome = here("solve", "saddle.toml", "--json", "-", folder=folder)
    result = outcome.json
    assert outcome.status == 0
    assert result["initial_gradient_norm"] < 1e-12
    assert result["iterations"] > 0
    assert result["objective"] < result["history"][0]["objective"] - 0.1
    assert result["lowest_eigenvalue"] > 0
    assert result["gradient_norm"] <= 1e-7


def test_a_saddle_is_kept_where_asked(folder):
    write_case(folder / "saddle.toml", SADDLE)
    outcome = here(
        "solve", "saddle.toml", "--json", "-", "--set", "solver.escape=false", folder=folder
    )
    assert outcome.status == 0
    assert outcome.json["iterations"] == 0
    assert outcome.json["hessian_solves"] == 0


@pytest.mark.parametrize(
    ("activation", "objective"),
    [("tanh", 0.0314161896), ("sigmoid", 0.0058238935), ("relu", 0.0253125)],
)
def test_exact_objective(folder, activation, objective):
    """Bias only, one sample (exact case 2); relu starts from its own default guess."""
    tables = {
        "mesh": {
            "width": {"shape": "interval", "length": 1.0, "cells": 2},
            "depth": {"length": 1.5, "cells": 2},
        },
        "network": {"activation": activation, "kernel": False},
        "data": {"inputs": ["x[0]"], "targets": ["x[0] + 0.9"]},
        "regularization": {"bias": 0.1},
    }
    write_case(folder / "exact.toml", tables)
    outcome = here("solve", "exact.toml", "--json", "-", folder=folder)
    assert outcome.status == 0
    assert outcome.json["objective"] == pytest.approx(objective, abs=6e-11)
    start = {"relu": 0.9 - 1.5 * 0.1, "sigmoid": 0.9 - 1.5 / 2}.get(activation, 0.9)
    penalty = 0.05 * 1.5 * 0.01 if activation == "relu" else 0.0
    first = outcome.json["history"][0]["objective"]
    assert first == pytest.approx(0.5 * start**2 + penalty, rel=1e-12)


# what is validated, and where words and results go

GIVEN = ["--set", "network.kernel=x[0]", "--set", "network.bias=t"]
VALIDATED = {
    # case file and overrides -> the commands it is good for, what is said about the others
    "learning problem": (
        ["case.toml"],
        "check, compare, critical, predict, solve, transfer",
        ["forward: network.kernel is true"],
    ),
    "given controls": (
        ["case.toml", *GIVEN],
        "check, forward, predict",
        ["solve, compare, transfer, critical: network has nothing to train"],
    ),
    "no targets": (
        ["inputs.toml"],
        "predict",
        [
            "forward: network.kernel is true",
            "solve, check, compare, transfer, critical: data.targets is missing",
        ],
    ),
    "learned outputs alone": (
        ["outputs.toml", *GIVEN],
        "check, compare, critical, forward, predict, solve, transfer",
        [],
    ),
}


@pytest.fixture(scope="module")
def validated(folder):
    write_case(folder / "inputs.toml", {**CASE, "data": {"inputs": ["x[0]"]}})
    outputs = {"data": {"inputs": ["x[0]"], "targets": [0.5]}}
    write_case(
        folder / "outputs.toml",
        {**CASE, **outputs, "loss": {"kind": "mse", "train_outputs": True}},
    )
    found = batch([["validate", *words] for words, _, _ in VALIDATED.values()], folder=folder)
    return dict(zip(VALIDATED, found, strict=True))


@pytest.mark.parametrize("name", VALIDATED)
def test_validate_says_which_commands_accept_the_case(validated, name):
    [outcome] = validated[name]
    _, commands, refused = VALIDATED[name]
    assert (outcome.status, outcome.err) == (0, "")
    first, *others = outcome.out.splitlines()
    assert f": good for {commands} (" in first
    assert len(others) == len(refused)
    for line, said in zip(others, refused, strict=True):
        assert line.startswith(f"not for {said}")


@pytest.mark.parametrize("words", [["nodes", "wide.toml"], ["nodes", "wide.toml", "--json", "-"]])
def test_a_reader_that_leaves_early_ends_the_run_in_silence(folder, words):
    """`fem-dnn nodes case.toml | head -0`: no message of the program, of Python, of PETSc."""
    write_case(folder / "wide.toml", CASE)
    process = start(*words, "--set", "mesh.width.cells=4000", folder=folder)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 1


def test_json_into_a_device_and_through_a_link(folder):
    (folder / "link.json").symlink_to("linked.json")
    os.mkfifo(folder / "pipe")
    reader = os.open(folder / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        for [outcome] in batch(
            [["nodes", "case.toml", "--json", name] for name in ("/dev/null", "link.json", "pipe")],
            folder=folder,
        ):
            assert (outcome.status, outcome.err) == (0, "")
        piped = os.read(reader, 65536).decode()
    finally:
        os.close(reader)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert (folder / "link.json").is_symlink()
    assert stat.S_ISFIFO(os.stat(folder / "pipe").st_mode)
    assert piped == (folder / "linked.json").read_text()
    assert len(json.loads(piped)["x"]) == 3
