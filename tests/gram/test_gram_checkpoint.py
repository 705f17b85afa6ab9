"""What a solve in Gram form leaves behind, and what is said of going on from it."""

import io
from dataclasses import replace

import pytest
from mpi4py import MPI
from program import merged
from rich.console import Console

import fem_dnn
from fem_dnn.request import Request

CASE = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.0, "cells": 6},
        "depth": {"length": 1.0, "cells": 2},
    },
    "network": {"depth_scheme": "resnet"},
    "data": {"inputs": ["sin(3*x)", "1 - x"], "targets": ["1", "-x"]},
    "regularization": {"kernel": 0.02, "bias": 0.02},
}
GRAM = {"representation": "gram"}


def solved(request, **solver):
    return fem_dnn.solve(merged(CASE, solver=solver), request).result


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """For either form a checkpoint's bytes and what was said when it was left."""
    found = {}
    for form in ("gram", "dense"):
        path, text = tmp_path_factory.mktemp(form) / "c.npz", io.StringIO()
        request = Request(
            checkpoint=path, comm=MPI.COMM_SELF, console=Console(file=text, width=999)
        )
        assert not solved(request, representation=form, max_iterations=1)["converged"]
        found[form] = path.read_bytes(), text.getvalue()
    return found


def resumed(left, form, folder, **solver):
    path = folder / "c.npz"
    path.write_bytes(left[form][0])
    return solved(Request(checkpoint=path, resume=True, comm=MPI.COMM_SELF), **solver)


def test_what_may_differ_is_what_is_said(left, tmp_path):
    rest = "rtol, atol, max_iterations and escape may differ"
    assert f"--resume goes on from it; solver.{rest}" in left["gram"][1]
    assert f"--resume goes on from it; solver.method, {rest}" in left["dense"][1]
    changes = {"rtol": 1e-5, "atol": 1e-11, "max_iterations": 50, "escape": False}
    for form, method in (("gram", "newton"), ("dense", "lbfgs")):
        keys = {"representation": form, "method": method, **changes}
        result = resumed(left, form, tmp_path, **keys)
        assert result["converged"] and result["resumed_at"] == 1
        assert result["representation"] == form


@pytest.mark.parametrize("keys", [{}, {"method": "lbfgs"}, {"representation": "dense"}], ids=str)
def test_the_advice_on_another_form_is_one_that_works(left, tmp_path, keys):
    with pytest.raises(fem_dnn.BadInput) as refused:
        resumed(left, "gram", tmp_path, **keys)
    assert str(refused.value).endswith(
        "was left by a solve in Gram form, which newton alone knows, and this one is with a dense "
        'kernel; allowed: solver.representation = "gram" with solver.method = "newton"'
    )
    advised = {"representation": "gram", "method": "newton"}
    assert resumed(left, "gram", tmp_path, **{**keys, **advised})["resumed_at"] == 1


def test_another_method_is_refused_with_the_same_advice(left, tmp_path):
    """Not with "dense" alone, which this checkpoint would refuse in turn."""
    with pytest.raises(fem_dnn.BadInput, match=r'"dense"; or solver\.method = "newton"$'):
        resumed(left, "gram", tmp_path, method="lbfgs", **GRAM)


def test_from_a_dense_kernel_to_the_gram_form(left, tmp_path):
    with pytest.raises(fem_dnn.BadInput, match=r'allowed: solver\.representation = "dense"$'):
        resumed(left, "dense", tmp_path, **GRAM)
    assert resumed(left, "dense", tmp_path, representation="dense")["resumed_at"] == 1


def test_another_case_is_told_what_may_differ_in_this_form(left, tmp_path):
    path = tmp_path / "c.npz"
    path.write_bytes(left["gram"][0])
    request = replace(Request(comm=MPI.COMM_SELF), checkpoint=path, resume=True)
    case = merged(CASE, regularization={"kernel": 0.03}, solver=GRAM)
    with pytest.raises(fem_dnn.BadInput, match=r"but for solver\.rtol, atol, max_iterations and"):
        fem_dnn.solve(case, request)
