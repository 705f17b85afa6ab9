"""A model's discretisation made richer, and the prolongation of functions to it.

In depth: the scheme of the next degree on the same slabs (resnet, dg0 -> dg1 -> dg2 -> dg3). In
width: polynomials of the next degree on the same cells. The spaces are nested, so a function of
the one is a function of the other: prolongation evaluates it at the new nodes, and changes
neither its norm nor its inner products.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array, kron

from fem_dnn.assembly import Discretisation, Model, model_of
from fem_dnn.collective import on_root
from fem_dnn.controls import ControlValues
from fem_dnn.depth import DepthLevels, DepthScheme, lagrange_basis, richer
from fem_dnn.ingredients import prolong_ingredients
from fem_dnn.width import WidthSpace
from fem_dnn.width_projection import width_projection

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Lift:
    """Prolongation from a discretisation to a richer one, in file order.

    Attributes:
        nodes: Values at the richer nodes from those at the nodes, shape (richer nodes, nodes).
        levels: Likewise for the control levels, shape (richer levels, levels).
    """

    nodes: csr_array
    levels: csr_array

    def width(self, values: Array, axis: int = -1) -> Array:
        """Nodal values along an axis."""
        return _along(self.nodes, values, axis)

    def depth(self, values: Array) -> Array:
        """Values at the control levels, along the first axis."""
        return _along(self.levels, values, 0)

    def controls(self, values: ControlValues) -> ControlValues:
        """Kernel, bias and output layer as the same functions."""
        known = values.arrays()  # the richer network is a small one: its kernel is held dense
        kernel, bias, outputs = (known.get(name) for name in ("kernel", "bias", "outputs"))
        return ControlValues(
            None if kernel is None else self.depth(self.width(self.width(kernel), axis=1)),
            None if bias is None else self.depth(self.width(bias)),
            None if outputs is None else self.width(outputs),
            values.offsets,
        )


def _along(matrix: csr_array, values: Array, axis: int) -> Array:
    moved = np.moveaxis(values, axis, 0)
    image = matrix @ moved.reshape(len(moved), -1)
    return np.moveaxis(image.reshape(-1, *moved.shape[1:]), 0, axis)


@dataclass(frozen=True, eq=False)
class Enrichment:
    """A model on a richer discretisation, and how a solution's parts are functions there.

    Attributes:
        coarse: The model.
        fine: The same problem on the richer discretisation.
        lift: Prolongation between them.
        slopes: Values at a richer slab's levels of the slopes sigma(u), shape (richer levels,
            levels of a slab).
        stages: B with F_i = f_n + tau sum_j B_ij sigma(U_j) for the state at these levels.
    """

    coarse: Model
    fine: Model
    lift: Lift
    slopes: Array
    stages: Array

    def local(self, values: Array) -> Array:
        """This rank's nodal values on the finer space: (..., n_local, samples)."""
        moved = np.moveaxis(values, -2, 0)
        image = self._local @ moved.reshape(len(moved), -1)
        return np.moveaxis(image.reshape(-1, *moved.shape[1:]), 0, -2)

    @property
    def _local(self) -> csr_array:
        # Both spaces deal out their nodes with the cells, so no rank needs another's values.
        rows, columns = self.fine.network.space, self.coarse.network.space
        mine = self.lift.nodes[rows.file_position[rows.owned]]
        return mine[:, columns.file_position[columns.owned]]


def in_depth(model: Model) -> Enrichment:
    """The scheme of the next degree. The state there is the solution's reconstruction

    F(t) = f_n + int_{t_n}^t sum_j l_j(s) sigma(U_j) ds, l_j the Lagrange basis of the levels.
    """
    mesh, space, levels = model.discretisation.mesh, model.network.space, model.network.levels
    scheme = richer(levels.scheme)
    basis = lagrange_basis(levels.scheme.points)
    lift = Lift(
        csr_array(eye_array(space.n_nodes)),
        csr_array(kron(eye_array(levels.layers), _levels(levels.scheme, scheme))),
    )
    antiderivatives = [phi.integ() for phi in basis]
    return Enrichment(
        model,
        on_discretisation(
            model,
            Discretisation(mesh, space, DepthLevels(scheme, levels.points)),
            lift,
        ),
        lift,
        _levels(levels.scheme, scheme),
        np.stack([P(scheme.points) - P(0.0) for P in antiderivatives], axis=1),
    )


def in_width(model: Model) -> Enrichment:
    """Polynomials of the next degree in width, by the same scheme in depth (collective)."""
    space, levels = model.network.space, model.network.levels
    fine = WidthSpace(space.mesh, space.degree + 1)
    lift = Lift(width_projection(space, fine), csr_array(eye_array(levels.count)))
    discretisation = Discretisation(model.discretisation.mesh, fine, levels)
    richer_model = on_discretisation(model, discretisation, lift)
    return Enrichment(model, richer_model, lift, np.eye(levels.scheme.levels), levels.scheme.stages)


def _levels(scheme: DepthScheme, fine: DepthScheme) -> Array:
    return np.stack([phi(fine.points) for phi in lagrange_basis(scheme.points)], axis=1)


def on_discretisation(base: Model, discretisation: Discretisation, lift: Lift) -> Model:
    """A model's problem on a richer discretisation (collective).

    Args:
        base: The model.
        discretisation: The richer one.
        lift: Takes the arrays of the one to the other.
    """
    places = discretisation.places
    ingredients = on_root(
        base.comm, lambda: prolong_ingredients(base.case, places, base.ingredients, lift)
    )
    return model_of(base.case, discretisation, ingredients, base.network.activation)
