"""Pictures of networks, their training and their samples (matplotlib).

Every function makes one `matplotlib.figure.Figure` from the content of a `solution.npz` or from
the `history` of a `result.json`; `save` writes it. Importing this package imports matplotlib, so
import it only where something is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fem_dnn.pictures.bifurcation import bifurcation_diagram
from fem_dnn.pictures.bounds import bounds_along_depth
from fem_dnn.pictures.critical import critical_points
from fem_dnn.pictures.fields import adjoint_state, bias_field, compared_functions, hidden_state
from fem_dnn.pictures.gramian import gramian_spectrum
from fem_dnn.pictures.kernels import kernel_of, kernel_slices
from fem_dnn.pictures.meshes import graded_mesh
from fem_dnn.pictures.methods import compared_methods
from fem_dnn.pictures.samples import decision_regions, principal_components, trajectories
from fem_dnn.pictures.style import save
from fem_dnn.pictures.training import confusion, convergence
from fem_dnn.pictures.values import value_function, value_gradient

__all__ = [
    "adjoint_state",
    "bias_field",
    "bifurcation_diagram",
    "bounds_along_depth",
    "compared_functions",
    "compared_methods",
    "confusion",
    "convergence",
    "critical_points",
    "decision_regions",
    "graded_mesh",
    "gramian_spectrum",
    "hidden_state",
    "kernel_slices",
    "principal_components",
    "save",
    "standard_pictures",
    "trajectories",
    "value_function",
    "value_gradient",
]


def standard_pictures(
    arrays: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    folder: Path | str,
    *,
    target: float | None = None,
    labels: Sequence[object] | None = None,
    suffix: str = ".png",
) -> list[Path]:
    """Draw what every result folder holds, as far as there is something to see.

    `hidden_state` always; `adjoint_state`, `kernel` and `bias` where they are not zero;
    `convergence` where there is a history.

    Args:
        arrays: The content of `solution.npz`.
        history: The history of `result.json`, possibly empty.
        folder: An existing folder.
        target: The gradient norm at which the solver was to stop.
        labels: What each sample is, e.g. its class; shown beside its number.
        suffix: .png, .svg or .pdf.

    Returns:
        The files written.
    """
    few = range(min(np.asarray(arrays["state"]).shape[1], 6 if arrays["x"].shape[1] == 1 else 5))
    texts = None if labels is None else [labels[s] for s in few]

    def something(name: str) -> bool:
        return name in arrays and bool(np.any(arrays[name]))

    figures = {"hidden_state": hidden_state(arrays, few, labels=texts)}
    if something("adjoint"):
        figures["adjoint_state"] = adjoint_state(arrays, few, labels=texts)
    if kernel_of(arrays) is not None:
        figures["kernel"] = kernel_slices(arrays)
    if something("bias"):
        figures["bias"] = bias_field(arrays)
    if history:
        figures["convergence"] = convergence(history, target=target)
    return [save(figure, Path(folder) / f"{name}{suffix}") for name, figure in figures.items()]
