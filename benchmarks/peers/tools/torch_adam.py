"""PyTorch's Adam on all samples at once, with layers as a user would write them: W f + b."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peers.tools.torch_model import TorchModel
from benchmarks.peers.watch import Watch

Array = NDArray[np.float64]

NEEDS = ("torch",)
WITHIN_BOUNDS = False

RATE = 1e-3
"""Adam's default."""

Model = TorchModel


def solve(model: TorchModel, start: Array, watch: Watch) -> None:
    """Descend until the time is over."""
    problem = model.problem
    root = torch.from_numpy(np.sqrt(problem.steps))
    scales = (root[:, None, None], root[:, None] * problem.cell**0.5)
    Z, B = model.parameters(start)
    W, b = ((c.detach() / scale).requires_grad_() for c, scale in zip((Z, B), scales, strict=True))
    optimiser = torch.optim.Adam([W, b], lr=RATE)
    while True:
        optimiser.zero_grad()
        value = model.objective(W * scales[0], b * scales[1])
        value.backward()
        with torch.no_grad():
            slopes = (p.grad / s for p, s in zip((W, b), scales, strict=True))
            norm = torch.sqrt(sum(slope.square().sum() for slope in slopes)).item()
        watch.see(value.item(), norm)
        optimiser.step()
