"""Controllability (theory.md section 6): what controls can reach, and at what cost."""

from fem_dnn.controllability.end_point import EndPointMap
from fem_dnn.controllability.exact import ExactControls, exact_controls
from fem_dnn.controllability.floors import LossFloor, loss_floor
from fem_dnn.controllability.gramian import GramianSpectrum, gramian, gramian_spectrum
from fem_dnn.controllability.minimum_norm import MinimumNorm, minimum_norm_controls
from fem_dnn.controllability.targets import OutOfReach, targets_of
from fem_dnn.controllability.turnpike import turnpike_rates
from fem_dnn.controllability.vanishing import VanishingRegularization, vanishing_regularization

__all__ = [
    "EndPointMap",
    "ExactControls",
    "GramianSpectrum",
    "LossFloor",
    "MinimumNorm",
    "OutOfReach",
    "VanishingRegularization",
    "exact_controls",
    "gramian",
    "gramian_spectrum",
    "loss_floor",
    "minimum_norm_controls",
    "targets_of",
    "turnpike_rates",
    "vanishing_regularization",
]
