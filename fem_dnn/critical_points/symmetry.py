"""Maps of controls that leave the state equation as it is: candidates for symmetries of a problem.

    (a, b)(x, y, t) -> (a(pi x, pi y, t), sign b(pi x, t)),    f(x, t) -> sign f(pi x, t)

with pi a reflection of Y or an exchange of its axes, and sign = -1 for odd activations. A problem
has the symmetry if its data have it, be it with the samples in another order: then the image of a
critical point is one, which a single gradient tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from fem_dnn.controls import ControlSpace, ControlValues
from fem_dnn.problem import LearningProblem
from fem_dnn.width import WidthSpace

Array = NDArray[np.float64]
Permutation = NDArray[np.intp]

EXACT = 1e-8
"""How far a node's image may be from a node, in parts of the domain's size."""

LARGEST = 20_000_000
"""Kernels of more entries are not moved about: every rank would hold them whole."""


@dataclass(frozen=True, eq=False)
class Symmetry:
    """A map of controls.

    Attributes:
        name: What it makes of a point, e.g. "mirror image".
        controls: The control space.
        nodes: pi, as positions in file order.
        sign: 1.0 or -1.0.
    """

    name: str
    controls: ControlSpace
    nodes: Permutation
    sign: float

    def apply(self, control: Array) -> Array:
        """The image of a local control vector (collective)."""
        values, pi = self.controls.values(control), self.nodes
        return self.controls.coordinates(
            ControlValues(
                None if values.kernel is None else values.kernel[:, pi][:, :, pi],
                None if values.bias is None else self.sign * values.bias[:, pi],
                None if values.outputs is None else values.outputs[:, pi],
                None if values.offsets is None else self.sign * values.offsets,
            )
        )


def candidate_symmetries(problem: LearningProblem) -> list[Symmetry]:
    """The maps that the width space and the activation admit, without the identity.

    Whether the data admit them too is for the gradient at an image to say.
    """
    controls, space = problem.controls, problem.network.space
    if controls.levels.count * space.n_nodes**2 > LARGEST:
        return []
    signs = [1.0, -1.0] if is_odd(problem) else [1.0]
    maps = []
    for (name, nodes), sign in product(_isometries(space), signs):
        words = [name] if name else []
        if sign < 0:
            words.append("change of sign")
        if words:
            maps.append(Symmetry(" with ".join(words), controls, nodes, sign))
    return maps


def is_odd(problem: LearningProblem) -> bool:
    """Whether sigma(-u) = -sigma(u), tried at a few numbers."""
    activation = problem.network.activation
    u = np.array([0.0, 0.1, 0.7, 1.9, 6.3])
    return bool(np.allclose(activation(-u), -activation(u), rtol=0, atol=1e-14))


def _isometries(space: WidthSpace) -> Iterator[tuple[str, Permutation]]:
    """Names and node maps of the identity, the reflections and exchanges of axes of Y."""
    dimension = space.nodes.shape[1]
    low, high = space.bounds
    size, middle = float(np.max(high - low)), 0.5 * (low + high)
    tree = cKDTree(space.nodes)
    for exchanged in [False, True][:dimension]:
        for flips in product([1.0, -1.0], repeat=dimension):
            centred = (space.nodes - middle) * np.array(flips)
            images = (centred[:, ::-1] if exchanged else centred) + middle
            distances, nodes = tree.query(images)
            fits = np.max(distances) <= EXACT * size and len(np.unique(nodes)) == len(nodes)
            if fits and np.allclose(space.node_weights[nodes], space.node_weights, rtol=EXACT):
                yield _name(flips, exchanged), nodes.astype(np.intp)


def _name(flips: tuple[float, ...], exchanged: bool) -> str:
    words = "mirror image" if -1.0 in flips else ""
    if words and len(flips) > 1:
        axes = " and ".join(f"x[{axis}]" for axis, flip in enumerate(flips) if flip < 0)
        words += f" in {axes}"
    return " with ".join(filter(None, [words, "exchange of axes" if exchanged else ""]))
