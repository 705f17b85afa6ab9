"""The states that a loss wants reached, and the word for what cannot be."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fem_dnn.errors import FemDnnError
from fem_dnn.losses import L2Loss, OutputLoss, mse
from fem_dnn.problem import LearningProblem

Array = NDArray[np.float64]


class OutOfReach(FemDnnError):
    """A hypothesis of exact controllability fails.

    Attributes:
        hypothesis: trained | inverse | targets | range | K > 0 | bounds.
        why: A sentence.
    """

    def __init__(self, hypothesis: str, why: str) -> None:
        # Both go to the base class: errors are pickled to travel between MPI ranks.
        super().__init__(hypothesis, why)
        self.hypothesis, self.why = hypothesis, why

    def __str__(self) -> str:
        return self.why


def targets_of(problem: LearningProblem) -> Array:
    """States f_s(T) at which every loss is 0, shape (n_local, samples) (collective).

    Of l2 the targets. Of mse the nearest states in L2(Y) to the inputs whose outputs are the
    targets, g_s = f_{I,s} + W' (W W')^{-1} (y_s - z(f_{I,s})).

    Raises:
        OutOfReach: There are none (logistic, softmax), or the output functions W_k depend on each
            other.
    """
    loss = problem.loss
    if isinstance(loss, L2Loss):
        return loss.targets
    layer = problem.given_outputs
    if not isinstance(loss, OutputLoss) or loss.pointwise is not mse:
        why = "no state has the loss 0: logistic and softmax only come near it; give targets"
        raise OutOfReach("targets", why)
    if layer is None:
        raise OutOfReach("trained", "the output layer is learned too: its targets are no states")
    W = layer.functions
    gram = loss.project(W, W.T)
    if np.linalg.matrix_rank(gram) < len(gram):
        raise OutOfReach("targets", "the output functions depend on each other")
    wanted = loss.targets - loss.project(W, problem.inputs) - layer.offsets[:, None]
    lifted: Array = problem.inputs + W.T @ np.linalg.solve(gram, wanted)
    return lifted
