"""How functions on the width domain Y, and on depth times width, are drawn.

Every node stands for a cell. In one dimension the cells are as long as the nodes' weights, one
after the other: for degree 0 these are the mesh cells, and for Gauss-Legendre nodes each such cell
contains its node (separation theorem of Chebyshev, Markov and Stieltjes). Nodes that form a grid
in two dimensions are treated direction by direction; others are drawn on their mesh's cells
(`cells`), or, where no mesh is known, triangulated. In three dimensions the slice through the
middle is shown, every place in the colour of the nearest node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.tri import Triangulation
from numpy.typing import NDArray
from scipy.spatial import KDTree

from fem_dnn.pictures.cells import MeshCells
from fem_dnn.pictures.style import ColourScale, dress

Array = NDArray[np.float64]
Rectangle = tuple[float, float, float, float]
"""Left, right, bottom, top."""

_COLUMNS = 256
"""Columns, at least, into which depth is divided to show a function linear between slab ends."""

_RASTER = 120
"""Places per direction in a slice through three dimensions."""


@dataclass(frozen=True, eq=False)
class WidthNodes:
    """The nodes of the width space, as something to draw on.

    Attributes:
        x: Coordinates in file order, shape (nodes, d), d = 1, 2 or 3.
        weights: Quadrature weights, shape (nodes,).
        cells: The two-dimensional mesh's cells; None where they are not known.
    """

    x: Array
    weights: Array
    cells: MeshCells | None = None

    @classmethod
    def of(cls, arrays: Mapping[str, Any]) -> WidthNodes:
        """The nodes of a `solution.npz`."""
        x, weights = np.asarray(arrays["x"]), np.asarray(arrays["node_weights"])
        return cls(x, weights, MeshCells.of(arrays))

    @property
    def dimension(self) -> int:
        """d."""
        return self.x.shape[1]

    @cached_property
    def edges(self) -> list[Array] | None:
        """Cell boundaries in each direction; None for scattered nodes and in three dimensions."""
        if self.dimension == 3:
            return None
        if self.dimension == 1:
            return [cell_edges(self.x[:, 0], self.weights, float(self.weights.sum()))]
        size = np.max(np.ptp(self.x, axis=0)) or 1.0
        lines = [np.unique(np.round(c / size, 9), return_inverse=True) for c in self.x.T]
        numbers = [line[1] for line in lines]
        shape = [len(line[0]) for line in lines]
        # File order has the last coordinate slowest: a grid counts like this, and nothing else.
        if not np.array_equal(numbers[0] + shape[0] * numbers[1], np.arange(np.prod(shape))):
            return None
        table = self.weights.reshape(shape[1], shape[0])
        nodes = [self.x[: shape[0], 0], self.x[:: shape[0], 1]]
        marginals = [table.sum(axis=0), table.sum(axis=1)]
        across, up = _side_lengths(nodes, marginals, float(self.weights.sum()))
        return [
            cell_edges(nodes[0], marginals[0], across),
            cell_edges(nodes[1], marginals[1], up),
        ]

    @property
    def place(self) -> str:
        """What part of Y is drawn, to end a title with."""
        if self.dimension < 3:
            return ""
        return f" in the slice $x_2 = {self._middle:.3g}$"

    @property
    def _middle(self) -> float:
        return float(self.x[:, 2].min() + self.x[:, 2].max()) / 2

    @cached_property
    def _slice(self) -> tuple[Rectangle, NDArray[np.int64], NDArray[np.bool_]]:
        """A raster of the middle slice: its corners, each place's node, and which are in Y."""
        size = np.cbrt(self.weights)
        low, high = self.x.min(axis=0) - size.mean() / 2, self.x.max(axis=0) + size.mean() / 2
        sides = [np.linspace(low[k], high[k], 2 * _RASTER + 1)[1::2] for k in (0, 1)]
        first, second = np.meshgrid(*sides)
        places = np.stack([first, second, np.full_like(first, self._middle)], axis=-1)
        distance, nearest = KDTree(self.x).query(places)
        extent = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))
        return extent, nearest, distance < size[nearest]

    @cached_property
    def _triangles(self) -> Triangulation | None:
        """Triangles between scattered nodes; None where all lie on a line.

        Those much longer than the nodes' spacing bridge a hole or a bay of Y and are left out.
        """
        spread = np.linalg.svd(self.x - self.x.mean(axis=0), compute_uv=False)
        if len(self.x) < 3 or spread[-1] < 1e-9 * spread[0]:
            return None
        triangles = Triangulation(self.x[:, 0], self.x[:, 1])
        corners = self.x[triangles.triangles]
        longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
        spacing = np.sqrt(self.weights[triangles.triangles].mean(axis=1))
        triangles.set_mask(longest > 4 * spacing)
        return triangles

    def draw(self, axes: Axes, values: Array, scale: ColourScale) -> Any:
        """Draw a function on Y, d = 2 or 3, first coordinate to the right, second up."""
        norm, cmap = scale.norm, scale.cmap
        axes.set_aspect("equal")
        if self.dimension == 3:
            extent, nearest, inside = self._slice
            shown = np.ma.masked_where(~inside, values[nearest])
            return axes.imshow(shown, origin="lower", extent=extent, norm=norm, cmap=cmap)
        if self.edges is not None:
            first, second = self.edges
            table = values.reshape(len(second) - 1, len(first) - 1)
            return axes.pcolorfast(first, second, table, norm=norm, cmap=cmap)
        if self.cells is not None:
            return self.cells.draw(axes, values, scale)
        if self._triangles is not None:
            return axes.tripcolor(self._triangles, values, shading="gouraud", norm=norm, cmap=cmap)
        return axes.scatter(self.x[:, 0], self.x[:, 1], c=values, norm=norm, cmap=cmap)

    def draw_over(self, axes: Axes, edges: Array, values: Array, scale: ColourScale) -> Any:
        """Draw a function on a one-dimensional Y (upwards) over something else (to the right).

        Args:
            axes: Where.
            edges: Boundaries of the columns, shape (columns + 1,).
            values: Shape (columns, nodes).
            scale: Colours.
        """
        assert self.edges is not None
        dress(axes)
        return axes.pcolorfast(edges, self.edges[0], values.T, norm=scale.norm, cmap=scale.cmap)


def cell_edges(nodes: Array, weights: Array, length: float) -> Array:
    """Boundaries of the nodes' cells, shape (nodes + 1,).

    Args:
        nodes: Increasing coordinates of the nodes of a quadrature rule on an interval.
        weights: Its weights, to any scale.
        length: Length of the interval.
    """
    part = weights / weights.sum()
    # A rule that is exact for linear functions has its centroid in the middle.
    start = part @ nodes - length / 2
    return start + length * np.concatenate([[0.0], np.cumsum(part)])


def _side_lengths(nodes: list[Array], weights: list[Array], area: float) -> tuple[float, float]:
    """Sides of the rectangle whose product rule has these nodes, and weights up to factors.

    Either the nodes are the middles of their cells (degree 0), or both rules are exact for
    quadratics (Gauss-Legendre); the area tells which.
    """
    middles, gauss = [], []
    for x, w in zip(nodes, weights, strict=True):
        part = w / w.sum()
        gauss.append(float(np.sqrt(12 * part @ (x - part @ x) ** 2)))
        distances = (part[1:] + part[:-1]) / 2
        middles.append(float(np.ptp(x) / distances.sum()) if len(x) > 1 else None)
    across, up = middles
    # A single line of nodes tells nothing of its own thickness, but the area does.
    across = across or area / (up or np.sqrt(area))
    up = up or area / across
    if None not in middles and abs(np.prod(gauss) - area) < abs(across * up - area):
        across, up = gauss
    return across, up


def over_depth(t: Array, values: Array) -> tuple[Array, Array]:
    """Columns that show a function of depth as it is: linear between the slab ends.

    Args:
        t: Slab ends, shape (layers + 1,).
        values: Values there, shape (layers + 1, nodes).

    Returns:
        Boundaries of the columns, shape (columns + 1,), and values in their middles, (columns,
        nodes).
    """
    parts = -(-_COLUMNS // (len(t) - 1))
    inner = np.arange(parts) / parts
    edges = np.append((t[:-1, None] + np.diff(t)[:, None] * inner).ravel(), t[-1])
    ahead = np.tile(inner + 0.5 / parts, len(t) - 1)[:, None]
    before, after = np.repeat(values[:-1], parts, axis=0), np.repeat(values[1:], parts, axis=0)
    return edges, (1 - ahead) * before + ahead * after
