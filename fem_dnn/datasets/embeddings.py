"""Embeddings: how a vector of features becomes a function on the width domain Y.

Every embedding is linear, z -> f = Σ_k z_k ψ_k, with functions ψ_k on Y that do not know the mesh:
on finer meshes the same sample is the same function, resolved better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fem_dnn.errors import BadInput, shown

Array = NDArray[np.float64]
Bounds = tuple[Array, Array]
"""Lowest and highest corner of Y's bounding box, each of shape (d,)."""
Grid = list[int]
"""Pieces in every row of Y, the lowest row first; on an interval there is one row."""


@dataclass(frozen=True)
class EmbeddingInfo:
    """An embedding.

    Attributes:
        name: Its name in a case file.
        description: One line.
        basis: (grid of pieces, nodes in unit coordinates, |Y|) -> ψ_k at the nodes, shape
            (features, nodes).
        grid: (features, dimension of Y, shape of the picture or None) -> pieces or modes per row.
    """

    name: str
    description: str
    basis: Callable[[Grid, Array, float], Array]
    grid: Callable[[int, int, tuple[int, int] | None], Grid]


def mode_numbers(count: int, dimension: int) -> NDArray[np.int64]:
    """Wave numbers of the first modes, shape (count, d): by their sum, then the first one falling.

    In two dimensions (0,0), (1,0), (0,1), (2,0), (1,1), (0,2), ...
    """
    if dimension == 1:
        return np.arange(count)[:, None]
    # Modes whose wave numbers add up to at most n - 1: n (n + 1) / 2 of them, enough for `count`.
    n = int(np.ceil(np.sqrt(2 * count)))
    total, second = np.tril_indices(n)
    return np.stack([total - second, second], axis=1)[:count]


def cosine_modes(count: int, x: Array, bounds: Bounds) -> Array:
    """The first `count` Neumann modes of Y's bounding box at the nodes, shape (count, nodes).

    φ_j(x) = Π_i √((2 − δ_{j_i 0}) / L_i) cos(j_i π ξ_i), ξ = (x − low) / L, orthonormal in L2(Y).

    Args:
        count: Number of modes.
        x: Nodes, shape (nodes, d).
        bounds: Corners of the bounding box.
    """
    return _modes(mode_numbers(count, x.shape[1]), *_unit(x, bounds))


def embed(
    features: Array,
    x: Array,
    weights: Array,
    bounds: Bounds,
    *,
    embedding: str = "modes",
    image_shape: tuple[int, int] | None = None,
) -> Array:
    """Functions on Y from features, at the nodes: shape (samples, nodes).

    Args:
        features: Shape (samples, features).
        x: Nodes, shape (nodes, d).
        weights: Their quadrature weights, shape (nodes,).
        bounds: Lowest and highest corner of Y.
        embedding: A key of `EMBEDDINGS`.
        image_shape: Rows and columns where the features are the pixels of a picture, row by row.

    Raises:
        BadInput: There is no such embedding (data.embedding); the features are no picture or Y no
            rectangle where pixels are asked for; or the mesh is so coarse that features would be
            lost (mesh.width.cells).
    """
    if embedding not in EMBEDDINGS:
        wrong = f"{shown(embedding)} is not an embedding"
        raise BadInput(None, "data.embedding", wrong, ", ".join(EMBEDDINGS))
    count, dimension = features.shape[1], x.shape[1]
    grid = EMBEDDINGS[embedding].grid(count, dimension, image_shape)
    basis = EMBEDDINGS[embedding].basis(grid, *_unit(x, bounds))
    require_independent(basis, weights, grid, f"{count} features embedded as {embedding}")
    return features @ basis


def require_independent(basis: Array, weights: Array, grid: Grid, what: str) -> None:
    """Refuse a mesh on which functions ψ_k, shape (count, nodes), cannot be told apart.

    Evaluated on too coarse a mesh, pieces fall between the nodes and modes alias.

    Raises:
        BadInput: They are linearly dependent (mesh.width.cells).
    """
    singular = np.linalg.svd(basis * np.sqrt(weights), compute_uv=False)
    held = int(np.sum(singular > 1e-6 * singular.max()))
    if held < len(basis):
        needed = [max(grid), len(grid)]
        raise BadInput(
            None,
            "mesh.width.cells",
            f"{len(weights)} width nodes hold only {held} of {what}",
            f"{needed if len(grid) > 1 else needed[0]} cells or finer",
        )


def _unit(x: Array, bounds: Bounds) -> tuple[Array, float]:
    """Nodes in coordinates of the unit interval or square, and the measure of the box."""
    low, high = bounds
    return (x - low) / (high - low), float(np.prod(high - low))


def _modes(numbers: NDArray[np.int64], xi: Array, measure: float) -> Array:
    factors = np.sqrt(2.0 - (numbers == 0))[:, None] * np.cos(np.pi * numbers[:, None] * xi)
    return np.prod(factors, axis=2) / np.sqrt(measure)


def _mode_basis(grid: Grid, xi: Array, measure: float) -> Array:
    return _modes(mode_numbers(sum(grid), xi.shape[1]), xi, measure)


def _mode_grid(count: int, dimension: int, _shape: tuple[int, int] | None) -> Grid:
    numbers = mode_numbers(count, dimension)
    if dimension == 1:
        return [count]
    return np.bincount(numbers[:, 1]).tolist()


def _pieces(grid: Grid, xi: Array) -> NDArray[np.int64]:
    """Number of the piece that each node lies in, shape (nodes,); the lowest row first."""
    # A node on the border of two pieces belongs to the upper one, whatever round-off says.
    cell = 1e-10
    last = xi[:, -1] if len(grid) > 1 else np.zeros(len(xi))
    row = np.clip(np.floor(last * len(grid) + cell).astype(int), 0, len(grid) - 1)
    pieces = np.array(grid)[row]
    column = np.clip(np.floor(xi[:, 0] * pieces + cell).astype(int), 0, pieces - 1)
    return np.concatenate([[0], np.cumsum(grid)])[row] + column


def _cell_basis(grid: Grid, xi: Array, measure: float) -> Array:
    inside = _pieces(grid, xi) == np.arange(sum(grid))[:, None]
    piece = measure / (len(grid) * np.repeat(grid, grid))
    return inside / np.sqrt(piece)[:, None]


def _cell_grid(count: int, dimension: int, _shape: tuple[int, int] | None) -> Grid:
    rows = int(np.sqrt(count)) if dimension == 2 else 1
    return [(row + 1) * count // rows - row * count // rows for row in range(rows)]


def _pixel_basis(grid: Grid, xi: Array, _measure: float) -> Array:
    # Pictures have their first row at the top.
    upside_down = np.stack([xi[:, 0], 1 - xi[:, 1]], axis=1)
    return (_pieces(grid, upside_down) == np.arange(sum(grid))[:, None]).astype(np.float64)


def _pixel_grid(_count: int, dimension: int, shape: tuple[int, int] | None) -> Grid:
    others = "modes, cells"
    if shape is None:
        wrong = "pixels need pictures, and these features are not pixels"
        raise BadInput(None, "data.embedding", wrong, others)
    if dimension != 2:
        wrong = "pixels need a rectangle to draw the pictures on, and Y is an interval"
        allowed = f'{others}; or mesh.width.shape = "rectangle"'
        raise BadInput(None, "data.embedding", wrong, allowed)
    return [shape[1]] * shape[0]


EMBEDDINGS: dict[str, EmbeddingInfo] = {
    info.name: info
    for info in (
        EmbeddingInfo(
            "modes",
            "coefficients of smooth, L2-orthonormal cosine modes: the norm of f is that of z",
            _mode_basis,
            _mode_grid,
        ),
        EmbeddingInfo(
            "cells",
            "one piece of Y per feature, f constant on it: the norm of f is that of z",
            _cell_basis,
            _cell_grid,
        ),
        EmbeddingInfo(
            "pixels",
            "the picture itself, drawn on the rectangle Y with its first row at the top",
            _pixel_basis,
            _pixel_grid,
        ),
    )
}
"""The embeddings, by name."""
