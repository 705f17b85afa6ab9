"""Activations sigma, each with its first and second derivative in one pass.

`evaluate(u, order)` returns (sigma,), (sigma, sigma') or (sigma, sigma', sigma''), elementwise on
(node, sample) blocks of any shape; `write` puts sigma and sigma' where they are wanted. The
constants that the theory needs (Lipschitz constant, suprema, monotonicity) stand beside the
formulas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, pi, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtr

from fem_dnn.hyperbolic_tangent import tanh
from fem_dnn.team import AT_ONCE, several

Array = NDArray[np.float64]
Evaluate = Callable[[Array, int], tuple[Array, ...]]
Write = Callable[[Array, Array, Array], None]


@dataclass(frozen=True)
class Activation:
    """An activation sigma.

    Attributes:
        name: Its name in case files.
        evaluate: (u, order) -> sigma and its first `order` (0, 1, 2) derivatives.
        lipschitz: L = sup |sigma'|.
        supremum: sup |sigma| (inf where unbounded).
        curvature: sup |sigma''|.
        increasing: Whether sigma is strictly increasing.
        smooth: Whether sigma is twice differentiable.
        low, high: inf sigma and sup sigma, where they are nearer than `supremum` says.
        inverse: v -> some u with sigma(u) = v, for v in the range; None where not known.
        in_place: (u, value, slope) puts sigma(u) and sigma'(u) there, without arrays on the way;
            `value` may be u. None where `evaluate` has to serve.
        compiled: Its number in `native/activations.h`; None where it is not there.
    """

    name: str
    evaluate: Evaluate
    lipschitz: float = inf
    supremum: float = inf
    curvature: float = inf
    increasing: bool = False
    smooth: bool = True
    low: float = -inf
    high: float = inf
    inverse: Callable[[Array], Array] | None = None
    in_place: Write | None = None
    compiled: int | None = None

    def write(self, u: Array, value: Array, slope: Array) -> None:
        """Put sigma(u) and sigma'(u), u of shape (node, sample), into arrays of that shape.

        `value` may be u itself. Rows are taken as many at a time as stay in the cache.
        """
        if self.in_place is None:
            value[...], slope[...] = self.evaluate(u, 1)
        elif u.size <= AT_ONCE // 2:
            self.in_place(u, value, slope)
        else:
            for part in several(slice(0, len(u)), 2 * u.shape[-1]):
                self.in_place(u[part], value[part], slope[part])

    @property
    def range(self) -> tuple[float, float]:
        """inf sigma and sup sigma."""
        return max(self.low, -self.supremum), min(self.high, self.supremum)

    def __call__(self, u: Array) -> Array:
        """sigma(u)."""
        return self.evaluate(u, 0)[0]

    @classmethod
    def from_functions(
        cls,
        name: str,
        value: Callable[[Array], Array],
        first: Callable[[Array], Array],
        second: Callable[[Array], Array],
        **constants: float | bool,
    ) -> Activation:
        """A user's own activation from three vectorised functions sigma, sigma', sigma''."""
        functions = (value, first, second)
        return cls(name, lambda u, order: tuple(f(u) for f in functions[: order + 1]), **constants)  # type: ignore[arg-type]


_ONE = np.array(1.0)


def _tanh(u: Array, order: int) -> tuple[Array, ...]:
    s = np.empty(np.shape(u))
    tanh(np.asarray(u), s)
    if order == 0:
        return (s,)
    d = 1 - s * s
    return (s, d) if order == 1 else (s, d, -2 * s * d)


def _write_tanh(u: Array, value: Array, slope: Array) -> None:
    tanh(u, value)
    np.multiply(value, value, out=slope)
    np.subtract(_ONE, slope, out=slope)


def _sigmoid(u: Array, order: int) -> tuple[Array, ...]:
    s = expit(u)
    if order == 0:
        return (s,)
    d = s * (1 - s)
    return (s, d) if order == 1 else (s, d, d * (1 - 2 * s))


def _relu(u: Array, order: int) -> tuple[Array, ...]:
    s = np.maximum(u, 0)
    if order == 0:
        return (s,)
    d = (u > 0).astype(u.dtype)  # the derivative at the kink is 0 by convention
    return (s, d) if order == 1 else (s, d, np.zeros_like(u))


def _softplus(u: Array, order: int) -> tuple[Array, ...]:
    s = np.logaddexp(u, 0)
    if order == 0:
        return (s,)
    d = expit(u)
    return (s, d) if order == 1 else (s, d, d * (1 - d))


def _gelu(u: Array, order: int) -> tuple[Array, ...]:
    cdf = ndtr(u)
    if order == 0:
        return (u * cdf,)
    pdf = np.exp(-0.5 * u * u) / sqrt(2 * pi)
    d = cdf + u * pdf
    return (u * cdf, d) if order == 1 else (u * cdf, d, (2 - u * u) * pdf)


def _linear(u: Array, order: int) -> tuple[Array, ...]:
    return (u, np.ones_like(u), np.zeros_like(u))[: order + 1]


def _inverse_softplus(v: Array) -> Array:
    return v + np.log(-np.expm1(-v))


def _inverse_gelu(v: Array) -> Array:
    """On the branch that increases, u >= -0.7518, by bisection to round-off: gelu(u) >= u / 2."""
    left, right = np.full_like(v, _GELU_BOTTOM), np.maximum(2 * v, 0.0)
    for _ in range(100):
        middle = 0.5 * (left + right)
        below = middle * ndtr(middle) < v
        left, right = np.where(below, middle, left), np.where(below, right, middle)
    return right


# sup |sigma''| of tanh is 4/(3 sqrt 3), of the sigmoid 1/(6 sqrt 3); gelu' peaks at u = sqrt 2.
_GELU_SLOPE = 1.1289042995942364
_GELU_BOTTOM, _GELU_LOW = -0.7517915246935645, -0.16997120747990369

ACTIVATIONS: dict[str, Activation] = {
    a.name: a
    for a in (
        Activation(
            "tanh",
            _tanh,
            1.0,
            1.0,
            4 / (3 * sqrt(3)),
            increasing=True,
            inverse=np.arctanh,
            in_place=_write_tanh,
            compiled=0,
        ),
        Activation(
            "sigmoid",
            _sigmoid,
            0.25,
            1.0,
            1 / (6 * sqrt(3)),
            increasing=True,
            low=0.0,
            inverse=logit,
            compiled=1,
        ),
        Activation(
            "relu",
            _relu,
            1.0,
            inf,
            inf,
            smooth=False,
            low=0.0,
            inverse=lambda v: v.copy(),
            compiled=2,
        ),
        Activation(
            "softplus",
            _softplus,
            1.0,
            inf,
            0.25,
            increasing=True,
            low=0.0,
            inverse=_inverse_softplus,
        ),
        Activation(
            "gelu",
            _gelu,
            _GELU_SLOPE,
            inf,
            2 / sqrt(2 * pi),
            low=_GELU_LOW,
            inverse=_inverse_gelu,
        ),
        Activation(
            "linear",
            _linear,
            1.0,
            inf,
            0.0,
            increasing=True,
            inverse=lambda v: v.copy(),
            compiled=3,
        ),
    )
}
"""The activations by name."""
