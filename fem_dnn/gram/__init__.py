"""The Gram form of the learning problem: cost and memory linear in the width (theory.md, 3).

With gamma = eta = 0, no mask and no bounds, optimal controls are sums over the S samples,

    a = sum_s q_s(x) f_s(y) / lambda_a,     b = sum_s q_s / lambda_b,

at every control level. Here q is the control; see `problem` for what becomes of the equations.
"""

from fem_dnn.gram.linearisation import GramLinearisation
from fem_dnn.gram.problem import GramProblem

__all__ = ["GramLinearisation", "GramProblem"]
