"""Existence of minimisers (theory.md section 5), beyond the certificate of `checks.convexity`.

velocity_set ─ support, mixture ─ convex_envelope    r and r** at one depth and neuron
hull                                           r** from samples, for many points at once
savings                                        what oscillation would save along a solution
frozen ─ layered, newton_step ─ relaxation     inf J between bounds where inputs are at rest
minimising_sequence, smoothing                 N -> infinity and gamma -> 0, with fitted rates
exact_tracking, depth_refinement               the same questions put to the program itself
"""

from fem_dnn.existence.convex_envelope import OutsideHull, envelope_at
from fem_dnn.existence.depth_refinement import Refinement, derivative_of_controls, refine
from fem_dnn.existence.exact_tracking import assemble_exactly, exactly_tracking
from fem_dnn.existence.frozen import FrozenNeuron, FrozenProblem, NotFrozen
from fem_dnn.existence.hull import above_hull, lower_hull
from fem_dnn.existence.layered import Layered, LayeredMinimum
from fem_dnn.existence.minimising_sequence import (
    MinimisingSequence,
    best_layers,
    minimising_sequence,
)
from fem_dnn.existence.mixture import Envelope
from fem_dnn.existence.oscillation_check import existence_oscillation
from fem_dnn.existence.rates import Fit, power_law
from fem_dnn.existence.relaxation import Relaxed, best_constant, lower_bound, relax
from fem_dnn.existence.savings import Savings, savings
from fem_dnn.existence.smoothing import SmoothingStudy, smoothing_study
from fem_dnn.existence.support import Minimum, lowest
from fem_dnn.existence.velocity_set import VelocitySet

__all__ = [
    "Envelope",
    "Fit",
    "FrozenNeuron",
    "FrozenProblem",
    "Layered",
    "LayeredMinimum",
    "MinimisingSequence",
    "Minimum",
    "NotFrozen",
    "OutsideHull",
    "Refinement",
    "Relaxed",
    "Savings",
    "SmoothingStudy",
    "VelocitySet",
    "above_hull",
    "assemble_exactly",
    "best_constant",
    "best_layers",
    "derivative_of_controls",
    "envelope_at",
    "exactly_tracking",
    "existence_oscillation",
    "lower_bound",
    "lower_hull",
    "lowest",
    "minimising_sequence",
    "power_law",
    "refine",
    "relax",
    "savings",
    "smoothing_study",
]
