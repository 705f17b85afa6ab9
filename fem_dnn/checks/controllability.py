"""Which targets controls can reach, and which directions of the outputs (theory.md section 6)."""

from __future__ import annotations

import numpy as np

from fem_dnn.checks.check import ROUND_OFF, Check, not_applicable
from fem_dnn.checks.subject import Subject
from fem_dnn.controllability import (
    EndPointMap,
    GramianSpectrum,
    OutOfReach,
    exact_controls,
    gramian_spectrum,
    loss_floor,
    targets_of,
)
from fem_dnn.controllability.floors import samples_that_move_together
from fem_dnn.controllability.gramian import DENSE, UNREACHABLE
from fem_dnn.slab import SlabFailure

SOURCE = "theory.md section 6 (controllability)"

MOST_OUTPUTS = 5000
"""Outputs up to which the Gramian is looked at: it acts by sweeps, some hundred of them."""

RESTARTS = 4
"""Of the eigensolver, where the Gramian is not made whole."""

SATURATED = 1e-8
"""sigma' relative to its supremum, at every depth, below which a neuron is deaf to a sample."""


def reachable_targets(subject: Subject) -> Check:
    """Some controls reach every target: those of section 6, run through the forward solver.

    Value: their largest misfit. Where the straight path has no controls the least loss that the
    range of sigma and coinciding samples allow may still tell that none have; between the two the
    question stays open (collective).
    """
    name, at = "reachable_targets", subject.at
    if at is None:
        return not_applicable(name, "there are no targets", SOURCE)
    try:
        targets = targets_of(at.problem)
    except OutOfReach as failure:
        return not_applicable(name, str(failure), SOURCE)
    floor, size = loss_floor(at.problem), float(np.max(subject.norms(targets)))
    if floor.value > ROUND_OFF**2 * max(size**2, 1.0):
        text = (
            f"no controls bring the terminal loss (value) below {floor.value:.6g} (bound): "
            f"{floor.by_range:.6g} because of the range of {subject.network.activation.name} "
            "within this depth"
        )
        if floor.together:
            text += f", {floor.by_groups:.6g} because {floor.together} samples cannot part"
        value = float(at.problem.sample_weights @ at.loss_point.values)
        return Check(name, False, value, floor.value, text, SOURCE)
    try:
        exact = exact_controls(at.problem, targets)
    except OutOfReach as failure:
        return not_applicable(name, f"the straight path has no controls: {failure}", SOURCE)
    except SlabFailure as failure:
        why = f"the forward solver does not follow the straight path: {failure}"
        return not_applicable(name, why, SOURCE)
    condition = 1 / np.sqrt(max(exact.lowest_eigenvalue, 1e-20))
    bound = ROUND_OFF * max(size, 1.0) * condition
    text = (
        f"controls of cost R = {exact.cost:.6g} reach every target along straight lines (the "
        f"computed ones cost {at.regularization:.6g} and leave the loss {at.loss:.3g}); value: "
        f"their misfit in the forward solver; bound: round-off grown by K(t), whose lowest "
        f"eigenvalue is {exact.lowest_eigenvalue:.2e} of the highest, at t = {exact.lowest_at:.4g}"
    )
    if np.isfinite(exact.room):
        text += f"; sigma's range leaves {exact.room:.3g} of room"
    holds = bool(exact.misfit <= bound)
    if not holds:
        text += (
            "; the forward solver leaves the straight path: its slabs have other solutions there, "
            "use more layers (mesh.depth.cells)"
        )
    return Check(name, holds, exact.misfit, bound, text, SOURCE)


def spectrum_of(subject: Subject) -> GramianSpectrum | str:
    """The spectrum of the Gramian at the computed controls, or why there is none (collective)."""
    at = subject.at
    if at is None or at.problem.controls.n_global == 0:
        return "nothing is trained"
    outputs = EndPointMap(at).n_global
    if outputs > MOST_OUTPUTS:
        return f"{outputs} outputs of all samples are too many to look at"
    spectrum = gramian_spectrum(at, dense=DENSE, max_restarts=RESTARTS)
    if np.isnan(spectrum.ratio):
        return "the eigensolver did not find the lowest eigenvalue in its limit of restarts"
    return spectrum


def controllability_gramian(
    subject: Subject, spectrum: GramianSpectrum | str | None = None
) -> Check:
    """The linearised end-point map at the computed controls is onto (collective).

    Value: lowest over largest eigenvalue of its Gramian.

    Args:
        subject: What is checked.
        spectrum: `spectrum_of(subject)`, where it is known already.
    """
    name = "controllability_gramian"
    spectrum = spectrum or spectrum_of(subject)
    if isinstance(spectrum, str):
        return not_applicable(name, spectrum, SOURCE)
    at = subject.at
    assert at is not None
    ends = EndPointMap(at)
    what = "states f_s(T)" if ends.layer is None else "outputs z_s"
    accuracy = spectrum.residual / spectrum.largest if spectrum.largest > 0 else 0.0
    holds = bool(spectrum.ratio > max(UNREACHABLE, accuracy))
    text = (
        f"the controls move the {what} in every direction to first order if the Gramian's lowest "
        f"eigenvalue is positive; value: over the largest one, {spectrum.largest:.4g}, of "
        f"{spectrum.outputs}"
    )
    if not holds:
        text += f"; {spectrum.unreachable or 'some'} directions cannot be reached: "
        text += _why(subject, spectrum)
        if not spectrum.complete and spectrum.rank_bound == spectrum.outputs:
            return Check(name, None, spectrum.ratio, accuracy, text, SOURCE)
    else:
        hardest = np.sum(spectrum.directions[0] ** 2, axis=1)
        share, sample = np.max(hardest), np.argmax(hardest)
        text += f"; the hardest direction is {share:.0%} of sample {sample}"
    return Check(name, holds, spectrum.ratio, UNREACHABLE, text, SOURCE)


def loss_gradient_bound(subject: Subject, spectrum: GramianSpectrum | str | None = None) -> Check:
    """|grad loss| <= (|grad J| + |R'(c)|) / m^{1/2}, m the Gramian's lowest eigenvalue.

    L' maps the gradient of the terminal loss by the outputs to grad J - R'(c): where L is onto, a
    critical point with a small regularisation has a small loss gradient (collective).

    Args:
        subject: What is checked.
        spectrum: `spectrum_of(subject)`, where it is known already.
    """
    name = "loss_gradient_bound"
    spectrum = spectrum or spectrum_of(subject)
    if isinstance(spectrum, str):
        return not_applicable(name, spectrum, SOURCE)
    at = subject.at
    assert at is not None
    if at.problem.tracking is not None:
        return not_applicable(name, "tracking drives the adjoint along the whole depth", SOURCE)
    if not spectrum.complete or spectrum.ratio <= UNREACHABLE:
        return not_applicable(name, "see controllability_gramian: it is not known onto", SOURCE)
    ends = EndPointMap(at)
    controls, space = at.problem.controls, subject.network.space
    value = float(np.sqrt(space.sum(np.array(ends.residual @ ends.residual))))
    penalty = controls.norm(at.problem.regularization.action(at.control))
    bound = (controls.norm(at.gradient) + penalty) / np.sqrt(spectrum.lowest)
    holds = value <= bound * (1 + ROUND_OFF) + ROUND_OFF
    text = (
        "the gradient of the terminal loss by the outputs is at most (|grad J| + |R'|) over the "
        f"root of the Gramian's lowest eigenvalue {spectrum.lowest:.3g}: small wherever J is "
        "critical and the regularisation small"
    )
    if not holds:
        text += "; likely cause: the adjoint or the gradient is not that of these controls"
    return Check(name, bool(holds), value, float(bound), text, SOURCE)


def _why(subject: Subject, spectrum: GramianSpectrum) -> str:
    at = subject.at
    assert at is not None
    if spectrum.rank_bound < spectrum.outputs:
        return f"there are {spectrum.outputs} outputs and {spectrum.rank_bound} controls"
    layer = EndPointMap(at).layer
    if layer is not None:
        space = subject.network.space
        gram = space.sum((layer.functions * space.local_weights) @ layer.functions.T)
        rank = int(np.linalg.matrix_rank(gram, hermitian=True))
        if rank < len(gram) and not at.problem.controls.outputs:
            return f"the {len(gram)} output functions depend on each other (rank {rank})"
    together = [g for g in samples_that_move_together(at.problem) if len(g) > 1]
    if together:
        return f"{sum(map(len, together))} samples cannot part, {together[0][:4].tolist()} for one"
    slope = subject.state.slope.reshape(-1, *subject.inputs.shape)
    largest = np.max(np.abs(slope), axis=0)
    deaf = largest <= SATURATED * subject.network.activation.lipschitz
    count = int(subject.network.space.sum(np.array(np.count_nonzero(deaf))))
    if count:
        return (
            f"sigma' vanishes at every depth at {count} of "
            f"{subject.network.space.n_nodes * subject.inputs.shape[1]} neurons and samples: "
            "saturated, or dead"
        )
    return "the states of the samples depend on each other along the depth, up to round-off"
