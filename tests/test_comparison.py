"""`compare`: methods side by side, by the command line and from Python."""

import json

import pytest
from program import batch, here, merged, write_case

from fem_dnn import pictures
from fem_dnn.comparison import summarised
from fem_dnn.solvers import METHODS

CASE = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.0, "cells": 3},
        "depth": {"length": 1.0, "cells": 2},
    },
    "network": {"depth_scheme": "resnet"},
    "data": {"inputs": ["x[0]", "1"], "targets": ["0", "x[0]**2"]},
    "regularization": {"kernel": 0.1, "bias": 0.1},
    "solver": {"rtol": 1e-7},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    write_case(folder / "case.toml", CASE)
    return folder


@pytest.fixture(scope="module")
def compared(folder):
    return here("compare", "case.toml", "--out", "out", "--json", "r.json", folder=folder)


def test_all_methods_agree(folder, compared):
    assert (compared.status, compared.err) == (0, "")
    result = json.loads((folder / "r.json").read_text())
    assert result == json.loads((folder / "out/result.json").read_text())
    assert result["converged"] is True and result["agree"] is True
    assert result["reason"] == "all methods end at the same objective"
    assert [one["method"] for one in result["methods"]] == list(METHODS)
    first = result["methods"][0]["history"][0]
    for one in result["methods"]:
        assert one["converged"] is True
        assert 0 <= one["gap"] < 1e-12 * result["best_objective"] + 1e-12
        assert one["gradient_norm"] <= 1e-7 * one["initial_gradient_norm"]
        assert one["history"][0]["objective"] == first["objective"]
        assert one["sweeps"] == one["history"][-1]["sweeps"]
        sweeps = [line["sweeps"] for line in one["history"]]
        assert sweeps == sorted(sweeps) and sweeps[0] == 2
        # A second method does not carry on counting where the first has stopped.
        last = one["history"][-1]
        least = last["state_solves"] + last["adjoint_solves"] + 4 * last["hessian_solves"]
        assert least - 2 < one["sweeps"]
    assert {one["gap"] for one in result["methods"]} >= {0.0}


def test_table_and_picture(folder, compared):
    rows = [line.split() for line in compared.out.splitlines()]
    table = {row[0]: row for row in rows if row and row[0] in METHODS and row[-1] == "yes"}
    assert table.keys() == METHODS.keys()
    result = json.loads((folder / "r.json").read_text())
    for one in result["methods"]:
        assert float(table[one["method"]][1]) == pytest.approx(one["objective"], rel=1e-9)
        assert int(table[one["method"]][4]) == one["iterations"]
    assert "all methods end at the same objective" in compared.out
    assert (folder / "out/comparison.png").read_bytes()[:4] == b"\x89PNG"


def test_chosen_methods_and_one_that_does_not_converge(folder):
    limit = ["--set", "solver.max_iterations=5"]
    words = ["compare", "case.toml", "--methods", "bntr, gradient", *limit, "--json", "-"]
    outcome = here(*words, folder=folder)
    assert outcome.status == 1
    result = outcome.json
    assert [one["method"] for one in result["methods"]] == ["bntr", "gradient"]
    assert result["converged"] is False
    assert "not converged: gradient" in result["reason"]
    assert "limit of 5 iterations" in result["methods"][1]["reason"]


def test_on_two_ranks(folder):
    case = merged(CASE, solver={"max_iterations": 4, "rtol": 1e-12})
    write_case(folder / "short.toml", case)
    words = ["compare", "short.toml", "--quiet", "--json"]
    [[alone]] = batch([[*words, "1.json"]], folder=folder)
    [[first, second]] = batch([[*words, "2.json"]], ranks=2, folder=folder)
    assert (first.status, second.status, alone.status) == (1, 1, 1)
    assert (first.out, first.err, second.out, second.err) == ("", "", "", "")
    one, two = (json.loads((folder / f"{n}.json").read_text()) for n in (1, 2))
    for a, b in zip(one["methods"], two["methods"], strict=True):
        assert a["objective"] == pytest.approx(b["objective"], rel=1e-12)
        assert a["sweeps"] == pytest.approx(b["sweeps"])


def outcome(method, objective, gradient_norm, **more):
    return {"method": method, "converged": True, "objective": objective,
            "gradient_norm": gradient_norm, **more}  # fmt: skip


def test_agreement_is_as_close_as_the_gradients_allow():
    """J - J* <= |g|^2/(2 mu): 5e-7 for |g| = 1e-4, mu = 1e-2."""
    found = summarised([outcome("a", 1.0, 1e-9), outcome("b", 1.0 + 4e-7, 1e-4)], 1e-2)
    assert found["agree"] and found["best_method"] == "a"
    assert found["methods"][1]["gap"] == pytest.approx(4e-7, rel=1e-6)
    apart = summarised([outcome("a", 1.0 + 6e-7, 1e-4), outcome("b", 1.0, 1e-9)], 1e-2)
    assert not apart["agree"] and apart["converged"]
    assert "another critical point" in apart["reason"] and "a" in apart["reason"].split(": ")[1]
    known = summarised(
        [outcome("a", 1.0 + 6e-7, 1e-4, lowest_eigenvalue=5e-3), outcome("b", 1.0, 1e-9)], 1e-2
    )
    assert known["agree"]


def test_picture_shows_gap_and_gradient_against_work_and_time():
    def history(*objectives):
        return [
            {
                "objective": J,
                "gradient_norm": J / 7,
                "sweeps": 2.0 * k + 2,
                "seconds": 0.1 * k + 0.1,
            }
            for k, J in enumerate(objectives)
        ]

    figure = pictures.compared_methods(
        {"newton": history(5.0, 3.0), "sweep": history(5.0, 4.0, 3.5)}, target=0.5
    )
    panels = figure.axes
    assert len(panels) == 4
    thick = [line for line in panels[0].lines if line.get_label() == "sweep"]
    assert thick[0].get_xdata().tolist() == [2.0, 4.0, 6.0]
    assert thick[0].get_ydata().tolist() == [2.0, 1.0, 0.5]
    assert panels[2].get_xlabel().startswith("work") and panels[3].get_xlabel().startswith("time")
    assert any(line.get_ydata()[0] == 0.5 for line in panels[2].lines)
    with pytest.raises(ValueError, match="no history"):
        pictures.compared_methods({})
