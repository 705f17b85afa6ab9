"""Case 6 of theory.md section 9: the best constant controls are critical and no minimisers."""

import numpy as np
import pytest
from helpers import random_control, random_problem
from mpi4py import MPI

from fem_dnn.assembly import assemble
from fem_dnn.case import Case
from fem_dnn.checks import Subject, pontryagin_improvement, pontryagin_minimum
from fem_dnn.solvers import Tolerances, solve_newton

TOLERANCES = Tolerances(1e-10)
CONSTANT, SWITCHED = 1.3031064, 1.2962397


@pytest.fixture
def frozen_inputs(tmp_path):
    """Nodes 0 and 1 hold the inputs, node 2 the output; the mask freezes the inputs."""
    f = np.array([[1.0, 0.0, 0.0], [0.9, np.sqrt(0.19), 0.0]])
    targets = f.copy()
    targets[:, 2] = 0.40829488, 1.16980372
    mask = np.zeros((3, 3))
    mask[2, :2] = 1
    data = {"inputs": f, "targets": targets, "weights": np.ones(2), "mask": mask}
    np.savez(tmp_path / "case6.npz", **data)
    width = {"shape": "interval", "length": 3.0, "cells": 3}
    tables = {
        "network": {"depth_scheme": "resnet", "bias": False, "kernel_mask": "case6.npz:mask"},
        "data": {name: f"case6.npz:{name}" for name in ("inputs", "targets", "weights")},
        "loss": {"kind": "l2", "weight": 20.0},
        "regularization": {"kernel": 0.19},
        "solver": {"initial": {"kind": "constant", "kernel": 1.0}},
    }

    def best_constant(comm, layers=8):
        depth = {"length": 1.0, "cells": layers}
        tables["mesh"] = {"width": width, "depth": depth}
        model = assemble(Case.parse(tables, folder=tmp_path), comm)
        solution = solve_newton(model.problem, model.initial, TOLERANCES, escape=False)
        assert solution.converged
        return Subject.of_linearisation(solution.at, model.initial)

    return best_constant


def test_the_best_constant_control_is_improved_by_a_switch(frozen_inputs):
    subject = frozen_inputs(MPI.COMM_SELF)
    assert subject.at.objective == pytest.approx(CONSTANT, abs=5e-8)
    assert pontryagin_minimum(subject).holds is False
    check = pontryagin_improvement(subject, TOLERANCES)
    assert check.holds is False
    # 8 layers cannot switch where they like: what lies between is theirs.
    improved = CONSTANT * (1 + check.value)
    assert SWITCHED - 1e-7 < improved < 0.5 * (CONSTANT + SWITCHED)


def test_where_the_principle_holds_there_is_nothing_to_improve():
    problem = random_problem(MPI.COMM_SELF, scheme="resnet", regularization=(1.0, 1.0, 1.0))
    zero = random_control(problem, scale=0.0)
    at = solve_newton(problem, zero, TOLERANCES).at
    check = pontryagin_improvement(Subject.of_linearisation(at, zero), TOLERANCES)
    assert check.holds is None
    assert "pontryagin_minimum" in check.explanation


def test_controls_that_are_not_critical():
    problem = random_problem(MPI.COMM_SELF, scheme="resnet")
    at = problem.linearise(random_control(problem))
    check = pontryagin_improvement(Subject.of_linearisation(at), TOLERANCES)
    assert check.holds is None
    assert "stationarity" in check.explanation


@pytest.mark.mpi
@pytest.mark.several_ranks
def test_the_improvement_does_not_depend_on_the_ranks(frozen_inputs):
    found = [
        pontryagin_improvement(frozen_inputs(comm, layers=4), TOLERANCES)
        for comm in (MPI.COMM_WORLD, MPI.COMM_SELF)
    ]
    assert found[0].holds is found[1].holds is False
    assert found[0].value == pytest.approx(found[1].value, rel=1e-8)
