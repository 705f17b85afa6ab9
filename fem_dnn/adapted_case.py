"""What an adaptive solve leaves behind: a case on the final mesh, the mesh, and a picture of it."""

from __future__ import annotations

from typing import Any

import dolfinx
import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.assembly import Model
from fem_dnn.case import is_array, load_array
from fem_dnn.case.domain import WidthFile
from fem_dnn.case.writing import as_toml
from fem_dnn.collective import on_root
from fem_dnn.enrichment import Lift
from fem_dnn.files import write_whole
from fem_dnn.request import Request
from fem_dnn.results import write_arrays

Array = NDArray[np.float64]

ARRAYS = "adapted.npz"
MESH = "width.xdmf"


def write_adapted(
    base: Model, model: Model, lift: Lift | None, arrays: dict[str, Any], request: Request
) -> None:
    """Write `adapted.toml` and what it names, and `mesh.png`, to the folder (collective).

    Args:
        base: The model of the case's own mesh.
        model: The same problem on the final mesh.
        lift: From the one to the other; None where they are the same.
        arrays: Those of `solution.npz`.
        request: Knows the folder.
    """
    out = request.out
    if out is None:
        return
    tables, given = base.case.as_dict(), _arrays(base, model, lift)
    tables["mesh"]["depth"] = {"points": model.network.levels.points.tolist()}
    mesh = model.network.space.mesh_arrays
    own_width = model.discretisation.mesh.width is base.discretisation.mesh.width
    writes_mesh = not own_width or isinstance(base.case.mesh.width, WidthFile)
    if writes_mesh:
        tables["mesh"]["width"] = {"file": MESH}
    for key, (name, _) in given.items():
        section, last = key.split(".")
        tables[section][last] = f"{ARRAYS}:{name}"
    named = {name: values for name, values in given.values()}
    initial = model.ingredients.initial
    if initial is not None:
        tables["solver"]["initial"] = {"kind": "file", "path": ARRAYS}
        named |= initial.arrays()

    def write() -> None:
        if writes_mesh:
            with dolfinx.io.XDMFFile(MPI.COMM_SELF, str(out / MESH), "w") as file:
                file.write_mesh(mesh.mesh(MPI.COMM_SELF))
        if named:
            write_arrays(out / ARRAYS, named)
        write_whole(out / "adapted.toml", lambda file: file.write(as_toml(tables).encode()))
        if {"depth_indicators", "width_indicators"} <= arrays.keys() and mesh.points.shape[1] < 3:
            from fem_dnn import pictures

            pictures.save(pictures.graded_mesh(arrays), out / "mesh.png")

    on_root(request.comm, write)


def _arrays(base: Model, model: Model, lift: Lift | None) -> dict[str, tuple[str, Array]]:
    """The arrays that the case names, on the final mesh: by key, a name and the values."""
    case, now = base.case, model.ingredients
    known: dict[str, tuple[Any, Array | None]] = {
        "data.inputs": (case.data.inputs, now.train.inputs),
        "data.targets": (case.data.targets, now.train.targets),
        "data.weights": (case.data.weights, now.weights),
        "network.kernel": (case.network.kernel, now.kernel),
        "network.bias": (case.network.bias, now.bias),
        "network.kernel_mask": (case.network.kernel_mask, now.mask),
        "loss.outputs": (case.loss.outputs, now.outputs),
    }
    found = {
        key: (f"given_{key.split('.')[1]}", values)
        for key, (entries, values) in known.items()
        if is_array(entries) and values is not None
    }
    entries, key = case.data.tracking_targets, "data.tracking_targets"
    if isinstance(entries, str) and case.loss.tracking > 0:
        samples, nodes = base.ingredients.train.inputs.shape
        ends, points = np.array(case.mesh.depth.slab_ends), model.network.levels.points
        shape = (len(ends), samples, nodes)
        values = on_root(
            base.comm,
            lambda: load_array(
                entries,
                case.folder,
                key,
                {("layers + 1", "samples", "nodes"): shape},
                file=case.file,
            ),
        )
        slab = np.clip(np.searchsorted(ends, points) - 1, 0, None)
        part = ((points - ends[slab]) / np.diff(ends)[slab])[:, None, None]
        values = (1 - part) * values[slab] + part * values[slab + 1]
        found[key] = ("given_tracking_targets", values if lift is None else lift.width(values))
    return found
