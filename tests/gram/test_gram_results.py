"""Results in Gram form go on: to other meshes, and as the start of another solve.

Above 4 096 nodes a result holds q and the states at the levels but no kernel: so do these, which
had theirs taken out.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI
from program import batch, merged, write_case

import fem_dnn
from fem_dnn import network_transfer, results
from fem_dnn.results import write_arrays

CASE = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.0, "cells": 8},
        "depth": {"length": 1.0, "cells": 2},
    },
    "network": {"depth_scheme": "dg1"},
    "data": {"inputs": ["x", "1 - x", "cos(3*x)"], "targets": [1.0, -1.0, 1.0]},
    "loss": {"kind": "logistic", "train_outputs": True},
    "regularization": {"kernel": 0.05, "bias": 0.1, "outputs": 1e-2},
    "solver": {"representation": "gram", "escape": False},
}
SELF = fem_dnn.Request(comm=MPI.COMM_SELF)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A result with its kernel in `whole`, the same one without it in `wide`."""
    out = tmp_path_factory.mktemp("trained")
    run = fem_dnn.solve(CASE, SELF)
    assert run.result["converged"] and run.result["representation"] == "gram"
    arrays = run.arrays | {"made_by": json.dumps({"case": run.result["case"]})}
    for name in ("whole", "wide"):
        (out / name).mkdir()
        write_arrays(out / name / "solution.npz", arrays)
        arrays.pop("kernel", None)
    (out / "result.json").write_text(json.dumps(run.result))
    return out


def on_mesh(cells: int, layers: int, scheme: str) -> dict:
    width = {"shape": "interval", "length": 1.0, "cells": cells}
    mesh = {"width": width, "depth": {"length": 1.0, "cells": layers}}
    return merged(CASE, mesh=mesh, network={"depth_scheme": scheme})


@pytest.mark.mpi
@pytest.mark.parametrize("mesh", [(8, 2, "dg1"), (5, 3, "dg2"), (16, 1, "resnet")], ids=str)
def test_its_factors_are_transferred_as_its_kernel_is(folder, mesh):
    whole, wide = (fem_dnn.transfer(folder / name, on_mesh(*mesh)) for name in ("whole", "wide"))
    for name in ("objective", "loss", "regularization", "norm_kept", "gradient_norm"):
        assert wide[name] == pytest.approx(whole[name], rel=1e-11, abs=1e-12), name
    assert wide["train_accuracy"] == whole["train_accuracy"]


@pytest.mark.mpi
@pytest.mark.parametrize("mesh", [(8, 2, "dg1"), (12, 3, "resnet"), (5, 1, "dg0")], ids=str)
def test_between_wide_networks_the_kernel_stays_in_factors(folder, mesh, monkeypatch, tmp_path):
    tables = on_mesh(*mesh)
    whole = fem_dnn.transfer(folder / "whole", tables)
    monkeypatch.setattr(network_transfer, "KERNEL_NODES", 4)
    monkeypatch.setattr(results, "KERNEL_NODES", 4)
    out = MPI.COMM_WORLD.bcast(tmp_path / "moved")
    wide = fem_dnn.transfer(folder / "wide", tables, fem_dnn.Request(out=out))
    for name in ("objective", "loss", "regularization", "norm_kept", "gradient_norm"):
        assert wide[name] == pytest.approx(whole[name], rel=1e-10, abs=1e-12), name
    # What it leaves is a network in Gram form like any other.
    with np.load(out / "solution.npz") as file:
        assert "kernel" not in file and file["q"].shape == file["control_state"].shape
    predicted = fem_dnn.predict(out, tables)
    assert predicted["accuracy"] == whole["train_accuracy"]
    again = fem_dnn.transfer(out, tables)
    assert again["objective"] == pytest.approx(whole["objective"], rel=1e-12)


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("section", "values", "reason"),
    [
        ("network", {"kernel_mask": "x - y < 0.5"}, "the kernel has a mask"),
        ("bounds", {"bias": [-1.0, 1.0]}, "the controls have bounds"),
        ("regularization", {"kernel_width": 0.1}, "derivatives of the controls are penalised"),
    ],
)
def test_what_factors_do_not_tell_is_refused_by_name(folder, monkeypatch, section, values, reason):
    monkeypatch.setattr(network_transfer, "KERNEL_NODES", 9)
    tables = {cells: merged(on_mesh(cells, 2, "dg1"), **{section: values}) for cells in (9, 10)}
    with pytest.raises(fem_dnn.BadInput) as refused:
        fem_dnn.transfer(folder / "wide", tables[10])
    text = str(refused.value)
    assert text.startswith("mesh.width: has 10 nodes, for which the kernel of the network in ")
    assert f"but {reason}; allowed: at most 9 nodes" in text and "\n" not in text
    assert fem_dnn.transfer(folder / "wide", tables[9])["converged"]


def started(folder: Path, name: str, **sections) -> dict:
    """The first point of a solve from a result, and how it was solved."""
    initial = {"kind": "file", "path": str(folder / name / "solution.npz")}
    solver = {"initial": initial, "max_iterations": 0, **sections.pop("solver", {})}
    result = fem_dnn.solve(merged(CASE, **sections, solver=solver)).result
    return {**result, **result["history"][0]}


@pytest.mark.mpi
@pytest.mark.parametrize("form", ["gram", "dense"])
@pytest.mark.parametrize("name", ["wide", "whole"])
def test_a_solve_starts_where_another_ended(folder, name, form):
    ended = json.loads((folder / "result.json").read_text())
    first = started(folder, name, solver={"representation": form})
    assert first["representation"] == form
    assert first["objective"] == pytest.approx(ended["objective"], rel=1e-13)
    assert first["gradient_norm"] <= 2 * ended["gradient_norm"] + 1e-12


@pytest.mark.mpi
def test_other_weights_and_other_samples_start_from_the_same_network(folder):
    """The kernel is the file's, not q at the case's own lambda and states."""
    for sections in (
        {"regularization": {"kernel": 0.02, "bias": 0.3}},
        {"data": {"inputs": ["x", "x**2"], "targets": [1.0, -1.0]}},
        {"data": {"inputs": [f"cos({k}*x)" for k in range(5)], "targets": [1.0, -1.0] * 2 + [1.0]}},
    ):
        gram, dense = (
            started(folder, "wide", **sections, solver={"representation": form})
            for form in ("gram", "dense")
        )
        case = merged(CASE, **sections)
        moved = fem_dnn.transfer(folder / "whole", case)
        assert dense["objective"] == pytest.approx(moved["objective"], rel=1e-12)
        assert gram["objective"] <= dense["objective"] * (1 + 1e-12), "the loss stays, R gets less"
        predicted = fem_dnn.predict(folder / "wide", case)
        assert predicted["accuracy"] == moved["train_accuracy"]


def test_the_program_says_what_is_missing(folder):
    """One line each: no kernel nor factors; another mesh."""
    arrays = dict(np.load(folder / "wide/solution.npz"))
    del arrays["q"]
    (folder / "none").mkdir()
    np.savez(folder / "none/solution.npz", **arrays)
    write_case(folder / "case.toml", CASE)
    start = "solver.initial={{ kind = 'file', path = '{}/solution.npz' }}"
    finer = ["--set", "mesh.width.cells=9"]
    commands = {
        "none/solution.npz has no kernel": ["transfer", "none", "case.toml"],
        'has no array "kernel"': ["solve", "case.toml", "--set", start.format("none")],
        '"wide/solution.npz:q" has shape (4, 3, 8)': [
            *["solve", "case.toml", *finer, "--set"],
            start.format("wide"),
        ],
    }
    outcomes = batch(list(commands.values()), folder=folder)
    for says, [outcome] in zip(commands, outcomes, strict=True):
        assert outcome.status == 2 and says in outcome.err, outcome
        assert outcome.err.count("\n") == 1
