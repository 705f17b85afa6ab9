"""Given kernels and biases brought to Gram form: where a solve from an earlier result starts.

A kernel a and a bias b move the states f_s along with u_s = Kf_s + b. Of all that move these
states along the same way

    q = K^{-1} u,   K_ss' = <f_s, f_s'> / lambda_a + 1 / lambda_b

stands for the ones of least R (`problem`). At a critical point with the same samples and weights
lambda these are a and b themselves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fem_dnn.gram.form import GramForm, transposed
from fem_dnn.gram.metric import floor
from fem_dnn.network import LayerWeights
from fem_dnn.trajectories import StateTrajectory

Array = NDArray[np.float64]

REFINEMENTS = 2
"""Steps of iterative refinement with which K q = u is solved."""


def in_gram_form(
    form: GramForm, weights: LayerWeights, state: StateTrajectory, given: Array | None
) -> Array:
    """The coordinates of q = K^{-1} u, shape (levels, n_local, S) (collective).

    Args:
        form: K.
        weights: Kernel and bias.
        state: The states that they move, on the form's whole depth.
        given: The bias that is given, not trained, part of both; None: there is none.
    """
    space = form.network.space
    q = state.u if given is None else state.u - given
    f = state.gathered_at(slice(0, len(q)))
    assert f is not None and weights.operator is not None, "the kernel is a control"
    if weights.operator.dense:
        f = f[:, space.owned]
    K = form.K(form.inner(f, f))
    if not np.all(np.isfinite(K)):
        return np.full_like(q, np.nan)  # who looks at the state says so
    # Of samples that repeat K is singular: its inverse as one matrix would mix what it cannot see,
    # which is large and does not matter, into what it can.
    eigenvalues, V = np.linalg.eigh(K)
    eigenvalues = (np.maximum(eigenvalues, 0.0) + floor(K))[:, None, :]
    q = q * form.root * form.root_omega
    for rows in form.blocks:
        u = q[:, rows].copy()
        q[:, rows] = 0.0
        for _ in range(1 + REFINEMENTS):
            q[:, rows] += ((u - q[:, rows] @ K) @ V / eigenvalues) @ transposed(V)
    return q
