"""The commands' work, without the command line: case in, JSON result out, files in a folder.

Every function is collective: all ranks call it and all get the result; rank 0 writes files.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI
from rich.console import Console

from fem_dnn.activations import Activation
from fem_dnn.assembly import Discretisation, Model, assemble, predicted_labels
from fem_dnn.case import (
    Case,
    load_array,
    on_root,
    read_case_collectively,
    require_given_controls,
    require_learning_problem,
)
from fem_dnn.datasets import Scaling
from fem_dnn.errors import BadInput
from fem_dnn.losses import OutputLayer
from fem_dnn.nonlocal_operator import NonlocalOperator, kernel_coefficients
from fem_dnn.problem import Linearisation
from fem_dnn.progress import Progress
from fem_dnn.results import (
    provenance,
    solution_arrays,
    solution_result,
    state_arrays,
    write_arrays,
    write_json,
)
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers import METHODS, Solution, Tolerances
from fem_dnn.state import LayerWeights, solve_state
from fem_dnn.threads import suitable_threads

Result = dict[str, Any]
CaseLike = Case | str | Path | Mapping[str, Any]
"""A case, its file, or its tables."""


@dataclass(frozen=True)
class Request:
    """What is common to the solving commands.

    Attributes:
        out: Folder for arrays, pictures and ParaView files; None: none are written.
        options: PETSc options without prefix.
        console: Where progress goes; None on other ranks and where nothing is to be said.
        comm: Communicator.
    """

    out: Path | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    console: Console | None = None
    comm: MPI.Comm = field(default_factory=lambda: MPI.COMM_WORLD)

    def prepare_out(self) -> None:
        """Make the folder, when the input is known to be good and before the long work.

        Raises:
            BadInput: It cannot be made.
        """
        if self.out is None:
            return
        out = self.out

        def make() -> None:
            try:
                out.mkdir(parents=True, exist_ok=True)
            except OSError as problem:
                raise BadInput(
                    None, "--out", f"{out} cannot be made a folder ({problem.strerror})"
                ) from None

        on_root(self.comm, make)

    def say(self, text: str) -> None:
        """Tell the person in front of it."""
        if self.console is not None:
            self.console.print(text, highlight=False)


def forward(case: CaseLike, request: Request | None = None) -> Result:
    """Solve the forward problem for given controls (collective)."""
    request = request or Request()
    case = _read(case, request)
    require_given_controls(case)
    model = assemble(case, request.comm)
    request.prepare_out()
    started = time.perf_counter()
    result: Result
    try:
        if model.problem is None:
            state = solve_state(
                model.network,
                model.given,
                _local_inputs(model),
            )
            result = {"converged": True, "reason": "the state equation is solved"}
            arrays = state_arrays(model, state, model.given) if request.out else {}
        else:
            at = model.problem.linearise(model.initial)
            result = {
                "converged": True,
                "reason": "the state equation is solved",
                "objective": at.objective,
                "loss": at.loss,
                "regularization": at.regularization,
                "train_accuracy": model.train_accuracy(at),
                "test_accuracy": model.test_accuracy(at),
            }
            state = at.state
            arrays = solution_arrays(model, at) if request.out else {}
    except SlabFailure as failure:
        return _failed(model, failure, request)
    result |= {"state_solves": 1, "seconds": time.perf_counter() - started}
    result = {name: value for name, value in result.items() if value is not None}
    result |= provenance(model, request.options)
    _write(request, result, arrays, "solution.npz")
    if request.out is not None:
        _draw(model, request, arrays, [])
        _write_paraview(model, request, state.ends)
    return result


@dataclass(frozen=True, eq=False)
class Run:
    """A case that has been solved.

    Attributes:
        model: The case made ready.
        solution: The solver's outcome; None where the state equation could not be solved.
        result: The JSON result.
    """

    model: Model
    solution: Solution | None
    result: Result

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of `solution.npz`, in file order (collective).

        Raises:
            ValueError: There is no solution.
        """
        if self.solution is None:
            raise ValueError(f"there is no solution: {self.result['reason']}")
        return solution_arrays(self.model, self.solution.at)


def solve(
    case: CaseLike, request: Request | None = None, *, activation: Activation | None = None
) -> Run:
    """Solve the learning problem of a case (collective).

    Args:
        case: A case, its file, or its tables.
        request: Output folder, PETSc options, console, communicator; the default is silent.
        activation: A user's own activation instead of the case's.

    Raises:
        BadInput: The case is wrong; the same on all ranks.
    """
    request = request or Request()
    case = _read(case, request)
    require_learning_problem(case)
    model = assemble(case, request.comm, activation=activation)
    request.prepare_out()
    assert model.problem is not None
    _announce(model, request)
    progress = Progress(request.console)
    try:
        with suitable_threads(model.problem):
            solution = METHODS[case.solver.method](
                model.problem,
                model.initial,
                Tolerances(case.solver.rtol, case.solver.atol, case.solver.max_iterations),
                escape=case.solver.escape,
                report=progress,
                accuracy=model.train_accuracy if model.classifies else None,
                options=request.options,
            )
    except SlabFailure as failure:
        return Run(model, None, _failed(model, failure, request))
    progress.close()
    result = solution_result(model, solution, request.options)
    if request.out is not None:
        arrays = solution_arrays(model, solution.at)
        _write(request, result, arrays, "solution.npz")
        _draw(model, request, arrays, result["history"])
        _draw_confusion(model, request, solution.at)
        _write_paraview(model, request, solution.at.state.ends)
    return Run(model, solution, result)


def _read(case: CaseLike, request: Request) -> Case:
    """A case from whatever names it."""
    if isinstance(case, Case):
        return case
    if isinstance(case, Mapping):
        return Case.parse(case)
    return read_case_collectively(request.comm, case)


def nodes(case: CaseLike, request: Request | None = None) -> Result:
    """The width nodes and the control levels, for making arrays (collective)."""
    request = request or Request()
    case = _read(case, request)
    discretisation = Discretisation.of(case, request.comm)
    request.prepare_out()
    space, levels = discretisation.space, discretisation.levels
    arrays = {
        "x": space.nodes,
        "node_weights": space.node_weights,
        "t": levels.points,
        "control_t": levels.t,
        "control_weights": levels.weights,
    }
    _write(request, None, arrays, "nodes.npz")
    return {name: values.tolist() for name, values in arrays.items()}


def predict(result_dir: Path | str, case: CaseLike, request: Request | None = None) -> Result:
    """Run a trained network on the inputs of a case (collective)."""
    request, result_dir = request or Request(), Path(result_dir)
    case = _read(case, request)
    trained = on_root(request.comm, lambda: _read_trained(result_dir))
    model = assemble(case, request.comm, scaling=trained.get("scaling"))
    weights = _trained_weights(model, trained, result_dir)
    request.prepare_out()
    started = time.perf_counter()
    parts = [model.ingredients.train]
    if model.ingredients.test is not None:
        parts.append(model.ingredients.test)
    inputs = np.concatenate([part.inputs for part in parts])
    space = model.network.space
    local = np.ascontiguousarray(space.from_file_order(inputs).T)
    try:
        terminal = solve_state(model.network, weights, local).ends[-1]
    except SlabFailure as failure:
        return _failed(model, failure, request)
    arrays = {"state": space.to_file_order(terminal.T)}
    result: Result = {"samples": len(inputs)}
    outputs = arrays["state"]
    if "outputs" in trained and case.loss.kind != "l2":
        layer = OutputLayer(space.from_file_order(trained["outputs"]), trained["offsets"])
        outputs = model.outputs_of(terminal, layer)
    elif case.loss.kind != "l2":
        raise case.error(
            "loss.kind", f"is {case.loss.kind}, but {result_dir} has no output layer", "l2"
        )
    arrays["outputs"] = outputs
    if model.classifies:
        arrays |= _classification(case, outputs)
    result |= {name: arrays[name].tolist() for name in arrays if name != "state"}
    result |= _accuracies(model, outputs)
    result["seconds"] = time.perf_counter() - started
    result |= provenance(model, request.options)
    _write(request, result, arrays, "predictions.npz")
    return result


def _local_inputs(model: Model) -> np.ndarray:
    space = model.network.space
    return np.ascontiguousarray(space.from_file_order(model.ingredients.train.inputs).T)


def _announce(model: Model, request: Request) -> None:
    problem = model.problem
    assert problem is not None
    space, levels = model.network.space, model.network.levels
    test = model.ingredients.test
    held = f" (and {len(test.inputs)} for testing)" if test is not None else ""
    request.say(
        f"{problem.inputs.shape[1]} samples{held}, {space.n_nodes} width nodes, {levels.layers} "
        f"layers ({levels.scheme.name}), {problem.controls.n_global} unknown controls, "
        f"{request.comm.size} {'rank' if request.comm.size == 1 else 'ranks'}"
    )


def _failed(model: Model, failure: SlabFailure, request: Request) -> Result:
    result: Result = {"converged": False, "reason": str(failure)}
    result |= provenance(model, request.options)
    _write(request, result, None, "")
    return result


def _write(
    request: Request, result: Result | None, arrays: Mapping[str, Any] | None, name: str
) -> None:
    """Write result.json and an array file to the folder, from rank 0."""
    if request.out is None:
        return
    out = request.out

    def write() -> None:
        if arrays:
            made_by = {k: v for k, v in (result or {}).items() if k in ("version", "case")}
            write_arrays(out / name, {**arrays, "made_by": json.dumps(made_by)})
        if result is not None:
            write_json(out / "result.json", result)

    on_root(request.comm, write)


def _draw(
    model: Model, request: Request, arrays: Mapping[str, Any], history: list[dict[str, Any]]
) -> None:
    """Draw the standard pictures, from rank 0."""
    assert request.out is not None
    out, solver, train = request.out, model.case.solver, model.ingredients.train
    target, labels = None, None
    if history:
        tolerances = Tolerances(solver.rtol, solver.atol, solver.max_iterations)
        target = tolerances.target(history[0]["gradient_norm"])
    if model.classifies and train.targets is not None:
        labels = [f"{label:g}" for label in train.targets]

    def draw() -> None:
        from fem_dnn import pictures  # matplotlib is slow to import and not always needed

        pictures.standard_pictures(arrays, history, out, target=target, labels=labels)

    on_root(request.comm, draw)


def _draw_confusion(model: Model, request: Request, at: Linearisation) -> None:
    """Draw the confusion matrix on the test samples, else on the training samples."""
    if request.out is None or not model.classifies or at.output_layer is None:
        return
    samples = model.ingredients.test or model.ingredients.train
    targets = samples.targets
    if targets is None:
        return
    outputs = model.outputs_of(model.terminal_state(at, samples), at.output_layer)
    out, dataset = request.out, model.ingredients.dataset

    def draw() -> None:
        from fem_dnn import pictures

        names = list(dataset.dataset.class_names) if dataset is not None else None
        figure = pictures.confusion(targets, predicted_labels(model.case, outputs), names)
        pictures.save(figure, out / "confusion.png")

    on_root(request.comm, draw)


def _write_paraview(model: Model, request: Request, ends: np.ndarray) -> None:
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


def _read_trained(result_dir: Path) -> dict[str, Any]:
    """The arrays of a result folder that make up a network."""
    path = result_dir / "solution.npz"
    trained: dict[str, Any] = {
        name: load_array(f"solution.npz:{name}", result_dir, "RESULT_DIR")
        for name in ("x", "control_t", "kernel", "bias")
    }
    with np.load(path, allow_pickle=False) as arrays:
        names = set(arrays.files)
        if names >= {"outputs", "offsets"}:
            trained |= {"outputs": arrays["outputs"], "offsets": arrays["offsets"]}
        if "feature_shift" in names:
            trained["scaling"] = Scaling.from_arrays(arrays)
    return trained


def _trained_weights(model: Model, trained: Mapping[str, Any], folder: Path) -> LayerWeights:
    """The trained kernel and bias on the case's mesh.

    Raises:
        BadInput: The case's mesh is another one.
    """
    space, levels = model.network.space, model.network.levels
    for name, here, key in (
        ("x", space.nodes, "mesh.width"),
        ("control_t", levels.t, "mesh.depth"),
    ):
        there = trained[name]
        if there.shape != here.shape or not np.allclose(there, here, rtol=1e-10, atol=1e-12):
            raise model.case.error(
                key,
                f"differs from that of the network in {folder} ({len(here)} places here, "
                f"{len(there)} there)",
                "the mesh, width_degree and depth_scheme that it was trained on",
            )
    coefficients = kernel_coefficients(space, levels.weights, trained["kernel"])
    bias = np.ascontiguousarray(space.from_file_order(trained["bias"]))[:, :, None]
    return LayerWeights(NonlocalOperator(space, levels.weights, coefficients), bias)


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
