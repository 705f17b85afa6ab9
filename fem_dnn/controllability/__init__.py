"""Controllability (theory.md section 6): what controls can reach, and at what cost."""

from fem_dnn.controllability.end_point import EndPointMap
from fem_dnn.controllability.exact import ExactControls, exact_controls
from fem_dnn.controllability.gramian import GramianSpectrum, gramian, gramian_spectrum
from fem_dnn.controllability.targets import OutOfReach, targets_of

__all__ = [
    "EndPointMap",
    "ExactControls",
    "GramianSpectrum",
    "OutOfReach",
    "exact_controls",
    "gramian",
    "gramian_spectrum",
    "targets_of",
]
