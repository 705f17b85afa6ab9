"""Running a trained network on new inputs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fem_dnn.assembly import OVERFLOW, Model, assemble, local_samples, predicted_labels
from fem_dnn.case import Case, load_array
from fem_dnn.collective import on_root
from fem_dnn.controls import ControlValues
from fem_dnn.datasets import Scaling
from fem_dnn.errors import BadInput
from fem_dnn.gram.operator import weights_of
from fem_dnn.kernel_factors import STORED, KernelFactors
from fem_dnn.losses import OutputLayer
from fem_dnn.network import LayerWeights
from fem_dnn.request import CaseLike, Request, read_any
from fem_dnn.result_folder import write_failure, write_files
from fem_dnn.results import provenance
from fem_dnn.slab import SlabFailure
from fem_dnn.state import solve_state

Array = NDArray[np.float64]

NETWORK_ARRAYS = ("x", "t", "control_t", "bias")
"""What it takes, besides a kernel in either form, to run a network where it was trained."""

DISCRETISATION_ARRAYS = (
    *("mesh_cell", "mesh_points", "mesh_cells", "mesh_degree"),
    *("cell_nodes", "width_degree", "depth_scheme"),
)
"""What newer ones hold besides: the mesh and the spaces."""


def predict(
    result_dir: Path | str, case: CaseLike, request: Request | None = None
) -> dict[str, Any]:
    """Run a trained network on the inputs of a case (collective)."""
    request, result_dir = request or Request(), Path(result_dir)
    case = read_any(case, request)
    trained = on_root(request.comm, lambda: read_trained(result_dir))
    model = assemble(case, request.comm, scaling=trained.get("scaling"))
    weights = trained_weights(model, trained, result_dir)
    request.prepare_out()
    started = time.perf_counter()
    parts = [model.ingredients.train]
    if model.ingredients.test is not None:
        parts.append(model.ingredients.test)
    inputs = np.concatenate([part.inputs for part in parts])
    space = model.network.space
    if case.loss.kind != "l2" and "outputs" not in trained:
        raise case.error(
            "loss.kind", f"is {case.loss.kind}, but {result_dir} has no output layer", "l2"
        )
    try:
        terminal = solve_state(model.network, weights, local_samples(space, inputs)).ends[-1]
    except SlabFailure as failure:
        return write_failure(model, str(failure), request)
    if model.overflows(terminal):
        return write_failure(model, OVERFLOW, request)
    arrays = {"state": space.to_file_order(terminal.T)}
    result: dict[str, Any] = {
        "converged": True,
        "reason": "the state equation is solved",
        "samples": len(inputs),
    }
    outputs = arrays["state"]
    if case.loss.kind != "l2":
        layer = OutputLayer(space.from_file_order(trained["outputs"]), trained["offsets"])
        outputs = model.outputs_of(terminal, layer)
    arrays["outputs"] = outputs
    if model.classifies:
        arrays |= _classification(case, outputs)
    result |= {name: arrays[name].tolist() for name in arrays if name != "state"}
    result |= _accuracies(model, outputs)
    result["seconds"] = time.perf_counter() - started
    result |= provenance(model, request.options)
    write_files(request, result, arrays, "predictions.npz")
    return result


def read_trained(result_dir: Path, names: Sequence[str] = NETWORK_ARRAYS) -> dict[str, Any]:
    """The arrays of a result folder that make up a network.

    Its kernel is in `kernel` or, where it is too large to be written, in `factors`; in neither
    where the network has none.

    Args:
        result_dir: The folder.
        names: Other arrays that have to be there.

    Raises:
        BadInput: There is no such file, or something is not in it.
    """
    path = result_dir / "solution.npz"
    if not path.is_file():
        wrong = f"{path} cannot be read (no such file)"
        raise BadInput(None, "RESULT_DIR", wrong, "a folder that `fem-dnn solve --out` has written")

    def array(name: str) -> Array:
        return load_array(f"solution.npz:{name}", result_dir, "RESULT_DIR")

    trained: dict[str, Any] = {name: array(name) for name in names}
    with np.load(path, allow_pickle=False) as arrays:
        known = set(arrays.files)
        if "made_by" in known:
            trained["case"] = json.loads(str(arrays["made_by"]))["case"]
        if "kernel" in known:
            trained["kernel"] = array("kernel")
        elif known >= set(STORED):
            q, states = (array(name) for name in STORED[:2])
            trained["factors"] = KernelFactors.of_result(q, states, arrays["made_by"])
        elif trained.get("case", {}).get("network", {}).get("kernel") is not False:
            wrong = f"{path} has no kernel"
            raise BadInput(None, "RESULT_DIR", wrong, "a folder that holds a trained network")
        if known >= {"outputs", "offsets"}:
            trained |= {"outputs": arrays["outputs"], "offsets": arrays["offsets"]}
        if known >= set(DISCRETISATION_ARRAYS):
            trained["discretisation"] = {name: arrays[name] for name in DISCRETISATION_ARRAYS}
        if "feature_shift" in known:
            trained["scaling"] = Scaling.from_arrays(arrays)
    return trained


def trained_weights(model: Model, trained: Mapping[str, Any], folder: Path) -> LayerWeights:
    """The trained kernel and bias on the case's mesh.

    Raises:
        BadInput: The case's mesh, scheme or activation is another one.
    """
    space, levels = model.network.space, model.network.levels
    for name, here, key in (
        ("x", space.nodes, "mesh.width"),
        ("t", levels.points, "mesh.depth"),
        ("control_t", levels.t, "network.depth_scheme"),
    ):
        there = trained[name]
        if there.shape != here.shape or not np.allclose(there, here, rtol=1e-10, atol=1e-12):
            raise model.case.error(
                key,
                f"differs from that of the network in {folder} ({len(here)} places here, "
                f"{len(there)} there)",
                "the mesh, width_degree and depth_scheme that it was trained on; or "
                "`fem-dnn transfer`, which takes it to others",
            )
    require_trained_activation(model.case, trained, folder)
    kernel, factors = trained.get("kernel"), trained.get("factors")
    return weights_of(model.network, ControlValues(kernel, trained["bias"], factors=factors))


def require_trained_activation(case: Case, trained: Mapping[str, Any], folder: Path) -> None:
    """Refuse to run a network with another activation than it was trained with.

    Raises:
        BadInput: They differ.
    """
    if "case" not in trained:
        return
    of_training = trained["case"]["network"]["activation"]
    if of_training != case.network.activation:
        raise case.error(
            "network.activation",
            f"is {case.network.activation}, but the network in {folder} was trained "
            f"with {of_training}",
            of_training,
        )


def _classification(case: Case, outputs: np.ndarray) -> dict[str, np.ndarray]:
    """Classes and probabilities (of +1 for logistic, of every class for softmax)."""
    from scipy.special import expit, softmax

    probabilities = (
        expit(outputs[:, 0]) if case.loss.kind == "logistic" else softmax(outputs, axis=1)
    )
    return {
        "classes": predicted_labels(case, outputs).astype(int),
        "probabilities": probabilities,
    }


def _accuracies(model: Model, outputs: np.ndarray) -> dict[str, float]:
    """Accuracy over all inputs, and apart for training and test samples of a data set."""
    train, test = model.ingredients.train, model.ingredients.test
    of_train = model.accuracy(outputs[: len(train.inputs)], train)
    if of_train is None:
        return {}
    if test is None:
        return {"accuracy": of_train}
    of_test = model.accuracy(outputs[len(train.inputs) :], test)
    assert of_test is not None
    sizes = len(train.inputs), len(test.inputs)
    overall = float(np.average([of_train, of_test], weights=sizes))
    return {"accuracy": overall, "train_accuracy": of_train, "test_accuracy": of_test}
