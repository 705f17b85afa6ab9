"""Embeddings: how a vector of features becomes a function on the width domain Y.

Every embedding is linear, z -> f = Σ_k z_k ψ_k, with functions ψ_k on Y that do not know the mesh:
on a finer mesh a sample is the same function, resolved better.
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
ImageShape = tuple[int, int]
"""Rows and columns of a picture."""


@dataclass(frozen=True, eq=False)
class Basis:
    """Functions ψ_k on Y.

    Attributes:
        values: At the nodes, shape (functions, nodes).
        cells: Cells per direction of a mesh that tells them apart at degree 0, shape (d,).
    """

    values: Array
    cells: tuple[int, ...]

    def require_independent(self, weights: Array, what: str) -> None:
        """Refuse a mesh so coarse that pieces fall between its nodes, or modes alias.

        Args:
            weights: Quadrature weights of the nodes, shape (nodes,).
            what: What the functions stand for, in the plural.

        Raises:
            BadInput: The functions are linearly dependent on the nodes (mesh.width.cells).
        """
        singular = np.linalg.svd(self.values * np.sqrt(weights), compute_uv=False)
        held = int(np.sum(singular > 1e-6 * singular.max()))
        if held < len(self.values):
            cells = list(self.cells) if len(self.cells) > 1 else self.cells[0]
            raise BadInput(
                None,
                "mesh.width.cells",
                f"{len(weights)} width nodes hold only {held} of {len(self.values)} {what}",
                f"{cells} cells or finer",
            )


@dataclass(frozen=True)
class EmbeddingInfo:
    """An embedding.

    Attributes:
        name: Its name in a case file.
        description: One line.
        basis: (features, shape of the picture or None, nodes in unit coordinates (nodes, d), |Y|)
            -> the functions ψ_k.
    """

    name: str
    description: str
    basis: Callable[[int, ImageShape | None, Array, float], Basis]


def embed(
    features: Array,
    x: Array,
    weights: Array,
    bounds: Bounds,
    *,
    embedding: str = "modes",
    image_shape: ImageShape | None = None,
) -> Array:
    """Functions on Y from features, at the nodes: f = Σ_k z_k ψ_k, shape (samples, nodes).

    Args:
        features: z, shape (samples, features).
        x: Nodes, shape (nodes, d).
        weights: Their quadrature weights, shape (nodes,).
        bounds: Lowest and highest corner of Y.
        embedding: A key of `EMBEDDINGS`.
        image_shape: Rows and columns where the features are the pixels of a picture, row by row.

    Raises:
        BadInput: There is no such embedding, or pixels are asked for where there is no picture or
            no rectangle (data.embedding); or the mesh would lose features (mesh.width.cells).
    """
    if embedding not in EMBEDDINGS:
        wrong = f"{shown(embedding)} is not an embedding"
        raise BadInput(None, "data.embedding", wrong, ", ".join(EMBEDDINGS))
    basis = EMBEDDINGS[embedding].basis(features.shape[1], image_shape, *_unit(x, bounds))
    basis.require_independent(weights, f"features embedded as {embedding}")
    return features @ basis.values


def cosine_modes(count: int, x: Array, bounds: Bounds) -> Basis:
    """The first `count` Neumann modes of Y's bounding box, orthonormal in its L2.

    φ_j(x) = Π_i √((2 − δ_{j_i 0}) / L_i) cos(j_i π ξ_i), ξ = (x − low) / L, ordered as in
    `mode_numbers`.

    Args:
        count: Number of modes.
        x: Nodes, shape (nodes, d).
        bounds: Corners of the bounding box.
    """
    return _mode_basis(count, None, *_unit(x, bounds))


def mode_numbers(count: int, dimension: int) -> NDArray[np.int64]:
    """Wave numbers of the first modes, shape (count, d): by their sum, then the first one falling.

    In two dimensions (0,0), (1,0), (0,1), (2,0), (1,1), (0,2), ...
    """
    if dimension == 1:
        return np.arange(count)[:, None]
    n = int(np.ceil(np.sqrt(2 * count)))  # sums below n give n (n + 1) / 2 modes: enough
    total, second = np.tril_indices(n)
    return np.stack([total - second, second], axis=1)[:count]


def _unit(x: Array, bounds: Bounds) -> tuple[Array, float]:
    """Nodes in coordinates of the unit interval or square, and the measure of the box."""
    low, high = bounds
    return (x - low) / (high - low), float(np.prod(high - low))


def _mode_basis(count: int, _shape: ImageShape | None, xi: Array, measure: float) -> Basis:
    numbers = mode_numbers(count, xi.shape[1])
    waves = np.cos(np.pi * numbers[:, None] * xi)
    norms = np.sqrt(measure / np.prod(2.0 - (numbers == 0), axis=1))
    cells = tuple((numbers.max(axis=0) + 1).tolist())
    return Basis(np.prod(waves, axis=2) / norms[:, None], cells)


def _cell_basis(count: int, _shape: ImageShape | None, xi: Array, measure: float) -> Basis:
    rows = int(np.sqrt(count)) if xi.shape[1] == 2 else 1
    pieces = np.diff(np.arange(rows + 1) * count // rows)
    sizes = measure / (rows * np.repeat(pieces, pieces))
    values = _indicators(pieces, xi) / np.sqrt(sizes)[:, None]
    return Basis(values, (int(pieces.max()), rows)[: xi.shape[1]])


def _pixel_basis(count: int, shape: ImageShape | None, xi: Array, _measure: float) -> Basis:
    others = "modes, cells"
    if shape is None:
        wrong = f"pixels need pictures, and these {count} features are no picture"
        raise BadInput(None, "data.embedding", wrong, others)
    if xi.shape[1] != 2:
        wrong = "pixels need a rectangle to draw the pictures on, and Y is an interval"
        raise BadInput(None, "data.embedding", wrong, f"{others}, or a rectangle as mesh.width")
    rows, columns = shape
    from_the_top = np.stack([xi[:, 0], 1 - xi[:, 1]], axis=1)
    return Basis(_indicators(np.full(rows, columns), from_the_top), (columns, rows))


def _indicators(pieces: NDArray[np.int64], xi: Array) -> Array:
    """Indicator functions of pieces of the unit interval or square, shape (pieces, nodes).

    Args:
        pieces: Equal pieces in each of the equal rows, shape (rows,); one row on an interval.
        xi: Nodes in unit coordinates, shape (nodes, d).
    """
    rows = len(pieces)
    # A node on the border of two pieces belongs to the next one, whatever round-off says.
    xi = np.clip(xi + 1e-10, 0, 1 - 1e-12)
    row = np.floor(xi[:, 1] * rows).astype(int) if rows > 1 else np.zeros(len(xi), dtype=int)
    before = np.cumsum(pieces) - pieces
    number = before[row] + np.floor(xi[:, 0] * pieces[row]).astype(int)
    return (number == np.arange(pieces.sum())[:, None]).astype(np.float64)


_DESCRIBED = {
    "modes": ("features weight smooth orthonormal cosine modes: |f| in L2 is |z|", _mode_basis),
    "cells": ("a piece of Y per feature, f constant on it: |f| in L2 is |z|", _cell_basis),
    "pixels": ("the picture itself, drawn on a rectangle, its first row on top", _pixel_basis),
}

EMBEDDINGS: dict[str, EmbeddingInfo] = {
    name: EmbeddingInfo(name, *described) for name, described in _DESCRIBED.items()
}
"""The embeddings, by name."""
