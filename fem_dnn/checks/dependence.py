"""Continuous dependence on the data, measured (theory.md section 1).

|f - f~|(t) <= exp(L int_0^t |a|) (|f_I - f~_I| + L int_0^t (|a - a~| |f~| + |b - b~|))
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fem_dnn.checks.causes import likely_cause
from fem_dnn.checks.check import ROUND_OFF, Check, not_applicable
from fem_dnn.checks.subject import Subject
from fem_dnn.nonlocal_operator import NonlocalOperator
from fem_dnn.slab import SlabFailure
from fem_dnn.state import LayerWeights

Array = NDArray[np.float64]

SOURCE = "theory.md section 1 (Gronwall)"

SIZES = (1e-3, 1.0)
"""Sizes of the perturbations, relative to what they perturb (to 1 where that is 0)."""

SAMPLES = 32
"""Samples that are perturbed, the first ones: every perturbation costs a forward solve."""


def continuous_dependence(subject: Subject, *, seed: int = 0) -> Check:
    """Perturb inputs, kernel and bias, solve again, and hold the change against its bound.

    Each alone and all together, in random directions (the kernel's of rank one per level), of the
    sizes `SIZES` (collective).

    Args:
        subject: Where to perturb.
        seed: Seed of the directions; they do not depend on the number of ranks.
    """
    name = "continuous_dependence"
    if not np.isfinite(subject.network.activation.lipschitz):
        return not_applicable(name, "the activation is not Lipschitz", SOURCE)
    few = _first_samples(subject)
    worst = (-np.inf, 0.0, 0.0, "")
    for size in SIZES:
        for what in _perturbable(few):
            try:
                value, bound = _change(few, what, size, seed)
            except SlabFailure:
                continue  # the perturbed network, not the checked one, is out of reach
            ratio = value / bound if bound > 0 else 0.0
            if not ratio <= worst[0]:
                worst = (ratio, value, bound, f"{' and '.join(what)} perturbed by {size:g}")
    ratio, value, bound, where = worst
    if not where:
        return not_applicable(name, "no perturbed network could be solved", SOURCE)
    holds = bool(ratio <= 1 + ROUND_OFF)
    text = (
        "|f - f~|(t) <= exp(L int |a|)(|f_I - f~_I| + L int (|a - a~||f~| + |b - b~|)); worst of "
        f"{len(SIZES)} sizes (relative), {len(_perturbable(few))} kinds, {few.inputs.shape[1]} "
        f"samples: {where}, ratio {ratio:.6g}"
    )
    if not holds:

        def excess(other: Subject) -> float:
            pairs = [_change(other, w, s, seed) for s in SIZES for w in _perturbable(other)]
            return max(v / b for v, b in pairs if b > 0) - 1

        text = f"{text}; {likely_cause(few, excess)}"
    return Check(name, holds, value, bound, text, SOURCE)


def _first_samples(subject: Subject) -> Subject:
    """The same network on its first samples, without the loss."""
    kept = slice(0, SAMPLES)
    state = subject.state
    few = replace(
        state,
        ends=state.ends[:, :, kept],
        u=state.u[:, :, kept],
        slope=state.slope[:, :, kept],
        gathered=None if state.gathered is None else state.gathered[:, :, kept],
        tracked=state.tracked[:, :, kept],
    )
    return Subject(subject.network, subject.weights, subject.inputs[:, kept], few)


def _perturbable(subject: Subject) -> list[tuple[str, ...]]:
    parts = ["inputs"]
    parts += ["kernel"] if subject.weights.operator is not None else []
    parts += ["bias"] if subject.weights.bias is not None else []
    return [*((part,) for part in parts), *([tuple(parts)] if len(parts) > 1 else [])]


def _change(subject: Subject, what: tuple[str, ...], size: float, seed: int) -> tuple[float, float]:
    """Largest |f - f~| against its bound over slab ends and samples: (value, bound) there."""
    space, levels, L = subject.network.space, subject.levels, subject.network.activation.lipschitz
    rng = np.random.default_rng(seed)
    samples, N = subject.inputs.shape[1], space.n_nodes
    operator, bias, inputs = subject.weights.operator, subject.weights.bias, subject.inputs
    d_inputs: Array = np.zeros(samples)
    d_kernel: Array = np.zeros(levels.count)
    d_bias: Array = np.zeros(levels.count)
    if "inputs" in what:
        change = space.from_file_order(rng.standard_normal((samples, N))).T
        change = change * (size * _sizes(subject.norms(inputs)) / subject.norms(change))
        inputs, d_inputs = inputs + change, subject.norms(change)
    if "bias" in what and bias is not None:
        change = space.from_file_order(rng.standard_normal((levels.count, N)))[:, :, None]
        scale = size * _sizes(subject.bias_norms())
        change = change * (scale / subject.norms(change)[:, 0])[:, None, None]
        bias, d_bias = bias + change, scale
    if "kernel" in what and operator is not None:
        d_kernel = size * _sizes(subject.kernel_norms())
        x = space.from_file_order(rng.standard_normal((levels.count, N)))
        y = rng.standard_normal((levels.count, N))[:, space.file_position]
        x = x * space.sqrt_weights[space.owned]
        y = y * space.sqrt_weights
        x = x / np.sqrt(space.sum(np.sum(x * x, axis=1)))[:, None]
        y = y / np.linalg.norm(y, axis=1)[:, None]
        root = np.sqrt(levels.weights) * d_kernel
        coefficients = operator.coefficients + (root[:, None] * y)[:, :, None] * x[:, None, :]
        operator = NonlocalOperator(space, levels.weights, coefficients)
    perturbed = subject.with_weights(LayerWeights(operator, bias), inputs)
    moved = subject.norms(perturbed.state.ends - subject.state.ends)
    f = perturbed.norms(perturbed.level_states())
    driven = subject.integral(d_kernel[:, None] * f + d_bias[:, None])
    growth = np.exp(L * subject.integral(subject.kernel_norms()))[:, None]
    bounds = growth * (d_inputs + L * driven)
    ratio = np.divide(moved, bounds, out=np.zeros_like(moved), where=bounds > 0)
    n, s = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
    return float(moved[n, s]), float(bounds[n, s])


def _sizes(norms: Array) -> Array:
    return np.where(norms > 0, norms, 1.0)
