"""The a posteriori error estimate against closed forms and much finer discretisations.

Effectivity is estimate / true error; it tends to 1 where the solution is smooth.
"""

from functools import cache

import numpy as np
import pytest
from mpi4py import MPI
from test_exact_bias_only import LAMBDA, continuum_objective
from test_exact_constant_operator import CELLS, inputs_and_targets, reduced_minimum
from test_exact_constant_operator import LAMBDA as LAMBDA_4
from test_exact_constant_operator import T as T_4

import fem_dnn
from fem_dnn.commands import Run
from fem_dnn.error_estimate import estimate_error
from fem_dnn.request import Request

INTERVAL = {"shape": "interval", "length": 1.0}
PROBLEMS = {
    "l2": ({"targets": ["1+0.3*sin(3*x[0])", "0.5*exp(x[0])-0.8"]}, {"weight": 0.5}),
    "mse": ({"targets": [[1.0, 0.2], [-0.3, 0.4]]}, {"kind": "mse", "outputs": ["1", "x[0]"]}),
    "logistic": ({"targets": [1, -1]}, {"kind": "logistic", "outputs": ["cos(x[0])"]}),
    "softmax": ({"targets": [1, 0]}, {"kind": "softmax", "train_outputs": True}),
    "tracking": (
        {
            "targets": ["1+0.3*sin(3*x[0])", "0.5*exp(x[0])-0.8"],
            "tracking_targets": ["sin(3*x[0])+t", "cos(2*x[0])-t"],
        },
        {"tracking": 0.5, "weight": 0.5},
    ),
}


def case(cells, layers, scheme, degree, *, activation="tanh", problem="mse", **sections):
    data, terminal = PROBLEMS[problem]
    width = INTERVAL | {"cells": cells}
    if not isinstance(cells, int):
        width = {"shape": "rectangle", "length": [1.0, 1.0], "cells": cells}
    tables = {
        "mesh": {"width": width, "depth": {"length": 1.2, "cells": layers}},
        "network": {
            "activation": activation,
            "depth_scheme": scheme,
            "width_degree": degree,
        },
        "data": {"inputs": ["sin(3*x[0])", "cos(2*x[0])"], **data},
        "loss": terminal,
        "regularization": {"kernel": 0.5, "bias": 0.4, "outputs": 0.5},
        "solver": {"rtol": 1e-9},
    }
    for name, entries in sections.items():
        tables[name] = tables.get(name, {}) | entries
    return tables


@cache
def reference(cells, layers, scheme, degree, problem, activation) -> float:
    """The optimal objective on a discretisation whose error does not count."""
    tables = case(cells, layers, scheme, degree, problem=problem, activation=activation)
    return solve(tables).solution.objective


def solve(tables, comm=MPI.COMM_SELF) -> Run:
    run = fem_dnn.solve(tables, Request(comm=comm))
    assert run.solution is not None and run.solution.converged, run.result["reason"]
    return run


@pytest.mark.parametrize(("scheme", "layers"), [("resnet", 6), ("dg0", 6), ("dg1", 2), ("dg2", 1)])
@pytest.mark.parametrize(
    ("problem", "activation"), [("mse", "sigmoid"), ("tracking", "tanh"), ("softmax", "softplus")]
)
def test_effectivity_in_depth(scheme, layers, problem, activation) -> None:
    exact = reference(2, 4, "dg2", 0, problem, activation)
    run = solve(case(2, layers, scheme, 0, problem=problem, activation=activation))
    error = run.solution.objective - exact
    assert 0.9 < run.estimate.depth / error < 1.1
    indicators = run.estimate.depth_indicators
    assert indicators.shape == (layers,)
    assert abs(indicators.sum() / run.estimate.depth - 1) < 0.1


@pytest.mark.parametrize(("degree", "cells"), [(0, 7), (1, 4), (2, 3)])
@pytest.mark.parametrize(
    ("problem", "activation"), [("l2", "tanh"), ("logistic", "gelu"), ("tracking", "linear")]
)
def test_effectivity_in_width(degree, cells, problem, activation) -> None:
    exact = reference(2, 1, "dg1", 5, problem, activation)
    run = solve(case(cells, 1, "dg1", degree, problem=problem, activation=activation))
    error = run.solution.objective - exact
    assert 0.9 < run.estimate.width / error < 1.1
    indicators = run.estimate.width_indicators
    assert indicators.shape == (cells,)
    assert abs(indicators.sum() / run.estimate.width - 1) < 0.1


@pytest.mark.parametrize(("scheme", "degree"), [("dg0", 0), ("dg1", 1)])
def test_effectivity_where_derivatives_are_penalised(scheme, degree) -> None:
    """R is then another form on the richer discretisation."""
    smooth = dict.fromkeys(("kernel_depth", "bias_depth", "kernel_width", "bias_width"), 0.05)
    fine = solve(case(6, 6, "dg1", 2, regularization=smooth))
    run = solve(case(6, 6, scheme, degree, regularization=smooth))
    error = run.solution.objective - fine.solution.objective
    assert 0.5 < run.estimate.total / error < 2
    assert abs(run.estimate.width_indicators.sum() / run.estimate.width - 1) < 0.1


@pytest.mark.parametrize(("degree", "cells"), [(0, [4, 3]), (1, [3, 2])])
def test_effectivity_on_a_rectangle(degree, cells) -> None:
    data = {"inputs": ["sin(2*x[0]+x[1])", "cos(x[0]-2*x[1])"]}
    fine = solve(case([2, 2], 1, "dg1", 3, data=data))
    run = solve(case(cells, 1, "dg1", degree, data=data))
    error = run.solution.objective - fine.solution.objective
    assert 0.9 < run.estimate.width / error < 1.1
    assert run.estimate.width_indicators.shape == (cells[0] * cells[1],)


@pytest.mark.parametrize(("degree", "cells"), [(0, 16), (1, 6), (2, 4)])
def test_exact_bias_only_in_width(degree, cells) -> None:
    """Exact case 2: states are linear in depth, so all of the error comes from the width."""
    run = solve(
        case(
            cells,
            2,
            "dg1",
            degree,
            mesh={
                "width": INTERVAL | {"cells": cells},
                "depth": {"points": [0.0, 0.5, 1.5]},
            },
            network={"kernel": False, "depth_scheme": "dg1", "width_degree": degree},
            data={"inputs": ["cos(x[0])"], "targets": ["cos(x[0])+1.1+0.3*sin(3*x[0])"]},
            loss={"kind": "l2", "outputs": ["1"]},
            regularization={"bias": LAMBDA},
        )
    )
    error = run.solution.objective - continuum_objective("tanh")
    assert 0.9 < run.estimate.width / error < 1.1
    assert abs(run.estimate.depth) < 1e-13


@pytest.mark.parametrize(("scheme", "layers"), [("resnet", 8), ("dg0", 8), ("dg1", 3), ("dg2", 2)])
def test_exact_constant_operator_in_depth(tmp_path, scheme, layers) -> None:
    """Exact case 4: the optimal objective by matrix exponentials."""
    inputs, targets = inputs_and_targets(CELLS)
    np.savez(tmp_path / "data.npz", inputs=inputs, targets=targets)
    run = solve(
        case(
            CELLS,
            layers,
            scheme,
            0,
            activation="linear",
            mesh={
                "width": INTERVAL | {"cells": CELLS},
                "depth": {"length": T_4, "cells": layers},
            },
            network={"bias": False, "activation": "linear", "depth_scheme": scheme},
            data={key: f"{tmp_path}/data.npz:{key}" for key in ("inputs", "targets")},
            loss={"kind": "l2", "outputs": ["1"]},
            regularization={"kernel": LAMBDA_4},
            solver={"escape": False},
        )
    )
    error = run.solution.objective - reduced_minimum()[0]
    assert 0.5 < run.estimate.depth / error < 2
    # Piecewise constant data have a piecewise constant solution: the width makes no error.
    assert abs(run.estimate.width) < 1e-12
    assert "inputs, targets from arrays" in run.estimate.notes[0]


@pytest.mark.mpi
@pytest.mark.parametrize("problem", ["tracking", "softmax"])
@pytest.mark.several_ranks
def test_the_same_on_any_number_of_ranks(problem) -> None:
    mask = {"network": {"kernel_mask": "abs(x[0]-y[0])<0.4", "width_degree": 1}}
    runs = [
        solve(case(4, 2, "dg1", 1, problem=problem, solver={"rtol": 1e-12}, **mask), comm)
        for comm in (MPI.COMM_WORLD, MPI.COMM_SELF)
    ]
    distributed, serial = (
        estimate_error(run.model, run.model.problem.linearise(run.solution.control)) for run in runs
    )
    assert np.isclose(distributed.depth, serial.depth, rtol=1e-5, atol=0)
    assert np.isclose(distributed.width, serial.width, rtol=1e-5, atol=0)
    for name, indicators in serial.arrays().items():
        scale = np.abs(indicators).max()
        assert np.allclose(distributed.arrays()[name], indicators, rtol=0, atol=1e-5 * scale)


def test_given_controls_are_prolonged_or_evaluated_anew(tmp_path) -> None:
    """A given kernel counts as what it is: an expression anew, an array as a discrete function."""
    nodes = (np.arange(4) + 0.5) / 4
    kernel = np.exp(-np.abs(nodes[:, None] - nodes))
    np.savez(tmp_path / "kernel.npz", kernel=kernel)
    texts = ("exp(-abs(x[0]-y[0]))", f"{tmp_path}/kernel.npz:kernel")
    anew, prolonged = (
        solve(case(4, 2, "dg1", 0, network={"kernel": text, "depth_scheme": "dg1"}))
        for text in texts
    )
    assert np.isclose(anew.solution.objective, prolonged.solution.objective, rtol=1e-12)
    assert np.isclose(anew.estimate.depth, prolonged.estimate.depth, rtol=1e-6)
    assert not np.isclose(anew.estimate.width, prolonged.estimate.width, rtol=1e-2)
    fine = solve(case(12, 2, "dg1", 0, network={"kernel": texts[0], "depth_scheme": "dg1"}))
    error = anew.solution.objective - fine.solution.objective
    assert 0.5 < anew.estimate.width / error < 2


def test_what_does_not_fit_is_left_out(monkeypatch) -> None:
    monkeypatch.setattr("fem_dnn.error_estimate.MEMORY", 6e4)
    run = solve(case(8, 2, "dg1", 0))
    assert run.estimate.width is None and run.estimate.total is None
    assert "no estimate in width: it would take" in run.estimate.notes[0]
    assert "width_indicators" not in run.arrays
    assert run.result["error_estimate"]["depth"] == run.estimate.depth


def test_no_estimate_without_convergence() -> None:
    run = fem_dnn.solve(case(3, 2, "dg1", 0, solver={"max_iterations": 1}))
    assert run.estimate is None and "error_estimate" not in run.result
