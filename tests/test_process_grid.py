"""Samples over ranks beside the width: the same problem, to round-off, on every process grid."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_transposes, everywhere, random_control, relative
from mpi4py import MPI
from program import batch, merged, write_case

from fem_dnn import process_grid
from fem_dnn.assembly import assemble
from fem_dnn.case import Case
from fem_dnn.commands import solve
from fem_dnn.comparison import compare
from fem_dnn.curvature_metric import curvature_coordinates, why_not
from fem_dnn.problem import LearningProblem
from fem_dnn.process_grid import (
    WAITED_FOR,
    GridModel,
    best_group_count,
    redistributed,
    words_received,
)
from fem_dnn.request import Request
from fem_dnn.sample_groups import SampleGroups
from fem_dnn.slab import SlabFailure

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF
RANKS = WORLD.size

INTERVAL = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.2, "cells": 4},
        "depth": {"points": [0.0, 0.3, 1.0]},
    },
    "data": {
        "inputs": ["sin(3*x)", "x**2", "1", "cos(5*x)", "exp(-x)"],
        "targets": ["x", "0.3", "1 - x", "0", "x**2"],
        "weights": [0.1, 0.3, 0.25, 0.2, 0.4],
    },
    "regularization": {"kernel": 0.05, "bias": 0.1},
}
LABELS = {"targets": [1, -1, -1, 1, 1]}

CASES: dict[str, dict[str, Any]] = {
    "tracking": merged(INTERVAL, loss={"tracking": 0.7}),
    "tracking along resnet": merged(
        INTERVAL,
        network={"depth_scheme": "resnet", "activation": "sigmoid"},
        loss={"tracking": 0.7},
        data={"tracking_targets": ["t", "x*t", "0", "1", "x"]},
    ),
    "learned outputs": merged(
        INTERVAL, data=LABELS, loss={"kind": "logistic", "train_outputs": True, "weight": 2.0}
    ),
    "mask": merged(
        INTERVAL,
        mesh={"width": {"shape": "rectangle", "length": [1.0, 1.0], "cells": [2, 2]}},
        network={"depth_scheme": "resnet", "width_degree": 1, "kernel_mask": "x[0] < y[1]"},
        data={
            "inputs": ["x[0]", "x[1]", "sin(3*x[0])", "1", "x[0]*x[1]"],
            "targets": [0, 2, 1, 1, 0],
        },
        loss={"kind": "softmax", "outputs": "default", "train_outputs": True},
    ),
    "penalised derivatives": merged(
        INTERVAL,
        network={"width_degree": 1, "depth_scheme": "dg0"},
        regularization={"kernel_depth": 0.02, "bias_width": 0.03, "kernel_width": 0.01},
    ),
    "mask, penalised in depth": merged(
        INTERVAL,
        network={"depth_scheme": "resnet", "kernel_mask": "x < y + 0.3"},
        regularization={"kernel_depth": 0.02, "bias_depth": 0.03},
    ),
    "bounds, given bias": merged(
        INTERVAL,
        network={"bias": "x*t", "depth_scheme": "resnet"},
        bounds={"kernel": [-0.2, 0.3]},
    ),
}  # fmt: skip


def problems(tables: dict[str, Any], groups: int = RANKS) -> tuple[LearningProblem, GridModel]:
    """The learning problem on one rank, and the model on a process grid of all."""
    case = Case.parse(tables)
    alone = assemble(case, SELF).problem
    assert alone is not None
    return alone, GridModel.of(assemble(case, WORLD), SampleGroups.of(WORLD, groups))


@pytest.mark.mpi
@pytest.mark.parametrize("name", CASES)
def test_the_same_on_the_grid(name: str) -> None:
    """Objective, gradient and Hessian product; 5 samples are shared unevenly."""
    alone, grid = problems(CASES[name])
    shared = grid.problem
    assert len(shared.sample_weights) == len(range(5)[shared.groups.share(5)])
    assert shared.controls.n_global == alone.controls.n_global
    assert shared.controls.sum(np.array(shared.controls.n_local)) == alone.controls.n_local
    a, b = (p.linearise(random_control(p)) for p in (alone, shared))
    assert relative(everywhere(shared, b.control), everywhere(alone, a.control)) < 1e-15
    assert b.objective == pytest.approx(a.objective, rel=1e-14)
    assert relative(everywhere(shared, b.gradient), everywhere(alone, a.gradient)) < 2e-14
    products = [
        everywhere(p, at.hessian_action(p.controls.random_direction(7)))
        for p, at in ((alone, a), (shared, b))
    ]
    assert relative(products[1], products[0]) < 1e-13
    assert b.gradient_norm == pytest.approx(a.gradient_norm, rel=1e-14)


@pytest.mark.mpi
def test_all_ranks_know_the_same_bits() -> None:
    """Else solvers would decide differently on different ranks."""
    _, grid = problems(CASES["learned outputs"])
    at = grid.problem.linearise(random_control(grid.problem))
    accuracy = grid.accuracy(at)
    assert accuracy is not None and accuracy * 5 == round(accuracy * 5)
    assert len(set(WORLD.allgather((at.objective, at.gradient_norm, accuracy)))) == 1


@pytest.mark.mpi
@pytest.mark.parametrize("name", ["learned outputs", "mask", "bounds, given bias"])
def test_redistribution_goes_there_and_back(name: str) -> None:
    case = Case.parse(CASES[name])
    model = assemble(case, WORLD)
    assert model.problem is not None
    grid = GridModel.of(model, SampleGroups.of(WORLD, RANKS))
    ours, theirs = model.problem.controls, grid.problem.controls
    control = ours.project(random_control(model.problem))
    there = redistributed(control, ours, theirs)
    assert relative(everywhere(grid.problem, there), everywhere(model.problem, control)) < 1e-15
    if ours.box is not None and theirs.box is not None:
        held = [
            int(c.sum(np.array(np.count_nonzero(c.box.active(v)))))
            for c, v in ((ours, control), (theirs, there))
        ]
        assert held[0] == held[1] > 0
    back = redistributed(there, theirs, ours)
    assert ours.norm(back - control) < 1e-15 * ours.norm(control)


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("tracking along resnet", "lbfgs"),
        ("learned outputs", "newton"),
        ("penalised derivatives", "newton"),
        ("bounds, given bias", "newton"),
    ],
)
def test_the_same_solution(name: str, method: str) -> None:
    tables = merged(CASES[name], solver={"method": method, "sample_groups": RANKS, "rtol": 1e-8})
    alone = solve(merged(tables, solver={"sample_groups": 1}), Request(comm=SELF))
    shared = solve(tables, Request(comm=WORLD))
    a, b = alone.result, shared.result
    assert a["converged"] and b["converged"], (a["reason"], b["reason"])
    assert (a["sample_groups"], b["sample_groups"]) == (1, RANKS)
    assert b["objective"] == pytest.approx(a["objective"], rel=1e-13)
    assert b["initial_gradient_norm"] == pytest.approx(a["initial_gradient_norm"], rel=1e-13)
    assert b["gradient_norm"] <= 1e-8 * b["initial_gradient_norm"]
    assert b["history"][-1]["objective"] == pytest.approx(b["objective"], rel=1e-14)
    assert b["history"][0].get("accuracy") == a["history"][0].get("accuracy")
    assert b.get("train_accuracy") == a.get("train_accuracy")
    if name == "penalised derivatives":  # both in the regulariser's coordinates
        assert b["iterations"] == a["iterations"]
    left, right = alone.arrays, shared.arrays
    assert left.keys() == right.keys()
    assert relative(right["state"], left["state"]) < 1e-7
    assert right["sample_weights"] == pytest.approx(left["sample_weights"])


LARGER = merged(
    INTERVAL,
    mesh={
        "width": {"shape": "interval", "length": 1.2, "cells": 12},
        "depth": {"length": 1.0, "cells": 4},
    },
    network={"depth_scheme": "resnet"},
    regularization={"kernel": 0.01, "bias": 0.01},
)
"""Controls enough for steps to be measured by the curvature."""


def repeated(tables: dict[str, Any], times: int) -> dict[str, Any]:
    """The same problem with every sample so many times, one after the other."""
    data = tables["data"]
    several = {name: [each for each in data[name] for _ in range(times)] for name in data}
    several["weights"] = [w / times for w in several["weights"]]
    return merged(tables, data=several)


@pytest.mark.mpi
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"data": LABELS, "loss": {"kind": "logistic", "train_outputs": True}},
        {"regularization": {"kernel": 0.05, "bias": 0.1, "kernel_depth": 0.02}},
    ],
    ids=["l2", "learned outputs", "smooth in depth"],
)
@pytest.mark.parametrize("enough", [256, 5])
def test_groups_measure_by_samples_that_stand_for_all(
    change: dict[str, Any], enough: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By all; or by each that is there twice, which is by all too: the same to round-off."""
    monkeypatch.setattr(process_grid, "ENOUGH", enough)
    tables = merged(LARGER, **change)
    alone, _ = problems(tables)
    _, grid = problems(tables if enough > 5 else repeated(tables, 2))
    of = grid.problem
    assert why_not(of) is None
    assert of.typical is not None
    assert of.typical.sample_weights == pytest.approx(alone.sample_weights)
    known = [(p, curvature_coordinates(p.linearise(random_control(p)))) for p in (alone, of)]
    for name in ("apply", "apply_transpose", "inverse"):
        images = [
            everywhere(p, getattr(metric, name)(p.controls.random_direction(3)))
            for p, metric in known
        ]
        assert relative(images[1], images[0]) < 1e-9, name
    shared = known[1][1]
    assert_transposes(shared, of.controls)
    lengths = [metric.newton_length(p.controls.random_direction(5)) for p, metric in known]
    assert lengths[1] == pytest.approx(lengths[0], rel=1e-9)


@pytest.mark.mpi
def test_newton_takes_no_more_sweeps_in_groups() -> None:
    alone, shared = (
        solve(merged(LARGER, solver={"sample_groups": count, "rtol": 1e-9}), Request(comm=comm))
        for comm, count in ((SELF, 1), (WORLD, RANKS))
    )
    assert alone.result["converged"] and shared.result["converged"]
    assert shared.result["objective"] == pytest.approx(alone.result["objective"], rel=1e-12)
    sweeps = [run.result["history"][-1]["sweeps"] for run in (alone, shared)]
    assert sweeps[1] < 1.2 * sweeps[0], sweeps
    assert shared.result["history"][1]["hessian_solves"] == 0, "quasi-Newton steps come first"


@pytest.mark.mpi
def test_nested_meshes_and_comparisons_use_the_grid() -> None:
    tables = merged(INTERVAL, solver={"sample_groups": RANKS, "nested": 1, "rtol": 1e-7},
                    mesh={"width": {"shape": "interval", "length": 1.0, "cells": 8},
                          "depth": {"length": 1.0, "cells": 2}})  # fmt: skip
    result = solve(tables, Request(comm=WORLD)).result
    assert result["converged"] and {line["mesh"] for line in result["history"]} == {0, 1}
    compared = compare(tables, Request(comm=WORLD), methods=["newton", "gradient"])
    assert compared["agree"], compared["reason"]
    assert compared["best_objective"] == pytest.approx(result["objective"], rel=1e-10)


@pytest.mark.mpi
@pytest.mark.skipif(RANKS == 1, reason="one group cannot fail alone")
def test_groups_fail_together() -> None:
    groups = SampleGroups.of(WORLD, RANKS)
    with pytest.raises(SlabFailure, match=r"0\.25"), groups.failing_together(SlabFailure):
        if groups.number == RANKS - 1:
            raise SlabFailure(0.25, 0.5, 1.0, 7)


def test_the_grid_that_costs_least_among_even_ones() -> None:
    assert best_group_count(1024, 512, 2) == 2, "1 sample for 2 nodes"
    assert best_group_count(512, 64, 2) == 1, "1 for 8"
    assert best_group_count(64, 1400, 2) == 2
    assert best_group_count(256, 256, 16) == 8
    assert best_group_count(4096, 1024, 64) == 8, "R/G = N/(4 S)"
    assert best_group_count(8, 3, 2) == 1, "3 samples do not go evenly into 2 groups"
    assert best_group_count(10, 1, 5) == 1, "no group without a sample"
    assert best_group_count(3, 100, 4) == 4
    for ranks in (2, 6, 8):
        for groups in (g for g in range(1, ranks + 1) if ranks % g == 0):
            # What moves for a weight w, against what would move: at most w times as much.
            least = words_received(240, 480, ranks, best_group_count(240, 480, ranks))
            assert least <= WAITED_FOR * words_received(240, 480, ranks, groups)


MISTAKES = {
    "0": "solver.sample_groups: 0 is not a number of groups",
    "1.5": "1.5 is not a number of groups",
    '"many"': '"many" is not a number of groups',
    "3": "solver.sample_groups: is 3, for 4 ranks; allowed: a divisor: 1, 2, 4",
}


def test_four_ranks(tmp_path: Path) -> None:
    """Mistakes are one line and status 2 on all ranks; two groups of two find the same."""
    case = merged(INTERVAL, network={"depth_scheme": "resnet"})
    write_case(tmp_path / "case.toml", case)
    setting = "solver.sample_groups="
    two = ["--set", setting + "2"]
    commands = [["solve", "case.toml", "--set", setting + value] for value in MISTAKES]
    commands += [
        ["solve", "case.toml", *two, "--set", "solver.method=sweep"],
        ["solve", "case.toml", *two, "--set", "solver.representation=gram"],
        ["compare", "case.toml", *two, "--methods", "newton,layerwise"],
        ["critical", "case.toml", *two],
        ["path", "case.toml", *two],
        ["solve", "case.toml", *two, "--set", "data.inputs=['x']", "--set", "data.targets=['1']",
         "--set", "data.weights=[1.0]"],
        ["solve", "case.toml", *two, "--json", "shared.json", "--quiet"],
    ]  # fmt: skip
    expected = [
        *MISTAKES.values(),
        "is 2, but sweep knows no groups",
        "solver.sample_groups is 2: it knows no groups",
        "is 2, but layerwise knows no groups",
        "is 2, but critical knows no groups",
        "is 2, but path knows no groups",
        "is 2, for 1 samples",
    ]
    *mistaken, solved = batch(commands, ranks=4, folder=tmp_path)
    for outcomes, text in zip(mistaken, expected, strict=True):
        assert [outcome.status for outcome in outcomes] == [2] * 4, outcomes
        assert text in outcomes[0].err and outcomes[0].err.count("\n") == 1
        assert {outcome.out + outcome.err for outcome in outcomes[1:]} == {""}
    assert [outcome.status for outcome in solved] == [0] * 4, solved
    shared = json.loads((tmp_path / "shared.json").read_text())
    assert (shared["ranks"], shared["sample_groups"]) == (4, 2)
    alone = solve(case, Request(comm=SELF))
    assert shared["objective"] == pytest.approx(alone.result["objective"], rel=1e-13)
