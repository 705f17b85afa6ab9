"""A grid of states: a box in at most three dimensions, and functions on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

STEEP = 0.1
"""Slopes that jump by less than this part of the largest one are no kink."""

STAYS = 0.75
"""A jump of slopes that falls by less than this, when the distance it is seen over is halved, is
a kink; that of a smooth function falls by half."""


@dataclass(frozen=True, eq=False)
class StateGrid:
    """Equidistant points of a box, the faces among them.

    Attributes:
        box: [low, high] per state dimension, shape (D, 2).
        cells: Cells per dimension.
    """

    box: Array
    cells: int

    @property
    def dimension(self) -> int:
        """D."""
        return len(self.box)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a function on the grid: cells + 1 points per dimension."""
        return (self.cells + 1,) * self.dimension

    @property
    def size(self) -> int:
        """Number of points."""
        return int((self.cells + 1) ** self.dimension)

    @cached_property
    def spacing(self) -> Array:
        """Distance of neighbours, shape (D,)."""
        return (self.box[:, 1] - self.box[:, 0]) / self.cells

    @property
    def axes(self) -> list[Array]:
        """Coordinates along each dimension, each of shape (cells + 1,)."""
        return [np.linspace(low, high, self.cells + 1) for low, high in self.box]

    def points(self, numbers: NDArray[np.int64]) -> Array:
        """Coordinates of points by their number in C order, shape (D, len(numbers))."""
        indices = np.stack(np.unravel_index(numbers, self.shape))
        return self.box[:, :1] + self.spacing[:, None] * indices

    def nearest(self, y: Array) -> NDArray[np.int64]:
        """Numbers of the points nearest to states (D, M), shape (M,)."""
        indices = np.rint((y - self.box[:, :1]) / self.spacing[:, None]).astype(np.int64)
        return self._numbers(np.clip(indices, 0, self.cells))

    def moved(self, numbers: NDArray[np.int64], offset: Sequence[int]) -> NDArray[np.int64]:
        """Numbers of the points `offset` cells away, or where the box ends on the way there."""
        indices = np.stack(np.unravel_index(numbers, self.shape))
        return self._numbers(np.clip(indices + np.array(offset)[:, None], 0, self.cells))

    def _numbers(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.asarray(np.ravel_multi_index(tuple(indices), self.shape))

    def contains(self, y: Array) -> Mask:
        """Which of the states (D, M) lie in the box, shape (M,)."""
        low, high = self.box[:, :1], self.box[:, 1:]
        slack = 1e-9 * (high - low)
        return np.asarray(np.all((y >= low - slack) & (y <= high + slack), axis=0))

    def nearest_inside(self, y: Array) -> Array:
        """The points of the box nearest to states (D, M), like y."""
        return np.clip(y, self.box[:, :1], self.box[:, 1:])

    def second_differences(self, values: Array) -> list[Array]:
        """v(y + h e_i) - 2 v(y) + v(y - h e_i) for each i; on the faces that of the next point."""
        results = []
        for axis in range(self.dimension):
            v = np.moveaxis(values, axis, 0)
            d = np.zeros(v.shape)
            d[1:-1] = v[2:] - 2 * v[1:-1] + v[:-2]
            d[0], d[-1] = d[1], d[-2]
            results.append(np.ascontiguousarray(np.moveaxis(d, 0, axis)))
        return results

    def kinks(self, values: Array) -> Mask:
        """Where one-sided slopes differ: value functions have concave kinks only. Shape `shape`.

        The drop of slopes seen over two cells to each side is compared with that over four: for a
        smooth function it is half as large, across a kink the same.
        """
        marked = np.zeros(self.shape, dtype=bool)
        if self.cells < 8:
            return marked
        V = np.asarray(values, np.float64)
        slopes = [np.diff(V, axis=axis) / h for axis, h in enumerate(self.spacing)]
        steepest = max(float(np.max(np.abs(slope))) for slope in slopes)
        for axis, h in enumerate(self.spacing):
            v = np.moveaxis(V, axis, 0)
            middle = v[4:-4]
            near = (2 * middle - v[2:-6] - v[6:-2]) / (2 * h)
            far = (2 * middle - v[:-8] - v[8:]) / (4 * h)
            found = (near > STEEP * steepest) & (near > STAYS * far)
            np.moveaxis(marked, axis, 0)[4:-4] |= found
        return marked

    def any_near(self, marked: Mask, y: Array) -> bool:
        """Whether a marked point lies within two cells of a state (D,), in every dimension."""
        indices = np.rint((y - self.box[:, 0]) / self.spacing).astype(int)
        return bool(np.any(marked[tuple(slice(max(i - 2, 0), max(i + 3, 0)) for i in indices)]))


class Interpolant:
    """A function between the points of a grid: a monotone interpolation, corrected where it may be.

        I v = I_1 v - sum_i theta_i (1 - theta_i) / 6 [(2 - theta_i) d_i + (1 + theta_i) d_i^+]

    I_1 is multilinear, theta_i the place in the cell, d_i and d_i^+ the second differences of v
    along dimension i at the cell's two faces (in the other dimensions interpolated too): in one
    dimension the cubic through four points. Second differences beyond a bound are taken for kinks
    and dropped. With a bound M h^2 the correction is at most D M h^2 / 8, so that a scheme with it
    is a filtered one: it converges as with the monotone I_1 alone, whatever v is, and is of high
    order where v is smooth (O. Bokanowski, M. Falcone, S. Sahu, SIAM J. Sci. Comput. 38, 2016).
    Beyond the box a function has its value at the nearest point of the box.

    Args:
        grid: The grid.
        values: v on the grid.
        bounds: The largest second difference along each dimension that is no kink, shape (D,).
    """

    def __init__(self, grid: StateGrid, values: Array, bounds: Array) -> None:
        self.grid = grid
        self._values = values.reshape(-1)
        self._differences = [
            np.where(np.abs(d) <= bound, d, 0.0).reshape(-1)
            for d, bound in zip(grid.second_differences(values), bounds, strict=True)
        ]

    def __call__(self, y: Array) -> Array:
        """Values at states (D, M), shape (M,)."""
        grid, D = self.grid, self.grid.dimension
        place = np.clip((y - grid.box[:, :1]) / grid.spacing[:, None], 0, grid.cells)
        cell = np.minimum(place.astype(np.int64), grid.cells - 1)
        theta = place - cell
        strides = [(grid.cells + 1) ** (D - 1 - axis) for axis in range(D)]
        corner = cell[-1]
        for index, stride in zip(cell[:-1], strides[:-1], strict=True):
            corner = corner + index * stride

        def combine(v: Array, weights: list[Array], axis: int, start: NDArray[np.int64]) -> Array:
            if axis == D:
                return v.take(start)
            low = combine(v, weights, axis + 1, start)
            high = combine(v, weights, axis + 1, start + strides[axis])
            high -= low
            high *= weights[axis]
            high += low
            return high

        weights = list(theta)
        result = combine(self._values, weights, 0, corner)
        for i, d in enumerate(self._differences):
            tilted = [*weights[:i], (1 + theta[i]) / 3, *weights[i + 1 :]]
            mean = combine(d, tilted, 0, corner)
            mean *= theta[i] * (1 - theta[i])
            mean *= 0.5
            result -= mean
        return result

    def gradient(self, y: Array) -> Array:
        """Central differences over a cell to each side, one-sided at the faces; like y."""
        grid, result = self.grid, np.empty_like(y)
        for axis, h in enumerate(grid.spacing):
            shift = np.zeros((grid.dimension, 1))
            shift[axis] = h
            low = np.maximum(y - shift, grid.box[:, :1])
            high = np.minimum(y + shift, grid.box[:, 1:])
            result[axis] = (self(high) - self(low)) / (high - low)[axis]
        return result
