"""Branches with folds and branch points that are known in closed form."""

import math

import numpy as np
import pytest
from mpi4py import MPI
from program import merged
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import norm

from fem_dnn.path_following import path

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF


def request_on(comm):
    from fem_dnn.request import Request

    return Request(comm=comm)


def followed(case: dict, comm=SELF, **sections) -> dict:
    """The result of a path; on one rank by default, where the mesh has fewer cells than ranks."""
    result = path(merged(case, **sections), request_on(comm)).result
    assert result["converged"], result["reason"]
    for branch in result["branches"]:
        assert max(branch["gradient_norm"]) < 1e-8
        assert set(branch["kind"]) <= {"minimum", "saddle", "maximum", "degenerate"}
        for column in ("objective", "kind", "lowest_eigenvalue", "negative_eigenvalues"):
            assert len(branch[column]) == len(branch["parameter"])
    return result


def kinds(branch: dict) -> list[str]:
    """Without repetition."""
    return [
        k for k, before in zip(branch["kind"], ["", *branch["kind"]], strict=False) if k != before
    ]


# gelu, bias only, one neuron, input 0, target 1: B is critical where
# lambda B + (sigma(B) - 1) sigma'(B) = 0, on every layer the same: lambda(B) in closed form.
GELU = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.0, "cells": 1},
        "depth": {"length": 1.0, "cells": 1},
    },
    "network": {"activation": "gelu", "depth_scheme": "resnet", "kernel": False},
    "data": {"inputs": ["0"], "targets": ["1"]},
    "solver": {"initial": {"kind": "constant", "bias": -0.9}},
    "path": {"parameter": "regularization.bias", "start": 0.02, "stop": 0.2},
}


def gelu(B: float) -> tuple[float, float, float]:
    """sigma, sigma', sigma''."""
    return B * norm.cdf(B), norm.cdf(B) + B * norm.pdf(B), (2 - B * B) * norm.pdf(B)


def weight(B: float) -> float:
    """lambda(B)."""
    value, slope, _ = gelu(B)
    return (1 - value) * slope / B


def layers(count: int) -> dict:
    return {"mesh": merged(GELU["mesh"], depth={"cells": count})}


FOLD = -minimize_scalar(
    lambda B: -weight(B), bounds=(-3, -0.76), method="bounded", options={"xatol": 1e-12}
).fun


def test_fold_of_the_scalar_problem() -> None:
    (branch,) = followed(GELU)["branches"]
    (fold,) = branch["events"]
    assert fold["kind"] == "fold"
    assert abs(fold["parameter"] - FOLD) < 1e-10
    assert branch["parameter"][0] == branch["parameter"][-1] == 0.02
    assert branch["end"] == "path.start was reached"
    assert kinds(branch) == ["minimum", "maximum"]  # there is one control
    for value, size in zip(branch["parameter"], branch["control_norm"], strict=True):
        assert weight(-size) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("count", [2, 3])
def test_layers_that_part(count: int) -> None:
    """Where B sigma''(B) = sigma'(B) the layers may differ: count - 1 eigenvalues pass zero."""
    B = brentq(lambda B: B * gelu(B)[2] - gelu(B)[1], -1.4, -1.0, xtol=1e-14)
    first, *others = followed(GELU, **layers(count))["branches"]
    point, fold = first["events"]
    assert (point["kind"], fold["kind"]) == ("branch point", "fold")
    assert point["after_points"] <= fold["after_points"]  # less than 1 % of the range apart
    assert abs(point["parameter"] - weight(B)) < 1e-8
    assert abs(fold["parameter"] - FOLD) < 1e-9
    assert point["zero_eigenvalues"] == count - 1
    assert kinds(first)[0] == "minimum" and kinds(first)[-1] == "maximum"
    assert point["branches"] == [1, 2] and len(others) == 2
    assert point["symmetric_copies"] == (2 if count == 3 else 0)
    for number, branch in enumerate(others, 1):
        assert branch["from"]["branch"] == branch["from"]["event"] == 0
        assert abs(branch["parameter"][0] - point["parameter"]) < 0.02
        assert branch["parameter"][-1] == 0.02
        assert "maximum" not in branch["kind"] and min(branch["negative_eigenvalues"]) >= 1, number
    # A pitchfork's arms are mirror images; three layers part in two ways that are none.
    same = np.allclose(others[0]["objective"][-1], others[1]["objective"][-1], rtol=1e-9)
    assert same == (count == 2)


# Exact case 5: carry f to -f, linear; |f| = 1.2, lambda_b = 0.1, omega T / lambda_b = 10 000.
REFLECTION = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.0, "cells": 2},
        "depth": {"length": 1.0, "cells": 4},
    },
    "network": {"activation": "linear", "depth_scheme": "dg2"},
    "data": {"inputs": ["1.2"], "targets": ["-1.2"]},
    "loss": {"weight": 1e3},
    "regularization": {"bias": 0.1},
    "path": {
        "parameter": "regularization.kernel",
        "start": 0.0640,
        "stop": 0.0625,
        "branch_switching": False,
    },
}


def test_threshold_of_the_straight_path() -> None:
    """It loses stability at sqrt(lambda_b / lambda_a) |f| = 1.5088796: four digits."""
    (branch,) = followed(REFLECTION)["branches"]
    (event,) = branch["events"]
    assert event["kind"] == "branch point" and event["zero_eigenvalues"] == 1
    assert abs(1.2 * math.sqrt(0.1 / event["parameter"]) - 1.5088796) < 5e-5
    assert kinds(branch) == ["minimum", "saddle"]
    assert branch["negative_eigenvalues"][-1] == 1


def test_pitchfork_met_along_an_arm() -> None:
    """The curve of the two arms turns at the branch point, where its handle is found."""
    arm = {"start": 0.058, "stop": 0.062, "branch_switching": True}
    start = {"initial": {"kind": "random", "scale": 1.0, "seed": 1}}
    coarse = {"mesh": {"depth": {"length": 1.0, "cells": 8}}, "network": {"depth_scheme": "resnet"}}
    arms, *handle = followed(
        REFLECTION, **merged(coarse, mesh={"width": REFLECTION["mesh"]["width"]}),
        loss={"weight": 2.0}, solver=start, path=arm,
    )["branches"]  # fmt: skip
    (turn,) = arms["events"]
    assert turn["kind"] == "branch point" and turn["branches"] == [1, 2]
    assert arms["end"] == "path.start was reached" and kinds(arms) == ["minimum"]
    assert arms["objective"][0] == pytest.approx(arms["objective"][-1], rel=1e-9)
    # Mirror images, as far as the null vector is that of the branch point itself.
    assert arms["amplitude"][0] == pytest.approx(-arms["amplitude"][-1], rel=5e-3)
    # The straight path below and above the threshold, and the threshold by its eigenvalue.
    below, above = sorted(handle, key=lambda branch: branch["parameter"][-1])
    assert (below["parameter"][-1], above["parameter"][-1]) == (0.058, 0.062)
    assert kinds(below) == ["saddle"] and kinds(above) == ["minimum"]
    crossing = np.interp(
        0.0, *([b[c][0] for b in (below, above)] for c in ("lowest_eigenvalue", "parameter"))
    )
    assert turn["parameter"] == pytest.approx(crossing, rel=1e-5)


def test_a_number_of_the_mesh() -> None:
    """relu, bias only: B = d / (T + lambda), J = lambda d^2 / (2 (T + lambda)) as T grows."""
    case = merged(GELU, network={"activation": "relu"}, solver={"initial": {"kind": "constant"}})
    number = {"parameter": "mesh.depth.length", "start": 1.0, "stop": 3.0}
    (branch,) = followed(case, regularization={"bias": 0.1}, path=number)["branches"]
    T = np.array(branch["parameter"])
    assert (T[0], T[-1]) == (1.0, 3.0) and not branch["events"]
    assert np.allclose(branch["objective"], 0.05 / (T + 0.1), rtol=1e-9)
    assert set(branch["kind"]) == {"minimum"}


def test_limit_of_points() -> None:
    result = followed(GELU, path={"max_points": 3})
    assert [len(branch["parameter"]) for branch in result["branches"]] == [3]
    assert "max_points" in result["reason"]


RANKS = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.0, "cells": 4},
        "depth": {"length": 2.0, "cells": 2},
    },
    "network": {"activation": "gelu", "depth_scheme": "resnet"},
    "data": {"dataset": "circles", "samples": 8, "noise": 0.0, "test_fraction": 0.0},
    "loss": {"kind": "logistic", "outputs": ["cos(3*pi*x[0])"]},
    "regularization": {"bias": 0.1, "kernel_depth": 0.1, "kernel_width": 0.01},
    "path": {"start": 0.2, "stop": 0.002, "max_points": 9},
}


@pytest.mark.mpi
@pytest.mark.several_ranks
def test_on_any_number_of_ranks() -> None:
    """Derivatives penalised, a branch point, other branches: the same on all communicators."""
    alone, together = (followed(RANKS, comm)["branches"] for comm in (SELF, WORLD))
    assert alone[0]["events"] and len(alone) == len(together) > 1
    for one, other in zip(alone, together, strict=True):
        assert one["kind"] == other["kind"] and one["end"] == other["end"]
        for column in ("parameter", "objective", "lowest_eigenvalue"):
            assert np.allclose(one[column], other[column], rtol=1e-6, atol=1e-9)
        parameters = [[event["parameter"] for event in b["events"]] for b in (one, other)]
        assert np.allclose(*parameters, rtol=1e-7)
