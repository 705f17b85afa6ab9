"""Writes a benchmark's problem for the peers, with our objective and gradient norm at controls.

    environment/enter python3 -m benchmarks.peers.export CASE.toml OUT.npz [--set key=value ...]

The file holds what `discrete.DiscreteProblem` reads and, under `checked_seeds`, `checked_scales`,
`objectives` and `gradient_norms`, two controls at which every peer has to agree with us before it
is measured.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from benchmarks.peers.discrete import DiscreteProblem
from fem_dnn.assembly import Model, assemble
from fem_dnn.case import read_case
from fem_dnn.losses import L2Loss, OutputLoss

Array = NDArray[np.float64]

CHECKED = ((0, 1.0), (7, 0.3))
"""Seed and scale of the controls at which all have to agree."""


def discrete_problem(model: Model) -> DiscreteProblem:
    """A case's learning problem as arrays, for networks that a peer would call ordinary.

    Raises:
        ValueError: It has something that the peers have not been taught.
    """
    case, problem, space = model.case, model.problem, model.network.space
    assert problem is not None
    ordinary = (
        case.network.depth_scheme == "resnet"
        and case.network.activation == "tanh"
        and problem.controls.has_kernel
        and problem.controls.has_bias
        and not problem.controls.outputs
        and problem.tracking is None
        and np.ptp(space.node_weights) < 1e-12 * space.node_weights.max()
        and not (problem.regularization.kernel_width or problem.regularization.bias_width)
    )
    if not ordinary:
        raise ValueError(f"{case.file}: not a residual network of equal cells and given outputs")
    h = float(space.node_weights.mean())
    loss, layer = problem.loss, problem.given_outputs
    targets, outputs, offsets = np.empty(0), np.empty((0, space.n_nodes)), np.empty(0)
    if isinstance(loss, L2Loss):
        targets = space.to_file_order(loss.targets, axis=0)
    elif isinstance(loss, OutputLoss) and layer is not None:
        targets = loss.targets
        outputs, offsets = h * space.to_file_order(layer.functions), layer.offsets
    free = (-np.inf, np.inf)
    mask = model.ingredients.mask
    return DiscreteProblem(
        cell=h,
        steps=model.network.levels.weights,
        inputs=space.to_file_order(problem.inputs, axis=0),
        weights=problem.sample_weights,
        loss=case.loss.kind,
        loss_weight=case.loss.weight,
        targets=targets,
        outputs=outputs,
        offsets=offsets,
        kernel=problem.regularization.kernel,
        bias=problem.regularization.bias,
        kernel_depth=problem.regularization.kernel_depth,
        bias_depth=problem.regularization.bias_depth,
        mask=np.empty((0, 0)) if mask is None else np.asarray(mask, float),
        kernel_bounds=np.array(problem.controls.bounded.get("kernel", free)),
        bias_bounds=np.array(problem.controls.bounded.get("bias", free)),
    )


def checked_values(model: Model) -> dict[str, Array]:
    """Our objective and gradient norm at the controls `CHECKED`."""
    assert model.problem is not None
    controls, points = model.problem.controls, []
    for seed, scale in CHECKED:
        at = model.problem.linearise(controls.project(controls.random(seed, scale)))
        points.append((at.objective, at.gradient_norm))
    objectives, norms = np.array(points).T
    seeds, scales = np.array(CHECKED).T
    return {
        "checked_seeds": seeds.astype(int),
        "checked_scales": scales,
        "objectives": objectives,
        "gradient_norms": norms,
    }


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("case", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--set", nargs="*", default=[])
    given = parser.parse_args()
    model = assemble(read_case(given.case, given.set), MPI.COMM_SELF)
    np.savez(given.out, **discrete_problem(model).arrays(), **checked_values(model))


if __name__ == "__main__":
    main()
