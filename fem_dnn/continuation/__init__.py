"""Branches of critical points along a number of the case (theory.md section 4).

parameter, equations      the problem as a function of the number: F(c, xi) = 0 and its derivative
bordered                  the linear systems, by GMRES
predictor_corrector       steps along a branch; following: one branch from end to end
events, branches          folds and branch points, and the branches that start there
"""

from fem_dnn.continuation.branch import Branch, Event, Point
from fem_dnn.continuation.branches import Explorer
from fem_dnn.continuation.equations import Equations, Place, Scale, StepFailure
from fem_dnn.continuation.parameter import Parameter, read_parameter, require_influence

__all__ = [
    "Branch",
    "Equations",
    "Event",
    "Explorer",
    "Parameter",
    "Place",
    "Point",
    "Scale",
    "StepFailure",
    "read_parameter",
    "require_influence",
]
