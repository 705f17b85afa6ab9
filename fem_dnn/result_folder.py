"""What `--out DIR` holds: the JSON result, arrays, pictures, a ParaView file (all collective)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from fem_dnn.assembly import Model, predicted_labels
from fem_dnn.collective import on_root
from fem_dnn.problem import Linearisation
from fem_dnn.request import Request
from fem_dnn.results import provenance, write_arrays, write_json
from fem_dnn.solvers import Tolerances


def write_files(
    request: Request, result: dict[str, Any] | None, arrays: Mapping[str, Any] | None, name: str
) -> None:
    """Write result.json and an array file to the folder, from rank 0."""
    if request.out is None:
        return
    out = request.out

    def write() -> None:
        if arrays:
            write_arrays(out / name, {**arrays, "made_by": _made_by(result or {})})
        if result is not None:
            write_json(out / "result.json", result)

    on_root(request.comm, write)


def _made_by(result: Mapping[str, Any]) -> str:
    """What an array file says of where it comes from."""
    return json.dumps({k: v for k, v in result.items() if k in ("version", "case")})


def failure_result(model: Model, reason: str, request: Request) -> dict[str, Any]:
    """The result where there is no state: the reason alone."""
    return {"converged": False, "reason": reason, **provenance(model, request.options)}


def write_failure(model: Model, reason: str, request: Request) -> dict[str, Any]:
    """Write and return the result where there is no state; an older run's arrays are removed."""
    result = failure_result(model, reason, request)
    out = request.out
    if out is not None:
        on_root(request.comm, lambda: (out / "solution.npz").unlink(missing_ok=True))
    write_files(request, result, None, "")
    return result


def draw(
    model: Model,
    request: Request,
    arrays: Mapping[str, Any],
    history: list[dict[str, Any]],
    initial_gradient_norm: float | None = None,
) -> None:
    """Draw the standard pictures, from rank 0."""
    assert request.out is not None
    out, solver, train = request.out, model.case.solver, model.ingredients.train
    arrays = {**arrays, "made_by": _made_by(provenance(model, request.options))}
    target, labels = None, None
    if initial_gradient_norm is not None:
        tolerances = Tolerances(solver.rtol, solver.atol, solver.max_iterations)
        target = tolerances.target(initial_gradient_norm)
    if model.classifies and train.targets is not None:
        labels = [f"class {label:g}" for label in train.targets]

    def draw_all() -> None:
        from fem_dnn import pictures  # matplotlib is slow to import and not always needed

        pictures.standard_pictures(arrays, history, out, target=target, labels=labels)

    on_root(request.comm, draw_all)


def draw_confusion(model: Model, request: Request, at: Linearisation) -> None:
    """Draw the confusion matrix on the test samples, else on the training samples."""
    if request.out is None or not model.classifies or at.output_layer is None:
        return
    samples = model.ingredients.test or model.ingredients.train
    targets = samples.targets
    if targets is None:
        return
    outputs = model.outputs_of(model.terminal_state(at, samples), at.output_layer)
    out, dataset = request.out, model.ingredients.dataset

    def draw_all() -> None:
        from fem_dnn import pictures

        names = list(dataset.dataset.class_names) if dataset is not None else None
        figure = pictures.confusion(targets, predicted_labels(model.case, outputs), names)
        pictures.save(figure, out / "confusion.png")

    on_root(request.comm, draw_all)


def write_paraview(model: Model, request: Request, ends: np.ndarray) -> None:
    """Write the first samples' states for ParaView (collective)."""
    from fem_dnn import paraview

    assert request.out is not None
    discretisation = model.discretisation
    paraview.write_state(
        request.out / "state",
        discretisation.mesh,
        discretisation.space,
        discretisation.levels,
        ends,
        range(min(8, ends.shape[2])),
    )
