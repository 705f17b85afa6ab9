"""From a case to arrays: inputs, targets, weights, given controls, all in file order.

Plain NumPy and one process: the caller runs it on rank 0 and hands the outcome to all, so that a
mistake in the data is one error everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fem_dnn import datasets
from fem_dnn.case import Case, field_array, functions_array, is_array, load_array
from fem_dnn.case.arrays import Shapes
from fem_dnn.case.relations import MAX_CLASSES, output_offsets
from fem_dnn.controls import ControlValues
from fem_dnn.depth import DepthLevels
from fem_dnn.errors import BadInput
from fem_dnn.initial_file import controls_of_file

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Places:
    """Where functions are evaluated.

    Attributes:
        nodes: Width nodes in file order, shape (nodes, d).
        weights: Their quadrature weights, shape (nodes,).
        bounds: Lowest and highest corner of the width mesh.
        levels: Depth levels.
    """

    nodes: Array
    weights: Array
    bounds: tuple[Array, Array]
    levels: DepthLevels


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs with their targets.

    Attributes:
        inputs: f_I, shape (samples, nodes).
        targets: As the loss compares: l2 (samples, nodes), mse (samples, K), logistic (samples,)
            of +1/-1, softmax (samples,) class numbers; None where there are none.
        features: The raw features of a data set, shape (samples, features), else None.
    """

    inputs: Array
    targets: Array | None
    features: Array | None = None


@dataclass(frozen=True, eq=False)
class Ingredients:
    """All arrays of a case, in file order.

    Attributes:
        train, test: Samples; test is None where none are kept.
        weights: Sample weights w_s, shape (samples,).
        tracking: Tracking targets at the tracking points, shape (points or 1, samples, nodes).
        kernel: A given kernel (levels, nodes, nodes), else None.
        bias: A given bias (levels, nodes), else None.
        mask: 0/1 kernel mask (nodes, nodes) or None.
        outputs: W (K, nodes) and m (K,), None for the l2 loss.
        offsets: See outputs.
        initial: Initial guess where it is read from a file, else None.
        dataset: The data set, its scaling and embedding, where one is named.
    """

    train: Samples
    test: Samples | None
    weights: Array
    tracking: Array | None
    kernel: Array | None
    bias: Array | None
    mask: Array | None
    outputs: Array | None
    offsets: Array | None
    initial: ControlValues | None
    dataset: datasets.EmbeddedDataset | None


def read_ingredients(
    case: Case, places: Places, scaling: datasets.Scaling | None = None
) -> Ingredients:
    """Load and evaluate everything that a case names.

    Args:
        case: The case.
        places: Where functions are evaluated.
        scaling: Scaling of features learned earlier; None: from this case's training samples.

    Raises:
        BadInput: Something does not fit.
    """
    embedded = None
    if case.data.dataset is None:
        train, test = _given_samples(case, places), None
    else:
        embedded = datasets.prepare(case, places.nodes, places.weights, places.bounds, scaling)
        train = Samples(embedded.train, embedded.train_targets, embedded.dataset.features)
        test = None
        if embedded.test is not None:
            test = Samples(embedded.test, embedded.test_targets, embedded.dataset.features_test)
    outputs, offsets = _output_layer(case, places, train)
    if outputs is not None and case.loss.kind == "softmax" and train.targets is not None:
        highest = max(int(s.targets.max()) for s in (train, test) if s and s.targets is not None)
        if highest >= len(outputs):
            raise case.error(
                "data.targets", f"have class {highest}", f"0 to {len(outputs) - 1}, one per output"
            )
    return Ingredients(
        train=train,
        test=test,
        weights=_sample_weights(case, len(train.inputs)),
        tracking=_tracking_targets(case, places, train),
        kernel=_given_kernel(case, places),
        bias=_given_bias(case, places),
        mask=_mask(case, places),
        outputs=outputs,
        offsets=offsets,
        initial=controls_of_file(
            case,
            places.levels.count,
            len(places.nodes),
            len(outputs) if outputs is not None and train.targets is not None else None,
        ),
        dataset=embedded,
    )


class Prolongation(Protocol):
    """From functions of a discretisation to the same functions on a richer one, in file order."""

    def width(self, values: Array, axis: int = -1) -> Array:
        """Nodal values along an axis."""

    def depth(self, values: Array) -> Array:
        """Values at the control levels, along the first axis."""

    def controls(self, values: ControlValues) -> ControlValues:
        """Kernel, bias and output layer."""


def prolong_ingredients(
    case: Case, places: Places, known: Ingredients, to: Prolongation
) -> Ingredients:
    """A case's ingredients on a richer discretisation: functions anew, arrays prolonged.

    Args:
        case: The case.
        places: The richer discretisation's.
        known: The ingredients of the case's own discretisation.
        to: Takes arrays from there to `places`.
    """
    data, network, train, test = case.data, case.network, known.train, None
    if data.dataset is not None:
        assert known.dataset is not None
        scaling = known.dataset.scaling
        embedded = datasets.prepare(case, places.nodes, places.weights, places.bounds, scaling)
        train = Samples(embedded.train, embedded.train_targets, train.features)
        if embedded.test is not None and known.test is not None:
            test = Samples(embedded.test, embedded.test_targets, known.test.features)
    else:
        assert data.inputs is not None
        inputs, targets = to.width(train.inputs), train.targets
        if not is_array(data.inputs):
            inputs = functions_array(case, "data.inputs", data.inputs, x=places.nodes)
        if targets is not None and case.loss.kind == "l2":
            array = is_array(data.targets)
            targets = to.width(targets) if array else _given_targets(case, places, len(inputs))
        train = Samples(inputs, targets)
    outputs = known.outputs
    if outputs is not None:
        anew = not is_array(case.loss.outputs)
        outputs = _output_layer(case, places, train)[0] if anew else to.width(outputs)
    tracking = known.tracking
    if tracking is not None:
        array = is_array(data.tracking_targets)
        tracking = _tracking_targets(case, places, known.train if array else train)
        if array and tracking is not None:
            tracking = to.width(tracking)
    kernel, bias, mask = known.kernel, known.bias, known.mask
    if kernel is not None:
        everywhere = to.width(to.width(kernel), axis=1)
        kernel = to.depth(everywhere) if is_array(network.kernel) else _given_kernel(case, places)
    if bias is not None:
        bias = to.depth(to.width(bias)) if is_array(network.bias) else _given_bias(case, places)
    if mask is not None:
        # A polynomial through zeros and ones is neither between the nodes.
        rounded = np.round(to.width(to.width(mask), axis=0))
        mask = rounded if is_array(network.kernel_mask) else _mask(case, places)
    return replace(
        known,
        train=train,
        test=test,
        tracking=tracking,
        kernel=kernel,
        bias=bias,
        mask=mask,
        outputs=outputs,
        initial=None if known.initial is None else to.controls(known.initial),
    )


def _given_samples(case: Case, places: Places) -> Samples:
    assert case.data.inputs is not None
    inputs = functions_array(case, "data.inputs", case.data.inputs, x=places.nodes)
    if not len(inputs):
        raise case.error("data.inputs", "has no samples", "at least one")
    if case.data.targets is None:
        return Samples(inputs, None)
    return Samples(inputs, _given_targets(case, places, len(inputs)))


def _given_targets(case: Case, places: Places, samples: int) -> Array:
    key, entries, kind = "data.targets", case.data.targets, case.loss.kind
    assert entries is not None
    if kind == "l2":
        # Numbers in a list of functions are constants.
        functions = entries if isinstance(entries, str) else tuple(map(str, entries))
        return functions_array(case, key, functions, x=places.nodes, count=samples)
    if isinstance(entries, str):
        shapes: Shapes = {("samples",): (samples,)}
        if kind == "mse":
            shapes = {("samples", "outputs"): (samples, None), **shapes}
        values = load_array(entries, case.folder, key, shapes, file=case.file)
    elif len(entries) != samples:
        wrong = f"has {len(entries)} entries for {samples} inputs"
        raise case.error(key, wrong, f"{samples} entries, one per sample")
    else:
        values = np.array(entries, dtype=np.float64)
    if kind == "mse":
        return values.reshape(samples, -1)
    if kind == "logistic" and not np.all(np.abs(values) == 1):
        wrong = f"{values[np.abs(values) != 1][0]:g} is not a label"
        raise case.error(key, wrong, "+1 and -1")
    if kind == "softmax":
        classes = (values >= 0) & (values < MAX_CLASSES) & (values == np.round(values))
        if not np.all(classes):
            wrong = f"{values[~classes][0]:g} is not a class number"
            raise case.error(key, wrong, f"0, 1, 2, ... below {MAX_CLASSES}")
    return values


def _sample_weights(case: Case, samples: int) -> Array:
    entries, key = case.data.weights, "data.weights"
    if entries is None:
        return np.full(samples, 1.0 / samples)
    if isinstance(entries, str):
        shapes: Shapes = {("samples",): (samples,)}
        weights = load_array(entries, case.folder, key, shapes, file=case.file)
    else:
        weights = np.array(entries, dtype=np.float64)
    if weights.shape != (samples,):
        raise case.error(key, f"has {len(weights)} entries", f"{samples}, one per sample")
    if np.any(weights <= 0):
        raise case.error(key, f"{weights[weights <= 0][0]:g} is not positive", "positive numbers")
    return weights


def _output_layer(case: Case, places: Places, train: Samples) -> tuple[Array | None, Array | None]:
    loss, key = case.loss, "loss.outputs"
    if loss.kind == "l2":
        return None, None
    needed = _outputs_needed(case, train)
    if loss.outputs == "default":
        outputs = datasets.default_outputs(
            needed or 1,
            places.nodes,
            places.weights,
            places.bounds,
            classifies=loss.kind in ("logistic", "softmax"),
        )
    else:
        outputs = functions_array(
            case, key, loss.outputs, x=places.nodes, meaning=("outputs", "nodes")
        )
    if needed is not None and (
        len(outputs) < needed or (case.loss.kind != "softmax" and len(outputs) != needed)
    ):
        raise case.error(
            key,
            f"has {len(outputs)} functions where the data have {needed} outputs",
            f'{needed} functions, or "default"',
        )
    try:
        offsets = output_offsets(loss.offsets, len(outputs))
    except BadInput as problem:
        raise problem.at(file=case.file) from None
    return outputs, np.array(offsets)


def _outputs_needed(case: Case, train: Samples) -> int | None:
    """How many outputs the targets have; None where there are no targets."""
    if case.loss.kind == "logistic":
        return 1
    if train.targets is None:
        return None
    if case.loss.kind == "mse":
        return train.targets.shape[1]
    return max(2, int(train.targets.max()) + 1)


def _tracking_targets(case: Case, places: Places, train: Samples) -> Array | None:
    """Tracking targets at the tracking points; piecewise linear between given slab ends."""
    if case.loss.tracking == 0:
        return None
    entries, key, levels = case.data.tracking_targets, "data.tracking_targets", places.levels
    samples, nodes = train.inputs.shape
    if entries is None:
        if train.targets is None:
            raise case.error(key, "is missing, and so are data.targets", "one of them")
        return train.targets[None]
    if isinstance(entries, str):
        known = np.array(case.mesh.depth.slab_ends)
        shape = (len(known), samples, nodes)
        shapes: Shapes = {("layers + 1", "samples", "nodes"): shape}
        ends = load_array(entries, case.folder, key, shapes, file=case.file)
        slab = np.searchsorted(known, levels.tracking_t) - 1
        fraction = ((levels.tracking_t - known[slab]) / np.diff(known)[slab])[:, None, None]
        return (1 - fraction) * ends[slab] + fraction * ends[slab + 1]
    if len(entries) != samples:
        raise case.error(key, f"has {len(entries)} entries", f"{samples}, one per sample")
    t = levels.tracking_t[:, None]
    rows = [
        case.expression(f"{key}[{s}]", entry, ("x", "t")).evaluate(x=places.nodes[None], t=t)
        for s, entry in enumerate(entries)
    ]
    return np.stack(rows, axis=1)


def _given_kernel(case: Case, places: Places) -> Array | None:
    text, nodes, levels = case.network.kernel, len(places.nodes), places.levels
    if isinstance(text, bool):
        return None
    shapes: Shapes = {
        ("nodes", "nodes"): (nodes, nodes),
        ("levels", "nodes", "nodes"): (levels.count, nodes, nodes),
    }
    values = field_array(
        case,
        "network.kernel",
        text,
        shapes,
        x=places.nodes[None, :, None],
        y=places.nodes[None, None],
        t=levels.t[:, None, None],
    )
    return np.broadcast_to(values, (levels.count, nodes, nodes))


def _given_bias(case: Case, places: Places) -> Array | None:
    text, nodes, levels = case.network.bias, len(places.nodes), places.levels
    if isinstance(text, bool):
        return None
    shapes: Shapes = {("nodes",): (nodes,), ("levels", "nodes"): (levels.count, nodes)}
    values = field_array(
        case, "network.bias", text, shapes, x=places.nodes[None], t=levels.t[:, None]
    )
    return np.broadcast_to(values, (levels.count, nodes))


def _mask(case: Case, places: Places) -> Array | None:
    text, nodes, key = case.network.kernel_mask, len(places.nodes), "network.kernel_mask"
    if text is None:
        return None
    shapes: Shapes = {("nodes", "nodes"): (nodes, nodes)}
    mask = field_array(case, key, text, shapes, x=places.nodes[:, None], y=places.nodes[None])
    if not np.all((mask == 0) | (mask == 1)):
        wrong = mask[(mask != 0) & (mask != 1)][0]
        raise case.error(key, f"{wrong:g} is not 0 or 1", "0 and 1")
    return mask
