"""In which form a case's learning problem is solved: dense, or the Gram form.

The Gram form costs O(nodes S^2) where the dense one costs O(nodes^2 S). With 16 samples and 32
layers a dense Hessian product takes 3.8 times as long at 250 nodes, 22 times at 1 000
(docs/width.md, made by `benchmarks/width.py`).
"""

from __future__ import annotations

import math
from dataclasses import replace

from fem_dnn.assembly import Model
from fem_dnn.gram.linearisation import GramLinearisation
from fem_dnn.gram.problem import GramProblem, why_not
from fem_dnn.gram.stretch import ARRAYS
from fem_dnn.problem import LearningProblem, Linearisation

NODES_PER_SAMPLE = 4
"""Nodes per sample from which on the Gram form is chosen unasked."""

NODES = 256
"""Width nodes from which on it is."""

TRAJECTORY_BYTES = 8e9
"""Memory per rank up to which the states and adjoints of all layers are kept: beyond, those of
sqrt(layers) at a time, the others made anew from where their stretches of the depth start. A
Hessian product takes about twice as long then."""

DENSE_ENTRIES = 2e7
"""Kernel entries up to which a solution in Gram form is made dense, to estimate its error and to
check the theory on it."""


def choose_representation(model: Model) -> Model:
    """The model with its learning problem in the form that the case asks for (collective).

    Raises:
        BadInput: The Gram form is asked for, and the case does not admit it.
    """
    assert model.problem is not None
    asked = model.case.solver.representation
    if asked == "dense":
        return model
    obstacle = _obstacle(model)
    if asked == "gram" and obstacle is not None:
        reason, instead = obstacle
        allowed = f'"auto" or "dense"{f"; or {instead}" if instead else ""}'
        raise model.case.error("solver.representation", f'is "gram", but {reason}', allowed)
    samples, nodes = len(model.problem.sample_weights), model.network.space.n_nodes
    pays = nodes >= max(NODES, NODES_PER_SAMPLE * samples)
    if obstacle is not None or not (pays or asked == "gram"):
        return model
    gram = GramProblem.of(model.problem, layers_at_once(model.problem))
    return replace(model, problem=gram)


def layers_at_once(problem: LearningProblem) -> int | None:
    """How many layers' states and adjoints a problem keeps at a time; None: all."""
    space, levels = problem.network.space, problem.network.levels
    numbers = ARRAYS * levels.count * len(problem.sample_weights) * space.n_nodes
    if 8 * numbers / space.comm.size <= TRAJECTORY_BYTES:
        return None
    return math.ceil(math.sqrt(levels.layers))


def _obstacle(model: Model) -> tuple[str, str] | None:
    """Why a case cannot be solved in Gram form, and the key that would admit it, if one would.

    None if it can.
    """
    case = model.case
    assert model.problem is not None
    if case.solver.method != "newton":
        wrong = f"solver.method is {case.solver.method}: only newton works in that form"
        return wrong, 'solver.method = "newton"'
    if case.solver.sample_groups not in ("auto", 1):
        wrong = f"solver.sample_groups is {case.solver.sample_groups}: it knows no groups"
        return wrong, 'solver.sample_groups = "auto"'
    if case.solver.nested:
        return "solver.nested transfers kernels between meshes", "solver.nested = 0"
    if case.initial.kind not in ("zero", "file"):
        wrong = f"the initial guess, {case.initial.kind}, is no sum over the samples"
        kink = case.network.activation == "relu"  # where no solve should start
        return wrong, "" if kink else 'solver.initial = { kind = "zero" }'
    reason = why_not(model.problem)
    return None if reason is None else (reason, "")


def representation(model: Model) -> str:
    """gram | dense: the form of a model's learning problem."""
    return "gram" if isinstance(model.problem, GramProblem) else "dense"


def dense_entries(model: Model) -> float:
    """How many numbers a dense kernel is on all levels."""
    return float(model.network.levels.count) * model.network.space.n_nodes**2


def made_dense(model: Model, at: Linearisation) -> tuple[Model, Linearisation] | None:
    """Model and linearisation in dense form; None where the kernel is too large (collective)."""
    if not isinstance(at, GramLinearisation):
        return model, at
    if dense_entries(model) > DENSE_ENTRIES:
        return None
    return replace(model, problem=at.problem.dense), at.dense()
