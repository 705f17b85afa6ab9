"""Functions on the cells of a two-dimensional width mesh, drawn as they are.

Constants fill their cells; polynomials are evaluated on small triangles inside every cell, which
belong to one cell each: nothing is smoothed over cell boundaries, and nothing bridges holes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import basix
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.tri import Triangulation
from numpy.typing import NDArray

from fem_dnn.pictures.style import ColourScale
from fem_dnn.width_element import width_element

Array = NDArray[np.float64]

_PARTS = 4
"""Parts, per polynomial degree, into which a cell's side is divided to show a polynomial."""


@dataclass(frozen=True, eq=False)
class MeshCells:
    """Triangles or quadrilaterals of a width mesh with the polynomials on them.

    Attributes:
        cell: triangle | quadrilateral.
        corners: Geometry points of every cell, shape (cells, points per cell, 2).
        degree: Degree of the cells' geometry.
        nodes: File-order numbers of every cell's nodes, shape (cells, nodes per cell).
        width_degree: Degree of the polynomials.
    """

    cell: str
    corners: Array
    degree: int
    nodes: NDArray[np.int64]
    width_degree: int

    @classmethod
    def of(cls, arrays: Mapping[str, Any]) -> MeshCells | None:
        """The cells of a `solution.npz`; None where it holds none that are drawn like this."""
        if str(arrays.get("mesh_cell")) not in ("triangle", "quadrilateral"):
            return None
        return cls(
            str(arrays["mesh_cell"]),
            np.asarray(arrays["mesh_points"])[np.asarray(arrays["mesh_cells"])],
            int(arrays["mesh_degree"]),
            np.asarray(arrays["cell_nodes"]),
            int(arrays["width_degree"]),
        )

    @property
    def _kind(self) -> basix.CellType:
        return getattr(basix.CellType, self.cell)

    @cached_property
    def _places(self) -> tuple[Array, NDArray[np.int64]]:
        """Reference points of a lattice in the cell, and the triangles between them."""
        parts = _PARTS * max(self.width_degree, self.degree)
        places = basix.create_lattice(self._kind, parts, basix.LatticeType.equispaced, True)
        i = np.round(places * parts).astype(int)
        number = {(a, b): k for k, (a, b) in enumerate(i)}
        triangles = []
        for a, b in number:
            for steps in (((0, 0), (1, 0), (0, 1)), ((1, 0), (1, 1), (0, 1))):
                corner = [number.get((a + da, b + db)) for da, db in steps]
                if None not in corner:
                    triangles.append(corner)
        return places, np.array(triangles, dtype=np.int64)

    def _points(self, places: Array) -> Array:
        """Where reference points lie in every cell, shape (cells, places, 2)."""
        variant = basix.LagrangeVariant.gll_warped
        element = basix.create_element(basix.ElementFamily.P, self._kind, self.degree, variant)
        return np.einsum("pb,cbd->cpd", element.tabulate(0, places)[0, :, :, 0], self.corners)

    @cached_property
    def _polygons(self) -> Array:
        """Every cell's outline, shape (cells, points, 2)."""
        corners = basix.geometry(self._kind)
        around = corners[[0, 1, 3, 2] if len(corners) == 4 else [0, 1, 2]]
        along = (np.arange(self.degree) / self.degree)[None, :, None]
        outline = (1 - along) * around[:, None] + along * np.roll(around, -1, axis=0)[:, None]
        return self._points(outline.reshape(-1, 2))

    @cached_property
    def _triangulation(self) -> Triangulation:
        places, triangles = self._places
        points = self._points(places).reshape(-1, 2)
        first = len(places) * np.arange(len(self.corners))
        everywhere = (triangles[None] + first[:, None, None]).reshape(-1, 3)
        return Triangulation(points[:, 0], points[:, 1], everywhere)

    @cached_property
    def _basis(self) -> Array:
        element = width_element(self.cell, self.width_degree).basix_element
        return element.tabulate(0, self._places[0])[0, :, :, 0]

    def draw(self, axes: Axes, values: Array, scale: ColourScale) -> Any:
        """Draw the function with the given nodal values, shape (nodes,) in file order."""
        if self.width_degree == 0:
            drawn = PolyCollection(
                list(self._polygons),
                array=values[self.nodes[:, 0]],
                norm=scale.norm,
                cmap=scale.cmap,
                edgecolors="face",  # else the background shines through between cells
                linewidths=0.3,
            )
            axes.add_collection(drawn)
            axes.autoscale_view()
            return drawn
        inside = values[self.nodes] @ self._basis.T
        return axes.tripcolor(
            self._triangulation,
            inside.ravel(),
            shading="gouraud",
            norm=scale.norm,
            cmap=scale.cmap,
        )
