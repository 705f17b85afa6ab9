"""The layered network with its tracking term integrated exactly.

The program reads the tracking of `resnet` in the middle of each layer, where an oscillation about
the target may look better than it is: with misfits that alternate in sign at the slab ends it
vanishes. Along the piecewise-linear trajectory two Gauss points are exact for targets that are
affine on every layer. A scheme is data (`depth.DepthScheme`), so nothing else changes: objective,
adjoint and Hessian follow.
"""

from __future__ import annotations

from dataclasses import replace

from mpi4py import MPI

from fem_dnn.assembly import Discretisation, Model, model_of
from fem_dnn.case import Case
from fem_dnn.collective import on_root
from fem_dnn.depth import SCHEMES, DepthLevels, DepthScheme, gauss_legendre
from fem_dnn.ingredients import read_ingredients


def exactly_tracking() -> DepthScheme:
    """`resnet` with its tracking term at two Gauss points per layer."""
    points, weights = gauss_legendre(2)
    return replace(
        SCHEMES["resnet"],
        tracking_points=points,
        tracking_weights=weights,
        tracking_stages=points[:, None],
    )


def assemble_exactly(case: Case, comm: MPI.Comm = MPI.COMM_WORLD) -> Model:
    """A case of scheme `resnet` made ready to be solved, its tracking exact (collective).

    Raises:
        BadInput: The case is wrong or of another scheme.
    """
    if case.network.depth_scheme != "resnet":
        raise case.error(
            "network.depth_scheme",
            f'"{case.network.depth_scheme}" integrates its tracking at its own levels',
            "resnet",
        )
    given = Discretisation.of(case, comm)
    levels = DepthLevels(exactly_tracking(), given.levels.points)
    discretisation = Discretisation(given.mesh, given.space, levels)
    places = discretisation.places
    ingredients = on_root(comm, lambda: read_ingredients(case, places, None))
    return model_of(case, discretisation, ingredients)
