"""F_mu, the derivative of the gradient by a number of the case, against differences."""

from dataclasses import replace

import pytest
from helpers import random_control, random_problem
from mpi4py import MPI

from fem_dnn.case import Case
from fem_dnn.continuation import Scale, read_parameter, require_influence
from fem_dnn.continuation.parameter import LossWeight, RegularizationWeight
from fem_dnn.errors import BadInput

pytestmark = pytest.mark.mpi

WEIGHTS = ("kernel", "bias", "outputs", "kernel_depth", "bias_depth", "kernel_width", "bias_width")

CASE = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.0, "cells": 3},
        "depth": {"length": 1.0, "cells": 2},
    },
    "data": {"inputs": ["x[0]", "1"], "targets": ["0", "x[0]**2"]},
}

CIRCLES = {"dataset": "circles", "samples": 8}


def difference(parameter, control, value, step):
    ends = [parameter.problem(v).linearise(control).gradient for v in (value - step, value + step)]
    return (ends[1] - ends[0]) / (2 * step)


def check(parameter, problem, value, accuracy, step=0.1) -> None:
    """Linear parameters: a difference over any step is exact."""
    control = random_control(problem)
    rate = parameter.gradient_rate(parameter.problem(value).linearise(control), value)
    error = rate - difference(parameter, control, value, step)
    assert problem.controls.norm(rate) > 1e-3
    assert problem.controls.norm(error) < accuracy * problem.controls.norm(rate)


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_of_the_regulariser(name: str) -> None:
    problem = random_problem(MPI.COMM_WORLD, loss="mse", learn_outputs=True, mask=True)
    smooth = problem.regularization.reweighted(kernel_width=0.1, bias_depth=0.2)
    problem = replace(problem, regularization=smooth)
    parameter = RegularizationWeight(problem, name)
    check(parameter, problem, 0.3, 1e-11)
    assert getattr(parameter.problem(0.3).regularization, name) == 0.3
    with pytest.raises(BadInput, match="weight"):
        parameter.problem(-0.1)


@pytest.mark.parametrize("name", ["weight", "tracking"])
@pytest.mark.parametrize("loss", ["l2", "softmax"])
def test_weights_of_the_loss(name: str, loss: str) -> None:
    problem = random_problem(MPI.COMM_WORLD, loss=loss, tracking=True, scheme="resnet")
    check(LossWeight(problem, name), problem, 0.3, 1e-11)


@pytest.mark.parametrize("key", ["mesh.depth.length", "mesh.width.length"])
def test_any_number(key: str) -> None:
    """By differences, one-sided at the ends of the range, in coordinates that stay."""
    path = {"parameter": key, "start": 1.0, "stop": 2.0}
    model, parameter = read_parameter(Case.parse({**CASE, "path": path}), MPI.COMM_WORLD)
    assert model.problem is not None
    for value, accuracy in ((1.5, 1e-6), (1.0, 1e-3)):
        check(parameter, model.problem, value, accuracy, step=1e-4)


def test_scale() -> None:
    decades, line = Scale(1e-1, 1e-3), Scale(-1.0, 2.0)
    assert decades.logarithmic and not line.logarithmic
    assert decades.value(0.5) == pytest.approx(1e-2)
    assert (decades.value(0.0), decades.value(1.0)) == (1e-1, 1e-3)
    for scale in (decades, line):
        slope = (scale.value(0.3 + 1e-6) - scale.value(0.3 - 1e-6)) / 2e-6
        assert scale.rate(0.3) == pytest.approx(slope, rel=1e-8)


@pytest.mark.parametrize(
    ("key", "changes", "wrong"),
    [
        ("solver.rtol", {}, "no number of the learning problem"),
        ("regularization.kernel", {"network": {"kernel": False}}, "not trained"),
        ("regularization.outputs", {}, "not trained"),
        ("data.test_fraction", {"data": CIRCLES, "loss": {"kind": "logistic"}}, "jumps"),
    ],
)
def test_refuses_by_name(key: str, changes: dict, wrong: str) -> None:
    path = {"parameter": key, "start": 0.1, "stop": 0.2}
    case = Case.parse({**CASE, **changes, "path": path})
    with pytest.raises(BadInput, match=wrong) as refusal:
        require_influence(case)
    assert refusal.value.key == "path.parameter" and key in str(refusal.value)
