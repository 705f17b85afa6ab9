"""Depth schemes: Runge-Kutta order conditions, the adjoint tableau, quadrature."""

from collections.abc import Iterator
from itertools import combinations_with_replacement
from math import prod

import numpy as np
import pytest
from numpy.polynomial import Polynomial

from fem_dnn.depth import SCHEMES, DepthLevels, dg_time_matrix, gauss_legendre, lagrange_basis

DG = ["dg0", "dg1", "dg2"]
Tree = tuple  # a rooted tree is the sorted tuple of the subtrees at its root


def size(tree: Tree) -> int:
    return 1 + sum(size(branch) for branch in tree)


def density(tree: Tree) -> int:
    return size(tree) * prod(density(branch) for branch in tree)


def trees(order: int) -> set[Tree]:
    """All rooted trees with `order` nodes (Butcher: one order condition each)."""

    def forests(nodes: int, largest: int) -> Iterator[Tree]:
        if nodes == 0:
            yield ()
        for top in range(min(nodes, largest), 0, -1):
            for count in range(1, nodes // top + 1):
                for chosen in combinations_with_replacement(sorted(trees(top)), count):
                    for rest in forests(nodes - top * count, top - 1):
                        yield tuple(sorted(chosen + rest))

    return set(forests(order - 1, order - 1))


def stage_weight(tree: Tree, A: np.ndarray) -> np.ndarray:
    result = np.ones(len(A))
    for branch in tree:
        result = result * (A @ stage_weight(branch, A))
    return result


def test_number_of_rooted_trees() -> None:
    assert [len(trees(n)) for n in range(1, 7)] == [1, 1, 2, 4, 9, 20]


@pytest.mark.parametrize("name", SCHEMES)
def test_order_conditions(name: str) -> None:
    """Exactly up to the order that the scheme claims: 2q + 1 for dg."""
    scheme = SCHEMES[name]

    def defects(order: int) -> list[float]:
        return [
            abs(scheme.weights @ stage_weight(tree, scheme.stages) - 1 / density(tree))
            for tree in trees(order)
        ]

    for order in range(1, scheme.order + 1):
        assert max(defects(order)) < 1e-15
    assert max(defects(scheme.order + 1)) > 1e-4


@pytest.mark.parametrize("name", SCHEMES)
def test_adjoint_tableau_satisfies_the_symplecticity_condition(name: str) -> None:
    """w_i A*_ik = w_k A_ki: then the discrete adjoint is the adjoint of the discrete state."""
    scheme = SCHEMES[name]
    W = np.diag(scheme.weights)
    assert np.allclose(W @ scheme.adjoint_stages, scheme.stages.T @ W, rtol=0, atol=1e-16)


@pytest.mark.parametrize("name", DG)
def test_adjoint_tableau_is_the_scheme_run_backwards(name: str) -> None:
    """dG is adjoint consistent: reflecting the slab turns the scheme into its adjoint."""
    scheme = SCHEMES[name]
    assert np.allclose(scheme.adjoint_stages, scheme.stages[::-1, ::-1], rtol=0, atol=1e-15)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_tableau_is_the_weak_form(degree: int) -> None:
    """The time matrix from exact integrals of polynomials, not from the quadrature that made it."""
    points, weights = gauss_legendre(degree + 1)
    basis = lagrange_basis(points)
    G = np.array(
        [
            [(v * f.deriv()).integ()(1) - (v * f.deriv()).integ()(0) + v(0) * f(0) for f in basis]
            for v in basis
        ]
    )
    assert np.allclose(dg_time_matrix(degree), G, rtol=0, atol=1e-14)
    assert np.allclose(G @ SCHEMES[f"dg{degree}"].stages, np.diag(weights), rtol=0, atol=1e-15)


@pytest.mark.parametrize("points", [1, 2, 3, 5])
def test_quadrature_is_exact_to_degree_2n_minus_1(points: int) -> None:
    z, w = gauss_legendre(points)
    for degree in range(2 * points):
        assert abs(w @ z**degree - 1 / (degree + 1)) < 1e-15
    assert abs(w @ z ** (2 * points) - 1 / (2 * points + 1)) > 1e-7


@pytest.mark.parametrize("name", SCHEMES)
def test_tracking_points_and_extrapolation(name: str) -> None:
    scheme = SCHEMES[name]
    q = scheme.levels - 1
    # Tracking is integrated by q + 1 Gauss-Legendre points.
    z, w = gauss_legendre(q + 1)
    assert np.array_equal(scheme.tracking_points, z)
    assert np.array_equal(scheme.tracking_weights, w)
    # Extrapolation reproduces the slab's polynomial one slab further.
    poly = Polynomial(np.arange(1.0, q + 2))
    values = poly(scheme.points)
    assert np.allclose(scheme.extrapolation @ values, poly(1 + scheme.points), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SCHEMES)
def test_levels_on_graded_slabs(name: str) -> None:
    points = np.array([0.0, 0.2, 0.5, 1.3])
    levels = DepthLevels(SCHEMES[name], points)
    per_slab = SCHEMES[name].levels
    assert levels.count == levels.layers * per_slab == len(levels.t) == len(levels.weights)
    assert abs(levels.weights.sum() - 1.3) < 1e-15
    assert np.all(np.diff(levels.t) > 0)
    for n in range(levels.layers):
        slab = levels.of_slab(n)
        assert len(slab) == per_slab
        t = levels.t[slab.start : slab.stop]
        assert np.all((points[n] <= t) & (t < points[n + 1]))
        # One quadrature rule per slab, exact for polynomials that the scheme knows.
        integral = levels.weights[slab.start : slab.stop] @ t ** (per_slab - 1)
        exact = (points[n + 1] ** per_slab - points[n] ** per_slab) / per_slab
        assert abs(integral - exact) < 1e-15
    if name == "resnet":
        assert np.array_equal(levels.t, points[:-1])  # one level per layer, at its start
        assert np.allclose(levels.tracking_t, (points[:-1] + points[1:]) / 2)
    else:
        assert np.array_equal(levels.t, levels.tracking_t)
