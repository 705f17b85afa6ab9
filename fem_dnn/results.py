"""What a command leaves behind: the JSON result and the arrays of `solution.npz`.

Files appear whole or not at all (`files.write_whole`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fem_dnn._version import __version__
from fem_dnn.active_set import ActiveSet
from fem_dnn.assembly import Model
from fem_dnn.files import write_whole
from fem_dnn.gram.linearisation import GramLinearisation
from fem_dnn.gram.operator import GramOperator
from fem_dnn.network import LayerWeights
from fem_dnn.nonlocal_operator import kernel_values
from fem_dnn.problem import Linearisation
from fem_dnn.solvers import Solution
from fem_dnn.trajectories import StateTrajectory

Array = NDArray[np.float64]


KERNEL_NODES = 4096
"""Width nodes up to which results hold a kernel that no one has handed in or solved for whole."""


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result as JSON, whole or not at all."""
    text = as_json(result)
    write_whole(path, lambda file: file.write(text.encode()))


def as_json(result: Mapping[str, Any]) -> str:
    """The JSON text of a result; numbers that are not finite become null, as JSON has none."""
    return json.dumps(_finite(result), indent=2, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, np.ndarray):
        return _finite(value.tolist())
    if isinstance(value, np.generic):
        return _finite(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an npz file, whole or not at all."""
    write_whole(path, lambda file: np.savez(file, **arrays))


def provenance(model: Model, options: Mapping[str, object]) -> dict[str, Any]:
    """Version, case and PETSc options that made a result."""
    return {
        "version": __version__,
        "case": model.case.as_dict(),
        "petsc_options": {name: value for name, value in options.items()},
        "ranks": model.comm.size,
    }


def discretisation_arrays(model: Model) -> dict[str, Any]:
    """Width mesh, width space and depth scheme: with these a result stands on its own."""
    space = model.network.space
    mesh = space.mesh_arrays
    return {
        "mesh_cell": mesh.cell,
        "mesh_points": mesh.points,
        "mesh_cells": mesh.cells,
        "mesh_degree": mesh.degree,
        "cell_nodes": space.cell_nodes,
        "width_degree": space.degree,
        "depth_scheme": model.network.levels.scheme.name,
    }


def state_arrays(model: Model, state: StateTrajectory, weights: LayerWeights) -> dict[str, Any]:
    """The arrays of a forward solve as the contract names them, in file order (collective)."""
    space, levels, ingredients = model.network.space, model.network.levels, model.ingredients
    nodes, count = space.n_nodes, levels.count
    arrays = {
        "x": space.nodes,
        "node_weights": space.node_weights,
        "t": levels.points,
        "state": space.to_file_order(state.ends, axis=1).transpose(0, 2, 1),
        "control_t": levels.t,
        "control_weights": levels.weights,
        # An absent control is the zero function.
        "bias": np.zeros((count, nodes)),
        "sample_weights": ingredients.weights,
    } | discretisation_arrays(model)
    operator = weights.operator
    if isinstance(operator, GramOperator):
        if nodes <= KERNEL_NODES:
            arrays["kernel"] = operator.values()
    elif operator is not None:
        arrays["kernel"] = kernel_values(space, levels.weights, operator.coefficients)
    elif nodes <= KERNEL_NODES:
        arrays["kernel"] = np.zeros((count, nodes, nodes))
    if weights.bias is not None:
        arrays["bias"] = space.to_file_order(weights.bias[:, :, 0])
    if ingredients.outputs is not None and ingredients.offsets is not None:
        arrays["outputs"], arrays["offsets"] = ingredients.outputs, ingredients.offsets
    if ingredients.dataset is not None:
        arrays |= ingredients.dataset.scaling.to_arrays()
    return arrays


def solution_arrays(model: Model, at: Linearisation) -> dict[str, Any]:
    """The arrays of `solution.npz` at a linearisation, in file order (collective)."""
    space = model.network.space
    arrays = state_arrays(model, at.state, at.weights)
    arrays["adjoint"] = space.to_file_order(at.adjoint.ends, axis=1).transpose(0, 2, 1)
    if isinstance(at, GramLinearisation):
        arrays["q"] = at.problem.controls.values(at.control).q
        stages = space.to_file_order(at.state.stages, axis=1)
        arrays["control_state"] = stages.transpose(0, 2, 1)
    if at.output_layer is not None:
        arrays["outputs"] = space.to_file_order(at.output_layer.functions)
        arrays["offsets"] = at.output_layer.offsets
    return arrays


def solution_result(
    model: Model, solution: Solution, options: Mapping[str, object]
) -> dict[str, Any]:
    """The JSON result of `solve` (collective)."""
    at = solution.at
    result: dict[str, Any] = {
        "converged": solution.converged,
        "reason": solution.reason,
        "objective": at.objective,
        "loss": at.loss,
        "regularization": at.regularization,
        "gradient_norm": at.gradient_norm,
        "initial_gradient_norm": solution.initial_gradient_norm,
        "iterations": solution.iterations,
        "linear_iterations": solution.linear_iterations,
        "state_solves": solution.state_solves,
        "adjoint_solves": solution.adjoint_solves,
        "hessian_solves": solution.hessian_solves,
        "seconds": solution.seconds,
        "lowest_eigenvalue": solution.lowest_eigenvalue,
        "train_accuracy": model.train_accuracy(at),
        "test_accuracy": model.test_accuracy(at),
    }
    active = ActiveSet.of(at)
    if active is not None:
        result["complementarity"] = active.complementarity()
        result["active_fraction"] = active.fractions()
    result = {key: value for key, value in result.items() if value is not None}
    result["history"] = [line.as_dict() for line in solution.history]
    return result | provenance(model, options)
