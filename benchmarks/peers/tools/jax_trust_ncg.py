"""SciPy's trust-ncg on JAX's compiled gradient and Hessian product (forward over reverse)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from numpy.typing import NDArray
from scipy.optimize import minimize

from benchmarks.peers.discrete import DiscreteProblem
from benchmarks.peers.watch import Watch, persist

jax.config.update("jax_enable_x64", True)

Array = NDArray[np.float64]

NEEDS = ("jax", "jaxlib", "scipy")
WITHIN_BOUNDS = False


class Model:
    """Objective, gradient and Hessian product of control vectors, compiled.

    Args:
        problem: The problem.
    """

    def __init__(self, problem: DiscreteProblem) -> None:
        self.problem = problem
        gradient = jax.grad(self.objective)
        self._both = jax.jit(jax.value_and_grad(self.objective))
        self._product = jax.jit(lambda z, d: jax.jvp(gradient, (z,), (d,))[1])

    def objective(self, z: jax.Array) -> jax.Array:
        """J."""
        problem = self.problem
        L, N = problem.layers, problem.nodes
        Z = z[: problem.kernel_size].reshape(L, N, N)
        B = z[problem.kernel_size :].reshape(L, N)
        if problem.mask.size:
            Z = Z * problem.mask

        def layer(f: jax.Array, of: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
            W, b, tau = of
            u = (W @ f + b[:, None] / problem.cell**0.5) / jnp.sqrt(tau)
            return f + tau * jnp.tanh(u), None

        steps = jnp.asarray(problem.steps)
        f, _ = jax.lax.scan(layer, jnp.asarray(problem.inputs), (Z, B, steps))
        value = self.loss(f)
        tikhonov = (problem.kernel, problem.bias)
        depth = (problem.kernel_depth, problem.bias_depth)
        for c, weight, gamma in zip((Z, B), tikhonov, depth, strict=True):
            value += 0.5 * weight * jnp.sum(c * c)
            if gamma:
                jump = jnp.diff(c.reshape(L, -1) / jnp.sqrt(steps)[:, None], axis=0)
                value += 0.5 * gamma * jnp.sum(jnp.sum(jump * jump, axis=1) / steps[:-1])
        return value

    def loss(self, f: jax.Array) -> jax.Array:
        """sum_s w_s ell_s."""
        problem = self.problem
        weights = problem.loss_weight * problem.weights
        if problem.loss == "l2":
            return 0.5 * problem.cell * jnp.sum(weights * (f - problem.targets) ** 2)
        z, y = problem.outputs @ f + problem.offsets[:, None], problem.targets
        if problem.loss == "mse":
            return 0.5 * jnp.sum(weights * (z - y) ** 2)
        if problem.loss == "logistic":
            return jnp.sum(weights * jnp.logaddexp(0.0, -y * z))
        return jnp.sum(weights * (logsumexp(z, axis=0) - jnp.sum(z * y, axis=0)))

    def objective_and_gradient(self, z: Array) -> tuple[float, Array]:
        """J and its derivative by the control vector."""
        value, gradient = self._both(z)
        return float(value), np.asarray(gradient)

    def hessian_action(self, z: Array, direction: Array) -> Array:
        """The Hessian applied to a direction."""
        return np.asarray(self._product(z, direction))

    def compile(self, z: Array) -> None:
        """Compile what a solve needs: users of the same shapes again do not wait for it."""
        self.objective_and_gradient(z)
        self.hessian_action(z, z)


def solve(model: Model, start: Array, watch: Watch) -> None:
    """Minimise; where the trust region has shrunk to round-off, begin again."""
    at = start

    def evaluate(z: Array) -> tuple[float, Array]:
        nonlocal at
        objective, gradient = model.objective_and_gradient(z)
        before = watch.lowest
        watch.see(objective, float(np.linalg.norm(gradient)))
        if watch.lowest < before:
            at = z.copy()
        return objective, gradient

    def product(z: Array, direction: Array) -> Array:
        watch.products += 1
        watch.check_time()
        return model.hessian_action(z, direction)

    def attempt() -> None:
        options = {"maxiter": 10**9, "gtol": 0.0}
        minimize(evaluate, at, jac=True, hessp=product, method="trust-ncg", options=options)

    persist(watch, attempt)
