"""Continuous dependence on the data, measured (theory.md section 1).

|f - f~|(t) <= exp(L int_0^t |a|) (|f_I - f~_I| + L int_0^t (|a - a~| |f~| + |b - b~|))
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fem_dnn.checks.causes import likely_cause
from fem_dnn.checks.check import ROUND_OFF, Check, not_applicable
from fem_dnn.checks.subject import Subject
from fem_dnn.network import LayerWeights
from fem_dnn.nonlocal_operator import NonlocalOperator
from fem_dnn.slab import SlabFailure

Array = NDArray[np.float64]

SOURCE = "theory.md section 1 (Gronwall)"

SIZES = (1e-3, 1.0)
"""Sizes of the perturbations, relative to what they perturb (to 1 where that is 0)."""

SAMPLES = 32
"""Samples that are perturbed, the first ones: every perturbation costs a forward solve."""


def continuous_dependence(subject: Subject, *, seed: int = 0) -> Check:
    """Perturb inputs, kernel and bias, solve again, and hold the change against its bound.

    Each alone and all together, of the sizes `SIZES`, scaled up (a direction in which the bound
    can be attained) and in random directions (the kernel's of rank one per level); collective.

    Args:
        subject: Where to perturb.
        seed: Seed of the directions; they do not depend on the number of ranks.
    """
    name = "continuous_dependence"
    if not np.isfinite(subject.network.activation.lipschitz):
        return not_applicable(name, "the activation is not Lipschitz", SOURCE)
    few = _first_samples(subject)
    ratio, value, bound, where, count = _worst(few, seed)
    if not count:
        return not_applicable(name, "no perturbed network could be solved", SOURCE)
    holds = bool(ratio <= 1 + ROUND_OFF)
    text = (
        "|f - f~|(t) <= exp(L int |a|)(|f_I - f~_I| + L int (|a - a~||f~| + |b - b~|)); worst of "
        f"{count} perturbations of {few.inputs.shape[1]} samples: {where}, ratio {ratio:.6g}"
    )
    if not holds:
        text = f"{text}; {likely_cause(few, lambda other: _worst(other, seed)[0] - 1)}"
    return Check(name, holds, value, bound, text, SOURCE)


def _worst(subject: Subject, seed: int) -> tuple[float, float, float, str, int]:
    """Over all perturbations that can be solved: ratio, value, bound, which one, how many."""
    worst, count = (-np.inf, 0.0, 0.0, ""), 0
    for what in _perturbable(subject):
        for size in SIZES:
            for direction, rng in (("scaled", None), ("random", np.random.default_rng(seed))):
                try:
                    value, bound = _change(subject, what, size, rng)
                except SlabFailure:
                    continue  # the perturbed network, not the checked one, is out of reach
                count += 1
                ratio = value / bound if bound > 0 else 0.0
                if not ratio <= worst[0]:
                    parts = " and ".join(what)
                    worst = (ratio, value, bound, f"{parts}, {direction} by {size:g} (relative)")
    return (*worst, count)


def _first_samples(subject: Subject) -> Subject:
    """The same network on its first samples, without the loss."""
    kept = slice(0, SAMPLES)
    few = subject.state.of_samples(kept)
    return Subject(subject.network, subject.weights, subject.inputs[:, kept], few)


def _perturbable(subject: Subject) -> list[tuple[str, ...]]:
    parts = ["inputs"]
    parts += ["kernel"] if subject.weights.operator is not None else []
    parts += ["bias"] if subject.weights.bias is not None else []
    return [*((part,) for part in parts), *([tuple(parts)] if len(parts) > 1 else [])]


def _change(
    subject: Subject, what: tuple[str, ...], size: float, rng: np.random.Generator | None
) -> tuple[float, float]:
    """Largest |f - f~| against its bound over slab ends and samples: (value, bound) there."""
    space, levels, L = subject.network.space, subject.levels, subject.network.activation.lipschitz
    samples, N = subject.inputs.shape[1], space.n_nodes
    operator, bias, inputs = subject.weights.operator, subject.weights.bias, subject.inputs
    d_inputs: Array = np.zeros(samples)
    d_kernel: Array = np.zeros(levels.count)
    d_bias: Array = np.zeros(levels.count)
    if "inputs" in what:
        change = size * inputs
        if rng is not None:
            change = space.from_file_order(rng.standard_normal((samples, N))).T
            change = change * (size * _sizes(subject.norms(inputs)) / subject.norms(change))
        inputs, d_inputs = inputs + change, subject.norms(change)
    if "bias" in what and bias is not None:
        change = size * bias
        if rng is not None:
            change = space.from_file_order(rng.standard_normal((levels.count, N)))[:, :, None]
            scale = size * _sizes(subject.bias_norms()) / subject.norms(change)[:, 0]
            change = change * scale[:, None, None]
        bias, d_bias = bias + change, subject.norms(change)[:, 0]
    if "kernel" in what and operator is not None:
        if rng is None:
            d_kernel = size * subject.kernel_norms()
            coefficients = (1 + size) * operator.coefficients
        else:
            d_kernel = size * _sizes(subject.kernel_norms())
            root = np.sqrt(levels.weights) * d_kernel
            x = space.from_file_order(_unit(rng.standard_normal((levels.count, N))))
            y = _unit(rng.standard_normal((levels.count, N)))[:, space.file_position]
            coefficients = operator.coefficients + np.einsum("k,ky,kx->kyx", root, y, x)
        operator = NonlocalOperator(space, levels.weights, coefficients)
    perturbed = subject.with_weights(LayerWeights(operator, bias), inputs)
    moved = subject.norms(perturbed.state.ends - subject.state.ends)
    f = perturbed.norms(perturbed.level_states())
    driven = subject.integral(d_kernel[:, None] * f + d_bias[:, None])
    growth = np.exp(L * subject.integral(subject.kernel_norms()))[:, None]
    bounds = growth * (d_inputs + L * driven)
    ratio = np.divide(moved, bounds, out=np.zeros_like(moved), where=bounds > 0)
    ratio[0] = 0.0  # there both are |f_I - f~_I|
    n, s = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
    return float(moved[n, s]), float(bounds[n, s])


def _unit(coordinates: Array) -> Array:
    unit: Array = coordinates / np.linalg.norm(coordinates, axis=-1, keepdims=True)
    return unit


def _sizes(norms: Array) -> Array:
    return np.where(norms > 0, norms, 1.0)
