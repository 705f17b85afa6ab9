"""The process grid of a solve: rows of the kernel over ranks, and samples over ranks.

P = R x G ranks are G groups of R (`sample_groups`). Per level and gradient a rank receives

    2 (1 - 1/R) N S/G  numbers of its group's states and adjoints (width over R ranks),
    2 (1 - 1/G) N^2/R  numbers of the kernel's and its gradient's pieces (samples over G groups),

half of each in the state solve; the least that is possible is in docs/parallel.md. `group_count`
takes the grid that costs least by them among those that share the work evenly. Newton's steps are
measured by the curvature of samples that every group has (`curvature_metric`), once for some thirty
gradients: all of them, or enough of them where they are many.

Solvers work on the grid; before and after, everything is distributed by width over all ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fem_dnn.assembly import Model, given_weights, learning_problem
from fem_dnn.controls import ControlParts, ControlSpace
from fem_dnn.gram.choice import representation
from fem_dnn.ingredients import Ingredients, Samples
from fem_dnn.memory import within_memory
from fem_dnn.network import LayerWeights, Network
from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.sample_groups import SampleGroups
from fem_dnn.solvers.history import Accuracy
from fem_dnn.solvers.method import Method
from fem_dnn.solvers.solution import Solution, Tolerances
from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]

EVEN = 1.05
"""How much larger than in the most even grid the largest share may be."""

WAITED_FOR = 4.0
"""How much dearer a number of a state is than one of a kernel's piece: ranks wait for it at every
level, and sweeps over rows are not compiled. On two ranks samples are quicker from 1 for 2 nodes
on, rows with 1 for 8 (docs/parallel.md)."""

ENOUGH = 256
"""Samples by which every group measures curvature: all of them up to twice as many. It does so once
for some thirty gradients."""

WIDTH_ALONE = ("all-at-once", "sweep", "layerwise")
"""Methods that know no groups: what they hold is a function of all samples."""


def words_received(nodes: int, samples: int, ranks: int, groups: int) -> float:
    """Numbers that a rank receives per level and gradient, where shares are even."""
    return sum(_words(nodes, samples, ranks, groups))


def _words(nodes: int, samples: int, ranks: int, groups: int) -> tuple[float, float]:
    """Those of states and adjoints, and those of the kernel's and its gradient's pieces."""
    rows = ranks // groups
    states = 2 * (1 - 1 / rows) * nodes * samples / groups
    kernels = 2 * (1 - 1 / groups) * nodes**2 / rows
    return states, kernels


def best_group_count(nodes: int, samples: int, ranks: int) -> int:
    """The number of groups that costs least among those that share the work evenly."""
    possible = [g for g in range(1, min(ranks, samples) + 1) if ranks % g == 0]
    share = {g: ceil(nodes / (ranks // g)) * ceil(samples / g) for g in possible}
    even = [g for g in possible if share[g] <= EVEN * min(share.values())]

    def cost(groups: int) -> float:
        states, kernels = _words(nodes, samples, ranks, groups)
        return WAITED_FOR * states + kernels

    return min(even, key=cost)


def group_count(model: Model, method: str) -> int:
    """The number of sample groups with which a model is solved by a method.

    Raises:
        BadInput: The case asks for a number that cannot be; the same on all ranks.
    """
    case = model.case
    asked, ranks = case.solver.sample_groups, model.comm.size
    samples = len(model.ingredients.weights)
    gram = representation(model) == "gram"
    if asked == "auto":
        if gram or method in WIDTH_ALONE:
            return 1
        return best_group_count(model.network.space.n_nodes, samples, ranks)
    key, count = "solver.sample_groups", int(asked)
    if count > 1 and method in WIDTH_ALONE:
        wrong = f"is {count}, but {method} knows no groups"
        raise case.error(key, wrong, '1 or "auto"; or newton, lbfgs, gradient')
    if count > 1 and gram:
        raise case.error(key, f"is {count}, but the Gram form knows no groups", '1 or "auto"')
    if ranks % count:
        divisors = ", ".join(str(g) for g in range(1, ranks + 1) if ranks % g == 0)
        raise case.error(
            key, f"is {count}, for {_named(ranks)}", f'a divisor: {divisors}; or "auto"'
        )
    if count > samples:
        raise case.error(key, f"is {count}, for {samples} samples", "at most one per sample")
    return count


def _named(ranks: int) -> str:
    return f"{ranks} rank{'s' if ranks > 1 else ''}"


def solve_on_grid(
    method: Method,
    model: Model,
    initial: Array,
    tolerances: Tolerances | None = None,
    **how: Any,
) -> Solution:
    """A method's solve of a model's learning problem, on the case's process grid (collective).

    Args:
        method: The method.
        model: The model, distributed by width.
        initial: Local control vector of its learning problem.
        tolerances: When to end.
        how: Further arguments of `Method`; what is reported of accuracies is this function's.

    Returns:
        The solution, of the model's own learning problem again.
    """
    assert model.problem is not None
    count = group_count(model, method.name)
    if count == 1:
        accuracy: Accuracy | None = model.train_accuracy if model.classifies else None
        return method(within_memory(model), initial, tolerances, accuracy=accuracy, **how)
    grid = GridModel.of(model, SampleGroups.of(model.comm, count))
    ours, theirs = model.problem.controls, grid.problem.controls
    solution = method(
        within_memory(model, grid.problem),
        redistributed(initial, ours, theirs),
        tolerances,
        accuracy=grid.accuracy if model.classifies else None,
        **how,
    )
    at = within_memory(model).linearise(redistributed(solution.control, theirs, ours))
    return replace(solution, at=at)


@dataclass(frozen=True, eq=False)
class GridModel:
    """A model on a process grid.

    Attributes:
        model: Distributed by width over all ranks.
        samples: This group's training samples.
        problem: The learning problem on the grid.
    """

    model: Model
    samples: Samples
    problem: LearningProblem

    @classmethod
    def of(cls, model: Model, groups: SampleGroups) -> GridModel:
        """Deal a model's samples out over groups, each with its own width mesh (collective)."""
        whole = model.network
        mesh = whole.space.mesh_arrays.mesh(groups.width)
        network = Network(WidthSpace(mesh, whole.space.degree), whole.levels, whole.activation)
        share = groups.share(len(model.ingredients.weights))
        ingredients = of_samples(model.ingredients, share)
        given = given_weights(network, ingredients)
        problem = learning_problem(model.case, network, given, ingredients, groups)
        assert problem is not None, "the model has one"
        typical = _typical(model, network, given)
        return cls(model, ingredients.train, replace(problem, typical=typical))

    def accuracy(self, at: Linearisation) -> float | None:
        """Fraction of all training samples classified right at a linearisation (collective)."""
        outputs = at.loss_point.outputs
        own = None if outputs is None else self.model.accuracy(outputs.T, self.samples)
        if own is None:
            return None
        right = float(self.problem.groups.sum(own * len(self.samples.inputs)))
        return right / len(self.model.ingredients.weights)


def _typical(model: Model, network: Network, given: LayerWeights) -> LearningProblem | None:
    """A model's samples, or enough of them weighted as all, on a group's network (collective)."""
    whole = model.ingredients
    some = slice(None, None, max(1, len(whole.weights) // ENOUGH))
    ingredients = of_samples(whole, some)
    weights = ingredients.weights * (whole.weights.sum() / ingredients.weights.sum())
    ingredients = replace(ingredients, weights=weights)
    return learning_problem(model.case, network, given, ingredients)


def of_samples(ingredients: Ingredients, share: slice) -> Ingredients:
    """The ingredients of some training samples."""
    train, tracking = ingredients.train, ingredients.tracking
    targets = None if train.targets is None else train.targets[share]
    return replace(
        ingredients,
        train=Samples(train.inputs[share], targets),
        weights=ingredients.weights[share],
        tracking=None if tracking is None else tracking[:, share],
    )


def redistributed(vector: Array, source: ControlSpace, target: ControlSpace) -> Array:
    """The same control in a space that is distributed otherwise over the same ranks (collective).

    One level of the kernel is whole in memory at a time. What is at a bound stays there exactly.
    """
    moved = _moved(vector, source, target)
    if source.box is None or target.box is None:
        return moved
    above, below = vector >= source.box.upper, vector <= source.box.lower
    side = _moved(above.astype(np.float64) - below, source, target)
    inside = target.box.project(moved)
    return np.where(side > 0, target.box.upper, np.where(side < 0, target.box.lower, inside))


def _moved(vector: Array, source: ControlSpace, target: ControlSpace) -> Array:
    parts, there, here = source.split(vector), source.space, target.space

    def rows(values: Array, axis: int = -1) -> Array:
        return here.from_file_order(there.to_file_order(values, axis), axis)

    kernel = None
    if parts.kernel is not None:
        kernel = np.empty((len(parts.kernel), here.n_nodes, here.n_local))
        columns = there.file_order[here.file_position]
        for level in range(len(kernel)):
            kernel[level] = rows(parts.kernel[level])[columns]
    bias = None if parts.bias is None else rows(parts.bias)
    outputs = None if parts.outputs is None else rows(parts.outputs)
    return target.join(ControlParts(kernel, bias, outputs, parts.offsets))
