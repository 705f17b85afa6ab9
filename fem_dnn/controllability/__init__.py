"""Controllability (theory.md section 6): what controls can reach, and at what cost."""

from fem_dnn.controllability.exact import ExactControls, exact_controls
from fem_dnn.controllability.targets import OutOfReach, targets_of

__all__ = ["ExactControls", "OutOfReach", "exact_controls", "targets_of"]
