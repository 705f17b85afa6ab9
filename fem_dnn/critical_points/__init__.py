"""Distinct critical points by deflation: the search, and what is said of its points."""

from fem_dnn.critical_points.deflation import Deflation, Root
from fem_dnn.critical_points.search import (
    CriticalPoint,
    Findings,
    Settings,
    Start,
    find_critical_points,
)

__all__ = [
    "CriticalPoint",
    "Deflation",
    "Findings",
    "Root",
    "Settings",
    "Start",
    "find_critical_points",
]
