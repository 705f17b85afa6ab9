"""`fem-dnn transfer`: a trained network on other meshes, and what it refuses."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI
from program import batch

import fem_dnn
from fem_dnn.results import write_arrays, write_json

COARSE = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.0, "cells": 4},
        "depth": {"length": 1.0, "cells": 2},
    },
    "network": {"depth_scheme": "dg1"},
    "data": {"inputs": ["x", "1 - x", "cos(3*x)"], "targets": ["1", "-x", "x**2"]},
    "regularization": {"kernel": 0.1, "bias": 0.1},
    "solver": {"rtol": 1e-3, "escape": False},
}
LOGISTIC = {
    **COARSE,
    "data": {**COARSE["data"], "targets": [1.0, -1.0, 1.0]},
    "loss": {"kind": "logistic", "train_outputs": True},
    "regularization": {**COARSE["regularization"], "outputs": 1e-2},
}


def changed(tables: Mapping[str, Any], section: str, **values: object) -> dict[str, Any]:
    return {**tables, section: {**tables.get(section, {}), **values}}


def on_mesh(tables: Mapping[str, Any], cells: int, layers: int) -> dict[str, Any]:
    return changed(
        tables,
        "mesh",
        width={"shape": "interval", "length": 1.0, "cells": cells},
        depth={"length": 1.0, "cells": layers},
    )


def trained(tables: Mapping[str, Any], folder: Path) -> None:
    """As `solve --out` leaves it, without the pictures."""
    solved = fem_dnn.solve(dict(tables), fem_dnn.Request(comm=MPI.COMM_SELF))
    assert solved.result["converged"]
    folder.mkdir()
    made_by = json.dumps({"case": solved.result["case"]})
    write_arrays(folder / "solution.npz", {**solved.arrays, "made_by": made_by})
    write_json(folder / "result.json", solved.result)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    trained(COARSE, out / "l2")
    trained(LOGISTIC, out / "logistic")
    return out


@pytest.mark.mpi
def test_same_mesh_gives_the_same_numbers(folder: Path) -> None:
    for name, tables in (("l2", COARSE), ("logistic", LOGISTIC)):
        solved = json.loads((folder / name / "result.json").read_text())
        result = fem_dnn.transfer(folder / name, tables)
        for number in ("objective", "loss", "regularization"):
            assert abs(result[number] - solved[number]) < 1e-12
        assert abs(result["norm_kept"] - 1) < 1e-12


def test_prolongation_keeps_the_regularization_and_nearly_the_loss(folder: Path) -> None:
    """A finer network is the same function of (x, y, t); only the inputs are resolved better."""
    there = fem_dnn.transfer(folder / "l2", COARSE)
    losses = []
    for factor in (2, 4, 8):
        here = fem_dnn.transfer(folder / "l2", on_mesh(COARSE, 4 * factor, 2 * factor))
        assert abs(here["regularization"] - there["regularization"]) < 1e-12
        losses.append(here["loss"])
    # The loss converges at order 2 of piecewise constants at their midpoints.
    assert 3 < (losses[0] - losses[1]) / (losses[1] - losses[2]) < 5


def test_restriction_loses_norm(folder: Path) -> None:
    result = fem_dnn.transfer(folder / "l2", on_mesh(COARSE, 2, 1))
    assert 0.5 < result["norm_kept"] < 1


def test_result_serves_as_initial_guess_and_for_predict(folder: Path, tmp_path: Path) -> None:
    finer = changed(on_mesh(LOGISTIC, 5, 2), "network", depth_scheme="dg2", width_degree=1)
    moved = fem_dnn.transfer(folder / "logistic", finer, fem_dnn.Request(out=tmp_path))
    predicted = fem_dnn.predict(tmp_path, finer)
    assert predicted["accuracy"] == moved["train_accuracy"]
    initial = {"kind": "file", "path": str(tmp_path / "solution.npz")}
    solved = fem_dnn.solve(changed(finer, "solver", initial=initial, max_iterations=0))
    first = solved.result["history"][0]
    assert abs(first["objective"] - moved["objective"]) < 1e-12
    assert abs(first["gradient_norm"] - moved["gradient_norm"]) < 1e-12


def test_files_without_their_mesh(folder: Path, tmp_path: Path) -> None:
    """As the first versions wrote them: the mesh follows from the case."""
    with np.load(folder / "l2" / "solution.npz") as arrays:
        kept = {k: arrays[k] for k in arrays.files if not k.startswith(("mesh_", "cell_nodes"))}
    np.savez(tmp_path / "solution.npz", **kept)
    finer = on_mesh(COARSE, 9, 4)
    old, new = fem_dnn.transfer(tmp_path, finer), fem_dnn.transfer(folder / "l2", finer)
    assert old["objective"] == new["objective"]
    del kept["made_by"]
    np.savez(tmp_path / "solution.npz", **kept)
    with pytest.raises(fem_dnn.BadInput, match="does not say which mesh"):
        fem_dnn.transfer(tmp_path, finer)


@pytest.mark.parametrize(
    ("tables", "key"),
    [
        (changed(COARSE, "network", activation="sigmoid"), "network.activation"),
        (changed(COARSE, "network", bias=False), "network.bias"),
        (changed(COARSE, "mesh", depth={"length": 2.0, "cells": 4}), "mesh.depth"),
        (
            changed(COARSE, "mesh", width={"shape": "interval", "length": 2.0, "cells": 4}),
            "mesh.width",
        ),
        (
            changed(
                changed(COARSE, "data", inputs=["1"], targets=["x[0]"]),
                "mesh",
                width={"shape": "rectangle", "length": [1.0, 1.0], "cells": [2, 2]},
            ),
            "mesh.width",
        ),
        ({**COARSE, "data": {"inputs": ["x"]}}, "data.targets"),
        (LOGISTIC, "loss.train_outputs"),
    ],
)
def test_what_is_refused(folder: Path, tables: dict[str, Any], key: str) -> None:
    with pytest.raises(fem_dnn.BadInput, match=key):
        fem_dnn.transfer(folder / "l2", tables)


def test_other_outputs_and_missing_folder_are_refused(folder: Path) -> None:
    three = changed(LOGISTIC, "loss", kind="softmax", outputs=["1", "x", "x**2"])
    three = changed(three, "data", targets=[0, 1, 2])
    with pytest.raises(fem_dnn.BadInput, match=r"loss\.outputs: are 3, but .* has 1"):
        fem_dnn.transfer(folder / "logistic", three)
    with pytest.raises(fem_dnn.BadInput, match=r"solution\.npz cannot be read"):
        fem_dnn.transfer(folder / "nowhere", COARSE)


def test_predict_points_to_transfer(folder: Path) -> None:
    with pytest.raises(fem_dnn.BadInput, match="fem-dnn transfer"):
        fem_dnn.predict(folder / "l2", on_mesh(COARSE, 12, 4))


TOML = """
[mesh]
width = { shape = "interval", length = 1.0, cells = 8 }
depth = { length = 1.0, cells = 3 }
[network]
depth_scheme = "resnet"
[data]
inputs = ["x", "1 - x", "cos(3*x)"]
targets = ["1", "-x", "x**2"]
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_command(folder: Path, tmp_path: Path, ranks: int) -> None:
    """Pure JSON on standard output; one line for a folder that is not there."""
    (tmp_path / "case.toml").write_text(TOML)
    words = [
        ["transfer", place, "case.toml", "--json", "-"] for place in (folder / "l2", "nowhere")
    ]
    [done, *silent], [lost, *others] = batch(words, ranks=ranks, folder=tmp_path)
    assert {(one.out, one.err) for one in silent + others} <= {("", "")}
    assert done.status == 0 and done.json["norm_kept"] > 0.9
    here = fem_dnn.transfer(folder / "l2", tmp_path / "case.toml")
    assert abs(done.json["objective"] - here["objective"]) < 1e-13
    assert {one.status for one in (lost, *others)} == {2}
    assert lost.err.startswith("fem-dnn: ") and lost.err.count("\n") == 1 and "nowhere" in lost.err
