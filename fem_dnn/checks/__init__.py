"""Statements of the theory, tested on computed solutions: each a function returning a `Check`.

    subject = Subject.of_linearisation(solution.at, initial)
    print(state_bound(subject))

All are collective and return the same on every rank.
"""

from fem_dnn.checks.check import Check, not_applicable
from fem_dnn.checks.control_bound import control_bound
from fem_dnn.checks.controllability import (
    controllability_gramian,
    loss_gradient_bound,
    reachable_targets,
    spectrum_of,
)
from fem_dnn.checks.convexity import existence_convexity
from fem_dnn.checks.dependence import continuous_dependence
from fem_dnn.checks.hamiltonian import hamiltonian, hamiltonian_constant
from fem_dnn.checks.improvement import pontryagin_improvement
from fem_dnn.checks.invariants import identical_samples, loss_floor, state_range
from fem_dnn.checks.pontryagin import pontryagin_minimum
from fem_dnn.checks.projection import projection_formula
from fem_dnn.checks.second_order import second_order, stationarity
from fem_dnn.checks.subject import Subject
from fem_dnn.checks.well_posedness import adjoint_bound, state_bound, sup_bound
from fem_dnn.controllability import GramianSpectrum
from fem_dnn.solvers import Tolerances

__all__ = [
    "Check",
    "Subject",
    "adjoint_bound",
    "all_checks",
    "continuous_dependence",
    "control_bound",
    "controllability_gramian",
    "existence_convexity",
    "hamiltonian",
    "hamiltonian_constant",
    "identical_samples",
    "loss_floor",
    "loss_gradient_bound",
    "none_applicable",
    "pontryagin_improvement",
    "pontryagin_minimum",
    "projection_formula",
    "reachable_targets",
    "second_order",
    "spectrum_of",
    "state_bound",
    "state_range",
    "stationarity",
    "sup_bound",
]

_NO_CHECKS = ("all_checks", "hamiltonian", "none_applicable", "spectrum_of")


def none_applicable(why: str) -> list[Check]:
    """Every check as one that does not apply, and why."""
    names = [name for name in __all__ if name.islower() and name not in _NO_CHECKS]
    return [not_applicable(name, why, "") for name in names]


def all_checks(
    subject: Subject,
    tolerances: Tolerances | None = None,
    spectrum: GramianSpectrum | str | None = None,
) -> list[Check]:
    """Every check, in the order of the theory (collective).

    Args:
        subject: What is checked.
        tolerances: What was asked of the solver; None: its defaults.
        spectrum: `spectrum_of(subject)`, where it is known already.
    """
    spectrum = spectrum or spectrum_of(subject)
    return [
        state_bound(subject),
        adjoint_bound(subject),
        sup_bound(subject),
        control_bound(subject),
        state_range(subject),
        loss_floor(subject),
        identical_samples(subject),
        continuous_dependence(subject),
        stationarity(subject, tolerances or Tolerances()),
        projection_formula(subject, tolerances or Tolerances()),
        second_order(subject),
        hamiltonian_constant(subject),
        pontryagin_minimum(subject),
        pontryagin_improvement(subject, tolerances or Tolerances()),
        existence_convexity(subject),
        reachable_targets(subject),
        controllability_gramian(subject, spectrum),
        loss_gradient_bound(subject, spectrum),
    ]
