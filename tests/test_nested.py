"""Nested iteration: the same minimiser, for less work on the finest mesh."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import relative
from mpi4py import MPI

import fem_dnn
from fem_dnn.assembly import assemble
from fem_dnn.nested import coarsened, coarser_case, hierarchy

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF

CASE: dict[str, Any] = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.0, "cells": 16},
        "depth": {"length": 1.0, "cells": 8},
    },
    "network": {"depth_scheme": "resnet"},
    "data": {"inputs": ["x", "1 - x", "cos(3*x)"], "targets": ["1", "-x", "x**2"]},
    "loss": {"tracking": 0.5},
    "regularization": {"kernel": 0.2, "bias": 0.2},  # one minimiser only
}


def with_values(tables: dict[str, Any], section: str, **values: object) -> dict[str, Any]:
    return {**tables, section: {**tables.get(section, {}), **values}}


def sweeps(result: dict[str, Any], mesh: int | None) -> float:
    """Work of the descent on one mesh (without the look at the curvature)."""
    counts = [line["sweeps"] for line in result["history"] if line.get("mesh") == mesh]
    return float(counts[-1] - counts[0])


@pytest.mark.mpi
def test_same_minimiser_for_less_work() -> None:
    plain = fem_dnn.solve(CASE).result
    nested = fem_dnn.solve(with_values(CASE, "solver", nested=2)).result
    assert plain["converged"] and nested["converged"]
    assert abs(nested["objective"] - plain["objective"]) < 1e-12
    assert nested["initial_gradient_norm"] == pytest.approx(plain["initial_gradient_norm"], 1e-13)
    assert nested["gradient_norm"] <= 1e-8 * plain["initial_gradient_norm"]
    assert [line["iteration"] for line in nested["history"]] == list(range(len(nested["history"])))
    assert {line["mesh"] for line in nested["history"]} == {0, 1, 2}
    assert "mesh" not in plain["history"][0]
    first = next(line for line in nested["history"] if line["mesh"] == 2)
    assert first["gradient_norm"] < 0.1 * plain["initial_gradient_norm"]
    assert sweeps(nested, 2) < sweeps(plain, None)


def test_data_from_arrays(tmp_path: Path) -> None:
    """The same case with everything in files, mask and given kernel too."""
    model = assemble(fem_dnn.Case.parse(CASE), SELF)
    rng = np.random.default_rng(0)
    arrays = {
        "inputs": model.ingredients.train.inputs,
        "targets": model.ingredients.train.targets,
        "tracked": rng.standard_normal((9, 3, 16)),
        "mask": (rng.random((16, 16)) < 0.5).astype(float),
        "weights": np.array([0.2, 0.3, 0.5]),
    }
    np.savez(tmp_path / "case.npz", **arrays)
    tables = with_values(CASE, "network", kernel_mask="case.npz:mask", width_degree=0)
    tables["data"] = {
        "inputs": "case.npz:inputs",
        "targets": "case.npz:targets",
        "tracking_targets": "case.npz:tracked",
        "weights": "case.npz:weights",
    }
    results = [
        fem_dnn.solve(
            fem_dnn.Case.parse(with_values(tables, "solver", nested=k), folder=tmp_path)
        ).result
        for k in (0, 1)
    ]
    assert all(result["converged"] for result in results)
    assert abs(results[0]["objective"] - results[1]["objective"]) < 1e-12


@pytest.mark.mpi
def test_coarse_data_are_projections_on_any_ranks() -> None:
    tables = with_values(CASE, "network", depth_scheme="dg1", bias="x*t", width_degree=1)
    tables["mesh"] = {**CASE["mesh"], "depth": {"points": [0.0, 0.1, 0.3, 0.7, 1.2]}}
    tables = with_values(tables, "solver", nested=2)
    fine, alone = (assemble(fem_dnn.Case.parse(tables), comm) for comm in (WORLD, SELF))
    spread, serial = hierarchy(fine), hierarchy(alone)
    assert [model.network.space.n_nodes for model in spread] == [8, 16]
    assert [model.network.levels.layers for model in spread] == [1, 2]
    for one, other in zip(spread, serial, strict=True):
        assert relative(one.ingredients.train.inputs, other.ingredients.train.inputs) < 1e-13
        assert relative(one.ingredients.bias, other.ingredients.bias) < 1e-13
    # x and t x are linear: their projections are themselves.
    coarse = spread[0]
    x, t = coarse.network.space.nodes[:, 0], coarse.network.levels.t
    assert relative(coarse.ingredients.train.inputs[0], x) < 1e-13
    assert relative(coarse.ingredients.bias, t[:, None] * x) < 1e-13


def test_rectangle_and_data_set() -> None:
    tables: dict[str, Any] = {
        "mesh": {
            "width": {"shape": "rectangle", "length": [1.0, 1.0], "cells": [4, 4]},
            "depth": {"length": 2.0, "cells": 2},
        },
        "network": {"depth_scheme": "resnet"},
        "data": {"dataset": "circles", "samples": 20, "embedding": "modes"},
        "loss": {"kind": "logistic", "outputs": "default", "train_outputs": True},
        "regularization": {"kernel": 0.1, "bias": 0.1, "outputs": 0.1},
    }
    model = coarsened(assemble(fem_dnn.Case.parse(tables), SELF))
    assert model.case.mesh.width.cells == (2, 2)
    assert model.ingredients.outputs is not None and model.ingredients.outputs.shape[1] == 4
    assert model.ingredients.train.targets is not None
    results = [
        fem_dnn.solve(with_values(tables, "solver", nested=k)).result["objective"] for k in (0, 1)
    ]
    assert abs(results[0] - results[1]) < 1e-12


def test_graded_depth_keeps_every_second_end() -> None:
    tables = {**CASE, "mesh": {**CASE["mesh"], "depth": {"points": [0.0, 0.1, 0.3, 0.6, 1.0]}}}
    assert coarser_case(fem_dnn.Case.parse(tables)).mesh.depth.slab_ends == (0.0, 0.3, 1.0)


@pytest.mark.parametrize(
    ("cells", "layers", "nested", "says"),
    [
        (6, 8, 2, r"is 2, but mesh.width has 6 cells, which can be halved only 1 times"),
        (8, 3, 1, r"is 1, but mesh.depth has 3 layers"),
        (8, 8, 10**6, r"is 1000000, but mesh.depth has 8 layers, .* only 3 times; allowed: 0 to 3"),
    ],
)
def test_what_cannot_be_halved(cells: int, layers: int, nested: int, says: str) -> None:
    tables = with_values(CASE, "solver", nested=nested)
    tables["mesh"] = {
        "width": {"shape": "interval", "length": 1.0, "cells": cells},
        "depth": {"length": 1.0, "cells": layers},
    }
    with pytest.raises(fem_dnn.BadInput, match=r"solver\.nested: " + says):
        fem_dnn.Case.parse(tables)
