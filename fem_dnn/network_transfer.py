"""Running a trained network on another mesh: projected, not trained again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

from fem_dnn.assembly import OVERFLOW, Discretisation, Model, assemble
from fem_dnn.case import Case, require_learning_problem
from fem_dnn.collective import on_root
from fem_dnn.control_transfer import transfer_values
from fem_dnn.controls import ControlValues
from fem_dnn.depth import SCHEMES, DepthLevels
from fem_dnn.depth_projection import depth_projection
from fem_dnn.errors import BadInput
from fem_dnn.factored_network import FactoredLinearisation
from fem_dnn.gram.problem import why_not
from fem_dnn.mesh import MeshArrays
from fem_dnn.prediction import NETWORK_ARRAYS, read_trained, require_trained_activation
from fem_dnn.problem import Linearisation
from fem_dnn.request import CaseLike, Request, read_any
from fem_dnn.result_folder import draw, draw_confusion, write_failure, write_files, write_paraview
from fem_dnn.results import KERNEL_NODES, provenance, solution_arrays
from fem_dnn.slab import SlabFailure
from fem_dnn.width_projection import StoredWidth, WidthNodes, width_projection

OLDER = "a result that this version wrote: solve again with --out"


TRANSFERRED = (*NETWORK_ARRAYS, "node_weights", "control_weights")
"""What it takes to run a network elsewhere."""


def transfer(
    result_dir: Path | str, case: CaseLike, request: Request | None = None
) -> dict[str, Any]:
    """Project a trained network onto a case's network and run it on the case's data (collective).

    Kernel, bias and learned outputs are L2-projected in width and depth; what the case gives
    (a mask, outputs that are not learned, a given kernel) is the case's own. The result folder
    serves `predict`, and as `solver.initial = { kind = "file", ... }`. Of a kernel in Gram form
    that is too large to be written the factors are projected; beyond `KERNEL_NODES` nodes they
    stay factors, which the result holds as `q` and `control_state` (they are as many as the
    samples times the source's levels that meet in one).

    Args:
        result_dir: Folder that `solve --out` has written.
        case: The network to go to, and the data.
        request: Where results go.

    Returns:
        Objective, loss, regularization, gradient norm and accuracies there, before any training,
        and `norm_kept`: the L2 norm of the projected controls over that of the trained ones.

    Raises:
        BadInput: The folder holds no network, or one of another domain, depth T, activation or
            number of outputs, or with other parts trained; or a wide one in Gram form, and the
            case, as wide, has a mask, bounds or penalised derivatives.
    """
    request, result_dir = request or Request(), Path(result_dir)
    case = read_any(case, request)
    require_learning_problem(case)
    trained = on_root(request.comm, lambda: read_trained(result_dir, TRANSFERRED))
    _require_same_network(case, trained, result_dir)
    model = assemble(case, request.comm, scaling=trained.get("scaling"))
    at = _point(model, _projected(model, trained, result_dir), result_dir)
    request.prepare_out()
    started = time.perf_counter()
    try:
        if model.overflows(at.state.ends[-1]):
            return write_failure(model, OVERFLOW, request)
        result = _result(model, at, at.length / _norm(case, trained))
        arrays = solution_arrays(model, at) if request.out else {}
        if isinstance(at, FactoredLinearisation):
            arrays |= at.factors.arrays(case.regularization.kernel)
    except SlabFailure as failure:
        return write_failure(model, str(failure), request)
    result["seconds"] = time.perf_counter() - started
    result |= provenance(model, request.options)
    write_files(request, result, arrays, "solution.npz")
    if request.out is not None:
        draw(model, request, arrays, [])
        draw_confusion(model, request, at)
        write_paraview(model, request, at.state.ends)
    return result


def _result(model: Model, at: Linearisation, norm_kept: float) -> dict[str, Any]:
    result = {
        "converged": True,
        "reason": "the state equation is solved with the projected network",
        "objective": at.objective,
        "loss": at.loss,
        "regularization": at.regularization,
        "gradient_norm": at.gradient_norm,
        "norm_kept": norm_kept,
        "train_accuracy": model.train_accuracy(at),
        "test_accuracy": model.test_accuracy(at),
    }
    return {name: value for name, value in result.items() if value is not None}


def _require_same_network(case: Case, trained: Mapping[str, Any], folder: Path) -> None:
    """What no projection can change has to agree."""
    require_trained_activation(case, trained, folder)
    if "case" not in trained:
        return
    for key, default in (
        ("network.kernel", True),
        ("network.bias", True),
        ("loss.train_outputs", False),
    ):
        section, name = key.split(".")
        there = trained["case"].get(section, {}).get(name, default)
        here = getattr(getattr(case, section), name)
        if (there is True) != (here is True):
            words = {True: "trained", False: "not trained"}
            raise case.error(
                key,
                f"is {words[here is True]} here, but {words[there is True]} in {folder}",
                str(there).lower() if isinstance(there, bool) else f'"{there}"',
            )


def _point(model: Model, values: ControlValues, folder: Path) -> Linearisation:
    """The case's problem at the projected network.

    Raises:
        BadInput: The kernel is too large to be held dense, and the case asks for more of it than
            its factors tell.
    """
    problem, nodes = model.problem, model.network.space.n_nodes
    assert problem is not None
    if values.factors is None or nodes <= KERNEL_NODES:
        return problem.linearise(problem.controls.coordinates(values))
    reason = why_not(problem)
    if reason is not None:
        raise model.case.error(
            "mesh.width",
            f"has {nodes} nodes, for which the kernel of the network in {folder} stays in Gram "
            f"form, but {reason}",
            f"at most {KERNEL_NODES} nodes, or a case that has a Gram form",
        )
    return FactoredLinearisation(problem, values)


def _projected(model: Model, trained: Mapping[str, Any], folder: Path) -> ControlValues:
    """The trained controls on the case's network, in file order (collective)."""
    case, space, levels = model.case, model.network.space, model.network.levels
    discretisation = on_root(model.comm, lambda: trained_discretisation(trained, folder))
    controls = trained_controls(case, trained)
    wanted = model.ingredients.outputs
    if controls.outputs is not None and wanted is not None and len(controls.outputs) != len(wanted):
        raise case.error(
            "loss.outputs",
            f"are {len(wanted)}, but the network in {folder} has {len(controls.outputs)}",
            f"{len(controls.outputs)} outputs",
        )
    try:
        width = width_projection(discretisation[0], space)
    except ValueError as problem:
        raise case.error(
            "mesh.width", f"is not the domain of the network in {folder} ({problem})"
        ) from None
    try:
        depth = depth_projection(discretisation[1], levels)
    except ValueError as problem:
        # Rescaling t would change the flow: no kernel makes up for it unless σ is homogeneous.
        raise case.error(
            "mesh.depth",
            f"is not that of the network in {folder} ({problem})",
            f"a depth of {discretisation[1].points[-1]:g} in any layers",
        ) from None
    return transfer_values(controls, width, depth)


def trained_controls(case: Case, trained: Mapping[str, Any]) -> ControlValues:
    """What the case trains, from the arrays of a trained network, in its file order."""
    learned = case.loss.train_outputs
    kernel = case.network.kernel is True
    return ControlValues(
        trained.get("kernel") if kernel else None,
        trained["bias"] if case.network.bias is True else None,
        trained.get("outputs") if learned else None,
        trained.get("offsets") if learned else None,
        factors=trained.get("factors") if kernel else None,
    )


def _norm(case: Case, trained: Mapping[str, Any]) -> float:
    """L2 norm of the trained controls (nodal quadrature)."""
    h, omega = trained["node_weights"], trained["control_weights"]
    controls = trained_controls(case, trained)
    square = 0.0
    if controls.kernel is not None:
        square += float(np.einsum("k,x,y,kxy->", omega, h, h, controls.kernel**2, optimize=True))
    if controls.factors is not None:
        square += float(omega @ controls.factors.squares(h))
    if controls.bias is not None:
        square += float(omega @ controls.bias**2 @ h)
    if controls.outputs is not None and controls.offsets is not None:
        square += float(np.sum(controls.outputs**2 @ h)) + float(np.sum(controls.offsets**2))
    return float(np.sqrt(square)) or 1.0


def trained_discretisation(
    trained: Mapping[str, Any], folder: Path
) -> tuple[WidthNodes, DepthLevels]:
    """Width space and depth levels of a trained network, from its own file (one process).

    Files that lack them are of cases with an interval or a rectangle, which are built again.

    Raises:
        BadInput: The file has neither them nor such a case.
    """
    stored = trained.get("discretisation")
    if stored is not None:
        mesh = MeshArrays(
            str(stored["mesh_cell"]),
            stored["mesh_points"],
            stored["mesh_cells"],
            int(stored["mesh_degree"]),
        )
        width = StoredWidth(mesh, stored["cell_nodes"], int(stored["width_degree"]))
        return width, DepthLevels(SCHEMES[str(stored["depth_scheme"])], trained["t"])
    path = str(folder / "solution.npz")
    tables = trained.get("case")
    if tables is None or "file" in tables["mesh"]["width"]:
        raise BadInput(path, None, "does not say which mesh it was trained on", OLDER)
    again = Discretisation.of(Case.parse(tables, folder=folder), MPI.COMM_SELF)
    width = StoredWidth(again.space.mesh_arrays, again.space.cell_nodes, again.space.degree)
    return width, again.levels
