"""A trained network is run as it was trained, or not at all."""

from pathlib import Path

import pytest

import fem_dnn

TABLES = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.0, "cells": 4},
        "depth": {"length": 1.0, "cells": 2},
    },
    "network": {"depth_scheme": "resnet"},
    "data": {"inputs": ["x", "1 - x"], "targets": [1.0, -1.0]},
    "loss": {"kind": "logistic"},
}


def changed(section: str, **values: object) -> dict:
    return {**TABLES, section: {**TABLES[section], **values}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    run = fem_dnn.solve(TABLES, fem_dnn.Request(out=out))
    assert run.result["converged"] and run.result["train_accuracy"] == 1.0
    return out


def test_same_case(folder: Path) -> None:
    result = fem_dnn.predict(folder, TABLES)
    assert result["converged"] and result["classes"] == [1, -1] and result["accuracy"] == 1.0
    assert result["probabilities"][0] > 0.5 > result["probabilities"][1]


@pytest.mark.parametrize(
    ("tables", "key"),
    [
        (changed("network", activation="sigmoid"), "network.activation"),
        (changed("network", depth_scheme="dg0"), "network.depth_scheme"),
        # The same layer starts, which are resnet's control levels, but another T.
        (changed("mesh", depth={"points": [0.0, 0.5, 3.0]}), "mesh.depth"),
        (changed("mesh", depth={"length": 1.0, "cells": 3}), "mesh.depth"),
        (
            changed("mesh", width={"shape": "interval", "length": 2.0, "cells": 4}),
            "mesh.width",
        ),
    ],
)
def test_another_network_is_refused(folder: Path, tables: dict, key: str) -> None:
    with pytest.raises(fem_dnn.BadInput, match=key):
        fem_dnn.predict(folder, tables)


def test_overflow_is_no_result(tmp_path: Path) -> None:
    """A forward solve that blows up says so, and leaves no arrays of an older run."""
    (tmp_path / "solution.npz").write_bytes(b"old")
    tables = {
        "mesh": {
            "width": {"shape": "interval", "length": 1.0, "cells": 2},
            "depth": {"length": 1.0, "cells": 200},
        },
        "network": {
            "activation": "linear",
            "depth_scheme": "resnet",
            "kernel": "1e5",
            "bias": False,
        },
        "data": {"inputs": ["1"], "targets": ["0"]},
    }
    result = fem_dnn.forward(tables, fem_dnn.Request(out=tmp_path))
    assert not result["converged"] and "more layers" in result["reason"]
    assert not (tmp_path / "solution.npz").exists() and (tmp_path / "result.json").exists()
