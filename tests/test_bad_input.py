"""Bad input: one line that names file and key, exit status 2, on one rank and on two.

Most mistakes go through `program.batch`, one start for all of them; some through the shell.
"""

import dataclasses
import re

import numpy as np
import pytest
from program import batch, merged, run, write_case

CASE = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.0, "cells": 3},
        "depth": {"length": 1.0, "cells": 2},
    },
    "network": {"depth_scheme": "resnet"},
    "data": {"inputs": ["x[0]", "1"], "targets": ["0", "x[0]**2"]},
}

NAN = np.ones((2, 3))
NAN[1, 2] = np.nan
ARRAYS = {
    "good": np.ones((2, 3)),
    "wide": np.ones((2, 4)),
    "flat": np.ones(3),
    "nan": NAN,
    "inf": np.full((2, 3), np.inf),
    "complex": np.ones((2, 3), complex),
    "text": np.array([["a", "b", "c"]] * 2),
    "pickled": np.array([[{}, {}, {}]] * 2, dtype=object),
    "labels": np.array([1, 0]),
    "halves": np.array([0.0, 0.5]),
    "negative": np.array([1.0, -1.0]),
    "mask": np.full((3, 3), 0.5),
    "empty": np.ones((0, 3)),
    "many": np.array([0.0, 10_000.0]),
    "kernel": np.ones((2, 3, 3)),
    "levels": np.ones((5, 3, 3)),
    "bias": np.ones((2, 3)),
}

LOGISTIC = {"kind": "logistic"}
SOFTMAX = {"kind": "softmax"}


def data(**entries):
    return {"data": entries}


def arrays(name, **others):
    return data(inputs=f"arrays.npz:{name}", **others)


CASES = {
    # What is wrong -> (changed sections, key the message names).
    "unknown key": ({"network": {"activaton": "tanh"}}, "network.activaton"),
    "unknown section": ({"netwrok": {"kernel": True}}, "netwrok"),
    "unknown nested key": ({"mesh": {"depth": {"lenght": 1.0, "cells": 2}}}, "mesh.depth.lenght"),
    "wrong type": ({"solver": {"max_iterations": "many"}}, "solver.max_iterations"),
    "truth value for a number": ({"regularization": {"bias": True}}, "regularization.bias"),
    "wrong choice": ({"network": {"depth_scheme": "dg7"}}, "network.depth_scheme"),
    "wrong kind": ({"solver": {"initial": {"kind": "zeros"}}}, "solver.initial.kind"),
    "negative length": ({"mesh": {"depth": {"length": -1.0, "cells": 2}}}, "mesh.depth.length"),
    "no cells": ({"mesh": {"depth": {"length": 1.0, "cells": 0}}}, "mesh.depth.cells"),
    "decreasing points": ({"mesh": {"depth": {"points": [0.0, 0.5, 0.4]}}}, "mesh.depth"),
    "negative lambda": ({"regularization": {"kernel": -1.0}}, "regularization.kernel"),
    "negative rtol": ({"solver": {"rtol": -1e-3}}, "solver.rtol"),
    "l2 with learned outputs": ({"loss": {"train_outputs": True}}, "loss.train_outputs"),
    "nothing to train": ({"network": {"kernel": False, "bias": "t"}}, "network"),
    "mesh file": ({"mesh": {"width": {"file": "disk.msh"}}}, "mesh.width.file"),
    "code": (data(inputs=["__import__('os').getcwd()", "1"]), "data.inputs[0]"),
    "unknown function": (data(inputs=["bessel(x[0])", "1"]), "data.inputs[0]"),
    "unknown coordinate": (data(targets=["0", "x[1]"]), "data.targets[1]"),
    "y in a bias": ({"network": {"bias": "y[0]"}}, "network.bias"),
    "expression that is NaN": (data(inputs=["log(x[0] - 1)", "1"]), "data.inputs[0]"),
    "kernel that is infinite": ({"network": {"kernel": "1/(x[0] - y[0])"}}, "network.kernel"),
    "another number of targets": (data(targets=["0"]), "data.targets"),
    "another number of weights": (data(weights=[1.0, 2.0, 3.0]), "data.weights"),
    "negative weight in an array": (data(weights="arrays.npz:negative"), "data.weights"),
    "weight that is not positive": (data(weights=[1.0, 0.0]), "data.weights"),
    "unknown data set": (data(inputs=None, targets=None, dataset="irises"), "data.dataset"),
    "no data": (data(inputs=None), "data"),
    "no such file": (data(inputs="nowhere.npz:f"), "data.inputs"),
    "no such array": (arrays("nothing"), "data.inputs"),
    "no npz file": (data(inputs="case.toml"), "data.inputs"),
    "broken npz file": (data(inputs="broken.npz:f"), "data.inputs"),
    "pickled array": (arrays("pickled"), "data.inputs"),
    "text array": (arrays("text"), "data.inputs"),
    "complex array": (arrays("complex"), "data.inputs"),
    "NaN in an array": (arrays("nan"), "data.inputs"),
    "infinity in an array": (data(targets="arrays.npz:inf"), "data.targets"),
    "no samples": (arrays("empty", targets="arrays.npz:empty"), "data.inputs"),
    "wrong number of nodes": (arrays("wide"), "data.inputs"),
    "wrong number of axes": (arrays("flat"), "data.inputs"),
    "targets of another shape": (data(targets="arrays.npz:wide"), "data.targets"),
    "kernel of another shape": ({"network": {"kernel": "arrays.npz:levels"}}, "network.kernel"),
    "bias of another shape": ({"network": {"bias": "arrays.npz:kernel"}}, "network.bias"),
    "mask of halves": ({"network": {"kernel_mask": "arrays.npz:mask"}}, "network.kernel_mask"),
    "mask of other numbers": ({"network": {"kernel_mask": "x[0]"}}, "network.kernel_mask"),
    "tracking targets of another shape": (
        {"loss": {"tracking": 1.0}, **data(tracking_targets="arrays.npz:kernel")},
        "data.tracking_targets",
    ),
    "tracking without targets": (
        {"loss": {"tracking": 1.0, "kind": "mse"}, **data(targets=[1.0, 2.0])},
        "data.tracking_targets",
    ),
    "labels 0 and 1": ({"loss": LOGISTIC, **data(targets="arrays.npz:labels")}, "data.targets"),
    "label 2": ({"loss": LOGISTIC, **data(targets=[1, 2])}, "data.targets"),
    "class one half": ({"loss": SOFTMAX, **data(targets="arrays.npz:halves")}, "data.targets"),
    "class ten thousand": ({"loss": SOFTMAX, **data(targets="arrays.npz:many")}, "data.targets"),
    "four numbers for two samples of a file": (
        {"loss": {"kind": "mse"}, **arrays("good", targets=[1.0, 2.0, 3.0, 4.0])},
        "data.targets",
    ),
    "three labels for two samples of a file": (
        {"loss": LOGISTIC, **arrays("good", targets=[1, -1, 1])},
        "data.targets",
    ),
    "negative class": ({"loss": SOFTMAX, **data(targets="arrays.npz:negative")}, "data.targets"),
    "more classes than outputs": (
        {"loss": {**SOFTMAX, "outputs": ["1", "x[0]"]}, **data(targets=[0, 2])},
        "loss.outputs",
    ),
    "two outputs for logistic": (
        {"loss": {**LOGISTIC, "outputs": ["1", "x[0]"]}, **data(targets=[1, -1])},
        "loss.outputs",
    ),
    "offsets of another number": (
        {"loss": {"kind": "mse", "offsets": [0.0, 1.0]}, **data(targets=[1.0, 2.0])},
        "loss.offsets",
    ),
    "outputs of another shape": (
        {"loss": {"kind": "mse", "outputs": "arrays.npz:wide"}, **data(targets="arrays.npz:good")},
        "loss.outputs",
    ),
    "no initial file": (
        {"solver": {"initial": {"kind": "file", "path": "nowhere.npz"}}},
        "solver.initial.path",
    ),
    "initial file that is a case": (
        {"solver": {"initial": {"kind": "file", "path": "case.toml"}}},
        "solver.initial.path",
    ),
    "initial file of another mesh": (
        {"solver": {"initial": {"kind": "file", "path": "other_mesh.npz"}}},
        "solver.initial.path",
    ),
    "initial file of other outputs": (
        {
            "loss": {"kind": "mse", "train_outputs": True},
            **data(targets=[1.0, 2.0]),
            "solver": {"initial": {"kind": "file", "path": "two_outputs.npz"}},
        },
        "solver.initial.path",
    ),
    "initial file without bias": (
        {"solver": {"initial": {"kind": "file", "path": "kernel_only.npz"}}},
        "solver.initial.path",
    ),
}

COMMANDS = {
    # What is wrong -> (arguments, what the message names).
    "missing case": (["solve", "nowhere.toml"], "nowhere.toml: cannot be read"),
    "case is a folder": (["validate", "."], "cannot be read"),
    "case is not TOML": (["solve", "broken.toml"], "broken.toml: is not TOML"),
    "case is not text": (["solve", "arrays.npz"], "arrays.npz: is not text"),
    "no case": (["solve"], "CASE.toml"),
    "unknown option": (["solve", "case.toml", "--jsn", "r.json"], "--jsn"),
    "unknown command": (["slove", "case.toml"], "slove"),
    "override without value": (["solve", "case.toml", "--set", "loss.weight"], "loss.weight"),
    "override of no key": (["solve", "case.toml", "--set", "loss.wait=1"], "--set: loss.wait"),
    "override of a wrong value": (
        ["solve", "case.toml", "--set", "loss.weight=-1"],
        "--set: loss.weight",
    ),
    "out on a file": (["solve", "case.toml", "--out", "case.toml"], "--out: case.toml"),
    "out below a file": (["nodes", "case.toml", "--out", "case.toml/out"], "--out: case.toml/out"),
    "json into no folder": (["solve", "case.toml", "--json", "nowhere/r.json"], "--json: nowhere"),
    "json on a folder": (["solve", "case.toml", "--json", "folder"], "--json: folder"),
    "forward of a control": (["forward", "case.toml"], "case.toml: network.kernel"),
    "solve without targets": (["solve", "no_targets.toml"], "no_targets.toml: data.targets"),
    "predict from nowhere": (["predict", "nowhere", "case.toml"], "solution.npz"),
    "predict from no result": (["predict", "folder", "case.toml"], "solution.npz"),
    "predict on another mesh": (["predict", "result", "case.toml"], "case.toml: mesh"),
    "init of an unknown data set": (["init", "irises"], "irises"),
    "init over a file": (["init", "iris", "--out", "case.toml"], "case.toml: exists"),
    "init into no folder": (["init", "iris", "--out", "nowhere/c.toml"], "nowhere/c.toml"),
    "unknown demo": (["demo", "digit"], "digit"),
    "PETSc option that Newton does not read": (
        ["solve", "case.toml", "--json", "r.json", "--quiet", "--", "-ksp_typo", "cg"],
        "-ksp_typo",
    ),
    "PETSc option that L-BFGS does not read": (
        ["solve", "case.toml", "--set", "solver.method=lbfgs", "--quiet", "--", "-snes_monitor"],
        "-snes_monitor",
    ),
    "PETSc option of a method without PETSc": (
        ["solve", "case.toml", "--set", "solver.method=sweep", "--quiet", "--", "-tao_monitor"],
        "-tao_monitor",
    ),
    "PETSc option for several methods": (
        ["compare", "case.toml", "--", "-tao_monitor"],
        "--: -tao_monitor: PETSc options have no effect here",
    ),
    "unknown method to compare": (
        ["compare", "case.toml", "--methods", "newton,adam"],
        '--methods: "adam" is not a method; allowed: newton, all-at-once',
    ),
    "no method to compare": (["compare", "case.toml", "--methods", ""], '--methods: ""'),
    "PETSc argument that is no option": (
        ["solve", "case.toml", "--", "cg"],
        '--: "cg" is not a PETSc option',
    ),
    "PETSc option without a solver": (
        ["validate", "case.toml", "--", "-snes_monitor"],
        "--: -snes_monitor: PETSc options have no effect here",
    ),
}


def file_of(name: str) -> str:
    return name.replace(" ", "_") + ".toml"


def without_nones(tables):
    return {
        section: {key: value for key, value in table.items() if value is not None}
        for section, table in tables.items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with all the bad cases, and with things that are no cases."""
    folder = tmp_path_factory.mktemp("bad")
    write_case(folder / "case.toml", CASE)
    for name, (changes, _) in CASES.items():
        write_case(folder / file_of(name), without_nones(merged(CASE, **changes)))
    write_case(folder / "no_targets.toml", without_nones(merged(CASE, **data(targets=None))))
    np.savez(folder / "arrays.npz", **ARRAYS)
    np.savez(folder / "other_mesh.npz", kernel=np.ones((2, 4, 4)), bias=np.ones((2, 4)))
    np.savez(folder / "kernel_only.npz", kernel=np.ones((2, 3, 3)))
    controls = {"kernel": np.ones((2, 3, 3)), "bias": np.ones((2, 3))}
    np.savez(folder / "two_outputs.npz", **controls, outputs=np.ones((2, 3)), offsets=np.ones(2))
    (folder / "broken.npz").write_bytes(b"PK\x03\x04 and nothing more")
    (folder / "broken.toml").write_text("[mesh\nwidth = 1\n")
    (folder / "folder").mkdir()
    (folder / "result").mkdir()
    other = {"x": np.ones((4, 1)), "t": np.ones(3), "control_t": np.ones(2)}
    controls = {"kernel": np.ones((2, 4, 4)), "bias": np.ones((2, 4))}
    np.savez(folder / "result/solution.npz", **other, **controls)
    return folder


def words(name):
    if name in COMMANDS:
        return COMMANDS[name][0]
    return ["solve", file_of(name), "--out", "out", "--json", "result.json"]


MISTAKES = [*CASES, *COMMANDS]


@pytest.fixture(scope="module", params=[1, 2], ids=["serial", "2 ranks"])
def outcomes(request, folder):
    """Mistake -> its outcome on every rank. Nothing may be written."""
    before = sorted(folder.rglob("*"))
    found = batch([words(name) for name in MISTAKES], ranks=request.param, folder=folder)
    assert sorted(folder.rglob("*")) == before
    return dict(zip(MISTAKES, found, strict=True))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_bad_input(outcomes, mistake):
    first, *others = outcomes[mistake]
    assert first.status == 2
    assert first.out == ""
    line = first.err.removesuffix("\n")
    assert line.startswith("fem-dnn: ")
    assert "\n" not in line
    assert len(line) < 500
    if mistake in CASES:
        key = re.escape(CASES[mistake][1])
        assert re.match(rf"fem-dnn: {re.escape(file_of(mistake))}: {key}[:\[.]", line), line
    else:
        assert COMMANDS[mistake][1] in line
    for other in others:
        assert dataclasses.astuple(other) == (2, "", "")


@pytest.mark.parametrize("ranks", [1, 2])
def test_in_a_process_of_its_own(folder, ranks):
    """The same through the shell: status, one line, nothing else on either stream."""
    case = file_of("NaN in an array")
    outcome = run("solve", case, "--json", "-", ranks=ranks, folder=folder)
    assert outcome.out == ""
    lines = [line for line in outcome.err.splitlines() if "fem-dnn:" in line]
    assert len(lines) == 1
    assert f"{case}: data.inputs" in lines[0]
    assert "nan at index (1, 2)" in lines[0]
    assert "Traceback" not in outcome.err
    assert outcome.status == 2
    if ranks == 1:
        assert outcome.err.splitlines() == lines


def test_more_ranks_than_cells(folder):
    outcomes = batch(
        [["solve", "case.toml", "--set", "mesh.width.cells=1"]], ranks=2, folder=folder
    )
    [[first, second]] = outcomes
    assert (first.status, second.status) == (2, 2)
    assert re.fullmatch("fem-dnn: .*mesh.width.cells.*2 ranks.*\n", first.err)
    assert second.err == ""
