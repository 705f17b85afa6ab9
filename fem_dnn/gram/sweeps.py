"""State, tangent and adjoint where q is the control; all nodes meet in S x S Gram matrices.

With G = <f_s, f_s'> and K = G / lambda_a + 1 / lambda_b (see `problem`)

    d_t f = sigma(u),  u = K q
    d_t df = sigma'(u) du,  du = K dq + dK q,  dK = (<df, f> + <f, df>) / lambda_a

In arrays [node, sample] products with the symmetric K stand on the right. The implicit stages of
a slab couple the samples: `slab.solve_stages` is given them as one long sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fem_dnn.adjoint import march_back
from fem_dnn.slab import Slopes
from fem_dnn.state import Network, StateTrajectory, march

Array = NDArray[np.float64]
Levelwise = Callable[[slice], Array]
"""Values at some levels, shape (levels, n_local, S), made when asked for."""

PreActivation = Callable[[slice], Callable[[Array, Array], Array]]
"""A slab's levels -> (f there, <f_s, f_s'> there) -> u there."""


@dataclass(frozen=True, eq=False)
class GramForm:
    """What K is made of.

    Attributes:
        network: Width space, depth levels, activation.
        kernel: 1 / lambda_a.
        bias: 1 / lambda_b; 0 where the bias is no control.
    """

    network: Network
    kernel: float
    bias: float

    def inner(self, f: Array, g: Array) -> Array:
        """<f_s, g_s'> at every level, (levels, n_local, S) twice -> (levels, S, S) (collective)."""
        h = self._weights
        weighted = g if isinstance(h, float) else g * h
        local = np.matmul(f.swapaxes(-1, -2), weighted)
        if isinstance(h, float):
            local *= h
        return self.network.space.sum(local)

    @cached_property
    def _weights(self) -> float | Array:
        """The node weights; one number where they are equal on this rank: a pass less over g."""
        h = self.network.space.local_weights
        return float(h[0]) if len(h) and np.all(h == h[0]) else h[:, None]

    def K(self, gram: Array) -> Array:
        """K of Gram matrices."""
        return self.kernel * gram + self.bias

    def metric(self, gram: Array) -> Array:
        """<., .> of the kernels and biases that q stands for: sum_ss' metric_ss' <q_s, q_s'>."""
        return self.kernel**2 * gram + self.bias**2

    def slabs(self) -> Iterator[slice]:
        """The control levels, slab by slab."""
        levels = self.network.levels
        for n in range(levels.layers):
            slab = levels.of_slab(n)
            yield slice(slab.start, slab.stop)


def symmetric(A: Array) -> Array:
    """A + A'."""
    return A + A.swapaxes(-1, -2)


@dataclass(eq=False)
class GramState(StateTrajectory):
    """The state along the depth.

    Attributes:
        stages: f at the control levels, shape (levels, n_local, S).
        gram: <f_s, f_s'> there, shape (levels, S, S).
    """

    stages: Array
    gram: Array


def solve_gram_state(
    form: GramForm, of_slab: PreActivation, inputs: Array, given: Array | None, *, tracked: bool
) -> GramState:
    """Solve d_t f = sigma(u + b).

    Args:
        form: K.
        of_slab: u, e.g. `of_control`.
        inputs: f_I, shape (n_local, S).
        given: Values of a bias that is no control, shape (levels, n_local, 1), or None.
        tracked: Whether to keep the states at the tracking points.

    Raises:
        SlabFailure: An implicit slab did not converge.
    """
    network, levels, shape = form.network, form.network.levels, inputs.shape
    S = shape[1]
    ends = np.empty((levels.layers + 1, *shape))
    inside = np.empty((len(levels.tracking_t) if tracked else 0, *shape))
    state = GramState(
        ends=ends,
        u=np.empty((levels.count, *shape)),
        slope=np.empty((levels.count, *shape)),
        gathered=None,
        tracked=inside,
        stages=ends[:-1] if levels.scheme.explicit else np.empty((levels.count, *shape)),
        gram=np.empty((levels.count, S, S)),
    )

    def slopes_of_slab(n: int) -> Slopes:
        slab = levels.of_slab(n)
        part = slice(slab.start, slab.stop)
        pre_activation = of_slab(part)

        def slopes(stages: Array) -> Array:
            F = stages.reshape(-1, *shape)
            if not levels.scheme.explicit:
                state.stages[part] = F
            state.gram[part] = form.inner(F, F)
            u = state.u[part]
            u[...] = pre_activation(F, state.gram[part])
            if given is not None:
                u += given[part]
            value, state.slope[part] = network.activation.evaluate(u, 1)
            return value.reshape(stages.shape)

        return slopes

    march(network, _joined(inputs), slopes_of_slab, _joined(inside), _joined(ends))
    return state


def of_control(form: GramForm, q: Levelwise) -> PreActivation:
    """u = K q."""

    def of_slab(part: slice) -> Callable[[Array, Array], Array]:
        values = q(part)
        return lambda F, gram: np.asarray(values @ form.K(gram))

    return of_slab


@dataclass(eq=False)
class GramTangent:
    """Derivative of the state in a direction of q.

    Attributes:
        stages: df at the control levels, shape (levels, n_local, S).
        terminal: df(T), shape (n_local, S).
        u: du at the control levels.
        cross: <df_s, f_s'> there, shape (levels, S, S).
        tracked: df at the tracking points.
    """

    stages: Array
    terminal: Array
    u: Array
    cross: Array
    tracked: Array


def solve_gram_tangent(
    form: GramForm, q: Levelwise, state: GramState, direction: Levelwise
) -> GramTangent:
    """Solve d_t df = sigma'(u)(K dq + dK q), df(0) = 0.

    Args:
        form: K.
        q: The control's nodal values.
        state: The state there.
        direction: Nodal values of dq.
    """
    network, levels, shape = form.network, form.network.levels, state.ends.shape[1:]
    ends = np.empty_like(state.ends)
    tangent = GramTangent(
        stages=ends[:-1] if levels.scheme.explicit else np.empty_like(state.u),
        terminal=ends[-1],
        u=np.empty_like(state.u),
        cross=np.empty_like(state.gram),
        tracked=np.empty_like(state.tracked),
    )

    def slopes_of_slab(n: int) -> Slopes:
        slab = levels.of_slab(n)
        part = slice(slab.start, slab.stop)
        values = q(part)
        driven = direction(part) @ form.K(state.gram[part])

        def slopes(stages: Array) -> Array:
            dF = stages.reshape(-1, *shape)
            if not levels.scheme.explicit:
                tangent.stages[part] = dF
            tangent.cross[part] = form.inner(dF, state.stages[part])
            dK = form.kernel * symmetric(tangent.cross[part])
            du = np.matmul(values, dK, out=tangent.u[part])
            du += driven
            return (state.slope[part] * du).reshape(stages.shape)

        return slopes

    start = np.zeros_like(_joined(ends)[0])
    march(network, start, slopes_of_slab, _joined(tangent.tracked), _joined(ends))
    return tangent


def march_gram_back(
    form: GramForm,
    terminal: Array,
    residuals: Array,
    slopes: Callable[[slice, Array], Array],
) -> Iterator[tuple[slice, Array]]:
    """March an adjoint back, all samples' stages together.

    Args:
        form: K.
        terminal: Value at T, shape (n_local, S).
        residuals: What the tracking points feed, shape (points, n_local, S) or empty.
        slopes: (a slab's levels, P there) -> slopes there, (levels, n_local, S) both; called last
            at the P that solves the slab.

    Yields:
        Slab by slab, the last first: its levels and P there.
    """
    shape = terminal.shape  # S, or as many columns as are marched together

    def joined(part: slice, P: Array) -> Array:
        return _joined(slopes(part, P.reshape(-1, *shape)))

    for _, part, P, _ in march_back(form.network, _joined(terminal), _joined(residuals), joined):
        yield part, P.reshape(-1, *shape)


def _joined(f: Array) -> Array:
    """(..., n_local, S) as (..., n_local S, 1); a view."""
    return f.reshape(*f.shape[:-2], f.shape[-2] * f.shape[-1], 1)
