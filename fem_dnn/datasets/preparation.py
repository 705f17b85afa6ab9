"""From a case to functions on the width nodes, and the output layer that a program chooses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fem_dnn.datasets.embeddings import Bounds, cosine_modes, embed
from fem_dnn.datasets.loading import Dataset, load
from fem_dnn.datasets.scaling import Scaling
from fem_dnn.errors import BadInput

if TYPE_CHECKING:
    from fem_dnn.case import Case

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class EmbeddedDataset:
    """A data set as functions on the width nodes.

    Attributes:
        dataset: The samples it came from, not scaled.
        scaling: Scaling of the features.
        embedding: Name of the embedding.
        train: Inputs f_I, shape (samples, nodes).
        train_targets: As the loss compares them, see `Dataset.targets_for`; l2: embedded.
        test: As train; None where nothing is kept for testing.
        test_targets: As train_targets.
    """

    dataset: Dataset
    scaling: Scaling
    embedding: str
    train: Array
    train_targets: Array
    test: Array | None
    test_targets: Array | None


def prepare(
    case: Case, x: Array, weights: Array, bounds: Bounds, scaling: Scaling | None = None
) -> EmbeddedDataset:
    """The data set that a case names, as functions on the width nodes.

    Args:
        case: A case with `data.dataset`.
        x: Nodes, shape (nodes, d).
        weights: Their quadrature weights, shape (nodes,).
        bounds: Lowest and highest corner of Y.
        scaling: Scaling of features that a network was trained with; it takes the place of what
            the case says, which is right for training only.

    Raises:
        BadInput: Data, loss, embedding and mesh do not fit each other.
    """
    data = case.data
    assert data.dataset is not None
    try:
        dataset = load(
            data.dataset,
            samples=data.samples,
            noise=data.noise,
            seed=data.seed,
            test_fraction=data.test_fraction,
        )
        targets, targets_test = dataset.targets_for(case.loss.kind)
        if scaling is None:
            scaling = fit_scaling(dataset, data.scaling)
        elif scaling.count != dataset.info.features:
            wrong = f"{data.dataset} has {dataset.info.features} features"
            raise BadInput(None, "data.dataset", wrong, f"{scaling.count}, as trained with")
        name = data.embedding or dataset.info.embedding
        shape = dataset.info.image_shape

        def as_functions(features: Array) -> Array:
            return embed(scaling(features), x, weights, bounds, embedding=name, image_shape=shape)

        if case.loss.kind == "l2":
            targets, targets_test = as_functions(targets), as_functions(targets_test)
        tested = len(dataset.features_test) > 0
        return EmbeddedDataset(
            dataset,
            scaling,
            name,
            as_functions(dataset.features),
            targets,
            as_functions(dataset.features_test) if tested else None,
            targets_test if tested else None,
        )
    except BadInput as problem:
        raise problem.at(file=case.file) from None


def fit_scaling(dataset: Dataset, kind: str) -> Scaling:
    """The scaling that a case asks for, from the training samples.

    Args:
        dataset: The data set.
        kind: "standard" or "none".
    """
    if kind == "none":
        return Scaling.identity(dataset.info.features)
    return Scaling.standard(dataset.features, pooled=dataset.info.image_shape is not None)


CLASSIFIER_SCALE = 10.0
"""Norm of the default output functions of a classifier, whose outputs are log-odds."""


def default_outputs(
    count: int, x: Array, weights: Array, bounds: Bounds, *, classifies: bool = False
) -> Array:
    """The output functions W_k that "default" stands for, shape (count, nodes).

    The first cosine modes, orthonormal in L2(Y); for a classifier times `CLASSIFIER_SCALE`. With
    tanh |f(T) − f_I| < T, so z_k moves by less than T ‖W_k‖ |Y|^{1/2}: modes of norm 1 and a short
    depth could not make an output as sure as the loss would have it.

    Args:
        count: Number of outputs K.
        x: Nodes, shape (nodes, d).
        weights: Their quadrature weights, shape (nodes,).
        bounds: Lowest and highest corner of Y.
        classifies: Whether the outputs are log-odds (logistic, softmax) rather than values (mse).

    Raises:
        BadInput: The mesh cannot tell so many functions apart (mesh.width.cells).
    """
    basis = cosine_modes(count, x, bounds)
    basis.require_independent(weights, "default output functions")
    return basis.values * (CLASSIFIER_SCALE if classifies else 1.0)
