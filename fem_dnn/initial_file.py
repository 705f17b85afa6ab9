"""The controls of an earlier result, as an initial guess: `solver.initial = { kind = "file" }`."""

from __future__ import annotations

import numpy as np

from fem_dnn.case import Case, load_array
from fem_dnn.case.arrays import Shapes, array_names
from fem_dnn.case.values import split_reference
from fem_dnn.controls import ControlValues
from fem_dnn.kernel_factors import STORED, KernelFactors


def controls_of_file(
    case: Case, levels: int, nodes: int, outputs: int | None
) -> ControlValues | None:
    """The controls in the file that a case starts from; None where it starts from none.

    The kernel of a result in Gram form is read as its factors: its matrices may not be there.

    Args:
        case: The case.
        levels, nodes: How many there are.
        outputs: How many outputs are learned; None: as many as there are in the file.

    Raises:
        BadInput: The file lacks what the case trains, or holds it on another mesh.
    """
    initial = case.initial
    if initial.kind != "file":
        return None
    key, path = "solver.initial.path", initial.path
    if split_reference(path) is None:
        raise case.error(key, f'"{path}" is not an npz file', "a file such as solution.npz")
    wanted: dict[str, Shapes] = {}
    factored = case.network.kernel is True and set(STORED) <= array_names(case.folder / path)
    if factored:
        functions: Shapes = {("levels", "samples", "nodes"): (levels, None, nodes)}
        wanted["q"] = wanted["control_state"] = functions
    elif case.network.kernel is True:
        wanted["kernel"] = {("levels", "nodes", "nodes"): (levels, nodes, nodes)}
    if case.network.bias is True:
        wanted["bias"] = {("levels", "nodes"): (levels, nodes)}
    if case.loss.train_outputs:
        wanted["outputs"] = {("outputs", "nodes"): (outputs, nodes)}
        wanted["offsets"] = {("outputs",): (outputs,)}
    loaded = {
        name: load_array(f"{path}:{name}", case.folder, key, shapes, file=case.file)
        for name, shapes in wanted.items()
    }
    factors = None
    if factored:
        with np.load(case.folder / path, allow_pickle=False) as file:
            factors = KernelFactors.of_result(loaded["q"], loaded["control_state"], file["made_by"])
    get = loaded.get
    return ControlValues(
        get("kernel"), get("bias"), get("outputs"), get("offsets"), factors=factors
    )
