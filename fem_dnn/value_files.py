"""What `fem-dnn value --out DIR` leaves behind (rank 0).

`result.json`; `solution.npz`, the open loop as `solve` writes it; `value.npz`: `axis_0`, ... of the
grid, `t` and `values` (t, ...) of V, `kinks` likewise, `closed_t`, `closed_state` (closed_t,
samples, nodes), `closed_kernel` and `closed_bias` on the scheme's steps, `gradient_t`,
`value_gradient` and `adjoint` (gradient_t, samples, nodes): D_{f_s} V and w_s p_s along the open
loop; pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fem_dnn.dynamic_programming import Examination, ValueFunction
from fem_dnn.request import Request
from fem_dnn.result_folder import write_files

KEPT = {1: 1_000, 2: 6, 3: 1}
"""Depths at which V is written, by number of state dimensions."""


def write_value(
    request: Request,
    result: dict[str, Any],
    value: ValueFunction,
    found: Examination,
    open_loop: Mapping[str, Any],
) -> None:
    """Write the files that `--out` asks for, from a request of rank 0 alone."""
    if request.out is None:
        return
    arrays = value_arrays(value, found)
    write_files(request, result, open_loop, "solution.npz")
    write_files(request, result, arrays, "value.npz")
    from fem_dnn import pictures

    figures = {"value": pictures.value_function(arrays, open_loop)}
    if found.gradients is not None and len(found.gradients.t) > 1:
        figures["value_gradient"] = pictures.value_gradient(arrays)
    for name, figure in figures.items():
        pictures.save(figure, request.out / f"{name}.png")


def value_arrays(value: ValueFunction, found: Examination) -> dict[str, Any]:
    """The arrays of `value.npz`."""
    grid, closed = value.grid, found.closed
    count = min(KEPT[grid.dimension], len(value.times))
    kept = np.unique(np.rint(np.linspace(0, len(value.times) - 1, count)).astype(int))
    arrays: dict[str, Any] = {f"axis_{i}": axis for i, axis in enumerate(grid.axes)}
    arrays |= {
        "t": value.times[kept],
        "values": np.stack([value.values[n] for n in kept]),
        "kinks": np.stack([grid.kinks(value.values[n]) for n in kept]),
        "input": value.problem.inputs,
        "closed_t": closed.t,
        "closed_state": closed.states,
    }
    arrays |= {
        name: given
        for name, given in (("closed_kernel", closed.kernel), ("closed_bias", closed.bias))
        if given is not None
    }
    if found.gradients is not None:
        arrays |= {
            "gradient_t": found.gradients.t,
            "value_gradient": found.gradients.of_value,
            "adjoint": found.gradients.adjoint,
        }
    return arrays
