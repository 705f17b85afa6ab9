"""Interpolation between the points of a grid, and where a function on it has kinks."""

import numpy as np
import pytest
from helpers import fitted_order

from fem_dnn.dynamic_programming import StateGrid
from fem_dnn.dynamic_programming.state_grid import Interpolant

BOX = np.array([[-1.0, 1.5], [0.0, 2.0], [-2.0, -0.5]])
rng = np.random.default_rng(0)


def on(grid, function):
    return function(grid.points(np.arange(grid.size))).reshape(grid.shape)


def inside(grid, count=200):
    """States at least two cells away from the faces."""
    low, high = grid.box[:, :1] + 2 * grid.spacing[:, None], grid.box[:, 1:]
    return low + (high - 2 * grid.spacing[:, None] - low) * rng.random((grid.dimension, count))


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_points_and_their_numbers(dimension):
    grid = StateGrid(BOX[:dimension], 4)
    numbers = np.arange(grid.size)
    y = grid.points(numbers)
    assert np.array_equal(y.reshape(dimension, *grid.shape), np.meshgrid(*grid.axes, indexing="ij"))
    assert np.array_equal(grid.nearest(y + 0.4 * grid.spacing[:, None]), numbers)
    last = [0] * (dimension - 1) + [1]
    moved = grid.points(grid.moved(numbers, last))
    assert np.allclose(moved[-1], np.minimum(y[-1] + grid.spacing[-1], BOX[dimension - 1, 1]))
    assert np.array_equal(moved[:-1], y[:-1])


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_exact_for_cubics_in_each_variable_alone(dimension):
    """And for products of first powers: what the correction is made for."""

    def function(y):
        return np.sum(y**3 - 2 * y**2 + y, axis=0) + 3 * np.prod(y, axis=0)

    grid = StateGrid(BOX[:dimension], 7)
    here = inside(grid)
    exact = Interpolant(grid, on(grid, function), np.full(dimension, np.inf))
    assert exact(here) == pytest.approx(function(here), abs=1e-12)
    monotone = Interpolant(grid, on(grid, function), np.zeros(dimension))
    assert np.max(np.abs(monotone(here) - function(here))) > 1e-3


def test_orders():
    """Four where the function is smooth; two for the monotone interpolation alone."""

    def function(y):
        return np.exp(y[0]) * np.cos(2 * y[1])

    cells = [8, 16, 32, 64]
    for bounds, order in (([np.inf] * 2, 4), ([0.0, 0.0], 2)):
        errors = []
        for n in cells:
            grid = StateGrid(BOX[:2], n)
            here = inside(grid, 4000)
            v = Interpolant(grid, on(grid, function), np.array(bounds))
            errors.append(np.max(np.abs(v(here) - function(here))))
        assert abs(fitted_order(cells, errors) - order) < 0.3


def test_the_correction_is_bounded():
    """Whatever the values: a filtered scheme stays close to its monotone one."""
    grid = StateGrid(BOX[:2], 9)
    values, here = rng.standard_normal(grid.shape), inside(grid, 2000)
    bounds = np.array([0.3, 0.5])
    difference = Interpolant(grid, values, bounds)(here) - Interpolant(grid, values, 0 * bounds)(
        here
    )
    assert 0 < np.max(np.abs(difference)) <= bounds.sum() / 8


def test_beyond_the_box_the_nearest_value_counts():
    grid = StateGrid(BOX[:2], 9)
    v = Interpolant(grid, on(grid, lambda y: y[0] + y[1]), np.zeros(2))
    assert v(np.array([[5.0], [1.0]])) == pytest.approx(1.5 + 1.0)
    assert v(np.array([[-5.0], [-1.0]])) == pytest.approx(-1.0)


@pytest.mark.parametrize("place", [-0.2, 0.037, 0.31])
def test_kinks_are_found_and_smooth_functions_have_none(place):
    grid = StateGrid(np.array([[-1.0, 1.0], [-1.0, 1.0]]), 60)

    def smooth(y):
        return 0.3 * y[0] ** 2 - 0.4 * np.sin(2 * y[1]) * y[0]

    def kinked(y):
        return smooth(y) - np.abs(y[0] - 0.5 * y[1] - place)

    assert not grid.kinks(on(grid, smooth)).any()
    marked = grid.kinks(on(grid, kinked))
    y = grid.points(np.arange(grid.size))
    distance = np.abs(y[0] - 0.5 * y[1] - place).reshape(grid.shape)
    assert np.max(distance[marked]) < 2.1 * grid.spacing[0]
    rows = marked[4:-4, 4:-4].any(axis=0)
    crossed = (distance < grid.spacing[0])[4:-4, 4:-4].any(axis=0)
    assert np.all(rows[crossed])
    # A valley's crease is no kink of a value function: those are concave.
    assert not grid.kinks(on(grid, lambda y: np.abs(y[0] - place))).any()
