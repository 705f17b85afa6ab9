"""Which critical points are symmetric copies of others.

Copies share objective, lowest eigenvalues and the norms of their controls. Where they do, a map
between them is looked for: one of the candidates of `symmetry`; a permutation of the nodes, with
changes of sign for odd activations; for the linear activation an orthogonal map of L2(Y), which
may be one of a continuous family. A map is believed when it carries one point onto the other. Where
none is found the copy is only probable, and said to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from fem_dnn.controls import ControlValues
from fem_dnn.critical_points.symmetry import LARGEST, Symmetry, is_odd
from fem_dnn.inertia import Inertia
from fem_dnn.problem import LearningProblem, Linearisation

Array = NDArray[np.float64]

ALIKE = 1e-6
"""Relative difference below which objectives, eigenvalues and norms are the same."""

CARRIED = 1e-5
"""Relative L2 distance to which a map has to carry one point onto the other."""

MATCHED = 600
"""Most nodes among which a permutation is looked for: its cost grows with the third power."""

PROBABLY = "same objective, spectrum and norms: probably a symmetric copy by a map not recognised"


@dataclass(frozen=True)
class Copy:
    """A point is a copy of an earlier one.

    Attributes:
        of: Number of that one, from 1.
        how: How it was recognised.
        certain: Whether a map that carries one onto the other was found.
    """

    of: int
    how: str
    certain: bool


Known = tuple[Linearisation, Inertia]


def copy_of(
    at: Linearisation, kind: Inertia, earlier: Sequence[Known], symmetries: Sequence[Symmetry]
) -> Copy | None:
    """The first earlier point that a point is a copy of; None where it is of none (collective)."""
    for number, (other, other_kind) in enumerate(earlier, 1):
        if alike(at, kind, other, other_kind):
            how = _map_between(other, at, symmetries)
            if how is not None and kind.zero:
                how += "; the Hessian's zero eigenvalues suggest a continuous family"
            return Copy(number, how or PROBABLY, how is not None)
    return None


def alike(at: Linearisation, kind: Inertia, other: Linearisation, other_kind: Inertia) -> bool:
    """Whether objective, lowest eigenvalues and norms of the controls agree (collective)."""
    if (kind.kind, kind.negative, kind.zero) != (
        other_kind.kind,
        other_kind.negative,
        other_kind.zero,
    ):
        return False
    if abs(at.objective - other.objective) > ALIKE * abs(at.objective):
        return False
    values, others = kind.eigenvalues, other_kind.eigenvalues
    if len(values) != len(others):
        return False
    slack = np.array([each.residual for each in kind.pairs])
    slack += np.array([each.residual for each in other_kind.pairs])
    if np.any(np.abs(values - others) > slack + ALIKE * np.max(np.abs(values)) + kind.tolerance):
        return False
    norms, other_norms = control_norms(at), control_norms(other)
    largest = max(norms.values())
    return all(abs(norms[name] - other_norms[name]) <= ALIKE * largest for name in norms)


def control_norms(at: Linearisation) -> dict[str, float]:
    """L2 norms of kernel, bias, outputs, and offsets, of those that are controls (collective)."""
    controls = at.problem.controls
    present = {
        "kernel": controls.has_kernel,
        "bias": controls.has_bias,
        "outputs": controls.outputs > 0,
        "offsets": controls.outputs > 0,
    }
    norms = {}
    for name, there in present.items():
        if there:
            block = at.control[controls.blocks[name]]
            norms[name] = float(np.sqrt(controls.space.sum(np.array(block @ block))))
    return norms


def _map_between(
    source: Linearisation, image: Linearisation, symmetries: Sequence[Symmetry]
) -> str | None:
    """A word for the map that carries one point onto another; None where none is found."""
    controls = source.problem.controls
    size = controls.norm(image.control)

    def carried(moved: Array) -> bool:
        return controls.norm(moved - image.control) <= CARRIED * size

    for symmetry in symmetries:
        if carried(symmetry.apply(source.control)):
            return symmetry.name
    for name, matrix in _node_maps(source, image):
        if carried(_transformed(source, matrix)):
            return name
    return None


def _node_maps(source: Linearisation, image: Linearisation) -> list[tuple[str, Array]]:
    """Matrices in L2-orthonormal nodal coordinates that fit states, adjoints and biases best."""
    problem = source.problem
    nodes = problem.network.space.n_nodes
    if nodes > MATCHED or problem.controls.levels.count * nodes**2 > LARGEST:
        return []
    weights = problem.network.space.node_weights
    X, Z = _features(source), _features(image)
    maps: list[tuple[str, Array]] = []
    if np.allclose(weights, weights[0], rtol=1e-10):
        maps.append(("permutation of the nodes", _assignment(X, Z, [1.0])))
        if is_odd(problem):
            signed = _assignment(X, Z, [1.0, -1.0])
            maps.append(("permutation of the nodes and their signs", signed))
    if _is_linear(problem):
        U, _, Vt = np.linalg.svd(Z @ X.T)
        maps.append(("orthogonal map of L2(Y)", U @ Vt))
    return maps


def _features(at: Linearisation) -> Array:
    """All that the point says of each node, in L2-orthonormal coordinates: (nodes, features)."""
    space = at.problem.network.space
    parts = [*at.state.ends, *at.adjoint.ends]
    if at.weights.bias is not None:
        parts += list(at.weights.bias)
    if at.output_layer is not None:
        parts.append(at.output_layer.functions.T)
    local = np.concatenate(parts, axis=1)
    features: Array = space.to_file_order(local, axis=0)
    return features * np.sqrt(space.node_weights)[:, None]


def _assignment(X: Array, Z: Array, signs: Sequence[float]) -> Array:
    """The (signed) permutation P with the least |P X - Z|."""
    costs = np.stack([_squared_distances(Z, sign * X) for sign in signs])
    rows, columns = linear_sum_assignment(costs.min(axis=0))
    matrix = np.zeros((len(X), len(X)))
    matrix[rows, columns] = np.array(signs)[costs.argmin(axis=0)[rows, columns]]
    return matrix


def _squared_distances(A: Array, B: Array) -> Array:
    squares: Array = (A**2).sum(axis=1)[:, None] + (B**2).sum(axis=1) - 2 * A @ B.T
    return squares


def _is_linear(problem: LearningProblem) -> bool:
    activation, u = problem.network.activation, np.array([-1.3, 0.0, 0.4, 2.1])
    return bool(np.allclose(activation(u), u, rtol=0, atol=1e-14))


def _transformed(at: Linearisation, P: Array) -> Array:
    """The control P a P', P b, P W, with P in L2-orthonormal nodal coordinates (collective)."""
    controls = at.problem.controls
    root = np.sqrt(controls.space.node_weights)
    # On nodal values; its inverse is that of P, the transpose.
    Q, inverse = (M / root[:, None] * root for M in (P, P.T))
    values = controls.values(at.control)
    kernel = bias = outputs = None
    if values.kernel is not None:
        operators = values.kernel * controls.space.node_weights
        kernel = (Q @ operators @ inverse) / controls.space.node_weights
    if values.bias is not None:
        bias = values.bias @ Q.T
    if values.outputs is not None:
        outputs = values.outputs @ Q.T
    return controls.coordinates(ControlValues(kernel, bias, outputs, values.offsets))
