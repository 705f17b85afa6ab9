"""The residual network in PyTorch: double precision, a loop over the layers, samples as columns."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.peers.discrete import DiscreteProblem

Array = NDArray[np.float64]


class TorchModel:
    """Objective by autograd's forward pass; kernel and bias are two leaf tensors.

    Args:
        problem: The problem.
    """

    def __init__(self, problem: DiscreteProblem) -> None:
        self.problem = problem
        self.inputs = torch.from_numpy(problem.inputs.copy())
        self.targets = torch.from_numpy(problem.targets.copy())
        self.weights = torch.from_numpy(problem.loss_weight * problem.weights)
        self.outputs = torch.from_numpy(problem.outputs.copy())
        self.offsets = torch.from_numpy(problem.offsets.copy())
        self.mask = torch.from_numpy(problem.mask.copy()) if problem.mask.size else None

    def parameters(self, z: Array) -> tuple[Tensor, Tensor]:
        """Z and B of a control vector, with gradients."""
        Z, B = (torch.from_numpy(part.copy()) for part in self.problem.split(z))
        return Z.requires_grad_(), B.requires_grad_()

    def objective(self, Z: Tensor, B: Tensor) -> Tensor:
        """J."""
        if self.mask is not None:
            Z = Z * self.mask
        return self.loss(self.forward(Z, B)) + self.penalty(Z, B)

    def forward(self, Z: Tensor, B: Tensor) -> Tensor:
        """The states at the end, shape (nodes, samples)."""
        problem, f = self.problem, self.inputs
        # unbind, not indexing: the backward pass of an index is a whole array of zeros.
        for tau, W, b in zip(problem.steps.tolist(), Z.unbind(), B.unbind(), strict=True):
            scale = tau**-0.5
            shift = b.unsqueeze(1) * (scale / problem.cell**0.5)
            f = torch.add(f, torch.tanh(torch.addmm(shift, W, f, alpha=scale)), alpha=tau)
        return f

    def loss(self, f: Tensor) -> Tensor:
        """sum_s w_s ell_s."""
        problem = self.problem
        if problem.loss == "l2":
            values = 0.5 * problem.cell * (f - self.targets).square().sum(0)
            return torch.dot(self.weights, values)
        z = torch.addmm(self.offsets.unsqueeze(1), self.outputs, f)
        if problem.loss == "mse":
            values = 0.5 * (z - self.targets).square().sum(0)
        elif problem.loss == "logistic":
            # Without softplus's default threshold, beyond which it is the identity.
            values = torch.logaddexp(torch.zeros_like(z), -self.targets * z)[0]
        else:
            values = torch.logsumexp(z, 0) - (z * self.targets).sum(0)
        return torch.dot(self.weights, values)

    def penalty(self, Z: Tensor, B: Tensor) -> Tensor:
        """R."""
        problem = self.problem
        steps = torch.from_numpy(problem.steps)
        value = torch.zeros((), dtype=torch.float64)
        tikhonov = (problem.kernel, problem.bias)
        depth = (problem.kernel_depth, problem.bias_depth)
        for c, weight, gamma in zip((Z, B), tikhonov, depth, strict=True):
            flat = c.reshape(-1)
            value = value + 0.5 * weight * torch.dot(flat, flat)
            if gamma:
                jump = torch.diff(c.flatten(1) / steps.sqrt().unsqueeze(1), dim=0)
                value = value + 0.5 * gamma * (jump.square().sum(1) / steps[:-1]).sum()
        return value

    def objective_and_gradient(self, z: Array) -> tuple[float, Array]:
        """J and its derivative by the control vector."""
        parameters = self.parameters(z)
        value = self.objective(*parameters)
        value.backward()
        return value.item(), flat_gradient(parameters)

    def hessian_action(self, z: Array, direction: Array) -> Array:
        """The Hessian applied to a direction, by differentiating the gradient once more."""
        parameters = self.parameters(z)
        along = [torch.from_numpy(part) for part in self.problem.split(direction)]
        slopes = torch.autograd.grad(self.objective(*parameters), parameters, create_graph=True)
        inner = sum((slope * part).sum() for slope, part in zip(slopes, along, strict=True))
        products = torch.autograd.grad(inner, parameters)
        return torch.cat([p.reshape(-1) for p in products]).numpy()


def flat_gradient(parameters: tuple[Tensor, ...]) -> Array:
    """The gradients of leaf tensors as one vector."""
    parts = [p.grad.reshape(-1) for p in parameters if p.grad is not None]
    return torch.cat(parts).numpy()
