"""The number of a case that varies along a branch, and the derivative of the gradient by it.

A critical point is a zero of F(c, mu) = grad_c J(c; mu), c being the control's coordinates, which
are L2-orthonormal at every mu. Weights of the regulariser and of the loss enter J linearly: F_mu is
the gradient of their term alone, exact. Any other number of the problem (a length of the mesh, the
noise of the data) has the problem assembled anew, and F_mu by a centred difference at fixed
coordinates; that F_mu is approximate slows Newton's corrections a little and changes no solution.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from fem_dnn.assembly import Model, assemble
from fem_dnn.case import Case
from fem_dnn.errors import BadInput, shown
from fem_dnn.losses import L2Loss, OutputLoss
from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.regularization import Regularization

Array = NDArray[np.float64]

TERMS = ("kernel_depth", "bias_depth", "kernel_width", "bias_width")
DIFFERENCE = 1e-5
"""Half the distance of a centred difference, relative to the parameter and to its range."""


class Parameter(Protocol):
    """A family of learning problems with the same controls."""

    def problem(self, value: float) -> LearningProblem:
        """The problem at a value (collective).

        Raises:
            BadInput: The value is not allowed.
        """

    def gradient_rate(self, at: Linearisation, value: float) -> Array:
        """F_mu: the derivative of the reduced gradient at a fixed control (collective).

        Args:
            at: Linearisation of `problem(value)`.
            value: mu.
        """


class RegularizationWeight:
    """A weight of R: F_mu = R''(c) with this weight 1 and all others 0.

    Args:
        base: The problem at any value.
        name: Name of the weight in [regularization].
    """

    def __init__(self, base: LearningProblem, name: str) -> None:
        self.base, self.name = base, name
        self.alone = _without(base.regularization).reweighted(**{name: 1.0})

    def problem(self, value: float) -> LearningProblem:
        """The problem with this weight."""
        _require_weight(value)
        changed = self.base.regularization.reweighted(**{self.name: value})
        return replace(self.base, regularization=changed)

    def gradient_rate(self, at: Linearisation, value: float) -> Array:
        """R'' c of the term alone."""
        return self.alone.action(at.control)


class LossWeight:
    """The weight of the terminal loss, or that of the tracking term.

    Args:
        base: The problem at a value that is not 0.
        name: weight | tracking, of [loss].
    """

    def __init__(self, base: LearningProblem, name: str) -> None:
        self.base, self.name = base, name
        rest = replace(base, regularization=_without(base.regularization))
        if name == "weight":
            rest = replace(rest, tracking=None)
        else:
            rest = replace(rest, loss=_weighted_loss(base, 0.0))
        self.alone = self._weighted(rest, 1.0)

    def problem(self, value: float) -> LearningProblem:
        """The problem with this weight."""
        _require_weight(value)
        return self._weighted(self.base, value)

    def gradient_rate(self, at: Linearisation, value: float) -> Array:
        """The gradient of the term alone."""
        return self.alone.linearise(at.control).gradient

    def _weighted(self, problem: LearningProblem, value: float) -> LearningProblem:
        if self.name == "weight":
            return replace(problem, loss=_weighted_loss(problem, value))
        assert problem.tracking is not None
        return replace(problem, tracking=replace(problem.tracking, weight=value))


class AnyNumber:
    """A number of [mesh] or [data]: the problem is assembled anew for every value.

    Args:
        model: The case at any value.
        key: The number's full key.
        ends: The values between which the parameter varies.
    """

    def __init__(self, model: Model, key: str, ends: tuple[float, float]) -> None:
        assert model.problem is not None
        self.case, self.comm, self.key = model.case, model.comm, key
        self.low, self.high = min(ends), max(ends)
        self.size = model.problem.controls.n_global
        self.work = model.problem.work
        self._recent: dict[float, LearningProblem] = {}

    def problem(self, value: float) -> LearningProblem:
        """The problem with this number."""
        if value not in self._recent:
            problem = assemble(self.case.with_value(self.key, value), self.comm).problem
            assert problem is not None
            if problem.controls.n_global != self.size:
                wrong = f"changes the number of controls at {value:g}"
                raise self.case.error("path.parameter", f"{self.key} {wrong}", ALLOWED)
            # The two ends of a difference, and the points before and after a step.
            for old in list(self._recent)[:-3]:
                del self._recent[old]
            self._recent[value] = replace(problem, work=self.work)
        return self._recent[value]

    def gradient_rate(self, at: Linearisation, value: float) -> Array:
        """A centred difference of gradients, one-sided at the ends of the range."""
        reach = DIFFERENCE * max(abs(value), self.high - self.low)
        ends = (value - reach, value + reach)
        if self.low < value < self.high:
            ends = (max(ends[0], self.low), min(ends[1], self.high))
        elif value == self.low:
            ends = (value, ends[1])
        elif value == self.high:
            ends = (ends[0], value)
        before, after = (self.problem(end).linearise(at.control).gradient for end in ends)
        change: Array = after - before
        change /= ends[1] - ends[0]
        return change


ALLOWED = "a number of [regularization], [loss], [mesh] or [data], e.g. regularization.kernel"


def read_parameter(case: Case, comm: MPI.Comm) -> tuple[Model, Parameter]:
    """The case at `path.start`, and the family of problems along its `path.parameter` (collective).

    Args:
        case: A case that `require_influence` accepts.
        comm: Communicator.

    Raises:
        BadInput: The data or the mesh do not fit the case.
    """
    key, start, stop = case.path.parameter, case.path.start, case.path.stop
    section, _, name = key.partition(".")
    if section in ("mesh", "data"):
        model = assemble(case.with_value(key, start), comm)
        return model, AnyNumber(model, key, (start, stop))
    # Where a weight is 0 its term is left out: it is there at the other end.
    model = assemble(case.with_value(key, start or stop), comm)
    assert model.problem is not None
    if section == "loss":
        return model, LossWeight(model.problem, name)
    return model, RegularizationWeight(model.problem, name)


def require_influence(case: Case) -> None:
    """A branch can be followed in numbers that critical points depend on smoothly.

    Raises:
        BadInput: Another parameter.
    """
    key = case.path.parameter
    section, _, name = key.partition(".")
    wrong = ""
    if section not in ("mesh", "data", "loss", "regularization"):
        wrong = "is no number of the learning problem"
    elif key == "data.test_fraction":
        wrong = "changes the samples in jumps"
    elif section == "regularization":
        control = name.split("_")[0]
        trained = (
            case.loss.train_outputs
            if control == "outputs"
            else getattr(case.network, control) is True
        )
        if not trained:
            has = "are" if control == "outputs" else "is"
            wrong = (
                f"weighs the {control}, which {has} not trained: no critical point depends on it"
            )
    if wrong:
        raise BadInput(case.file, "path.parameter", f"{shown(key)} {wrong}", ALLOWED)


def _require_weight(value: float) -> None:
    if value < 0:
        raise BadInput(None, "path.parameter", f"{value:g} is no weight", "numbers >= 0")


def _without(regularization: Regularization) -> Regularization:
    """The regulariser with all weights 0."""
    names = ("kernel", "bias", "outputs", "given", *TERMS)
    return regularization.reweighted(**dict.fromkeys(names, 0.0))


def _weighted_loss(problem: LearningProblem, weight: float) -> L2Loss | OutputLoss:
    loss = problem.loss
    assert isinstance(loss, L2Loss | OutputLoss)
    return replace(loss, weight=weight)
