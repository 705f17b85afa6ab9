"""PyTorch's L-BFGS with strong Wolfe conditions, on autograd's gradient."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peers.tools.torch_model import TorchModel
from benchmarks.peers.watch import Watch, persist

Array = NDArray[np.float64]

NEEDS = ("torch",)
WITHIN_BOUNDS = False

PAIRS = 100
"""The default, and the fastest of 10, 20, 50 and 100 on `sine`."""

NUMBERS = 4e8
"""Numbers that the pairs may hold: on a wide network there are fewer of them."""

Model = TorchModel


def solve(model: TorchModel, start: Array, watch: Watch) -> None:
    """Minimise."""
    parameters = model.parameters(start)

    def closure() -> torch.Tensor:
        value = model.objective(*parameters)
        for p in parameters:
            p.grad = None
        value.backward()
        with torch.no_grad():
            norm = torch.sqrt(sum(p.grad.square().sum() for p in parameters)).item()
        watch.see(value.item(), norm)
        return value

    def attempt() -> None:
        optimiser = torch.optim.LBFGS(
            parameters,
            lr=1.0,
            max_iter=10**9,
            max_eval=10**9,
            tolerance_grad=0.0,
            tolerance_change=0.0,
            history_size=max(10, min(PAIRS, int(NUMBERS / start.size / 2))),
            line_search_fn="strong_wolfe",
        )
        optimiser.step(closure)

    persist(watch, attempt)
