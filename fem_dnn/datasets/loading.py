"""Loading data sets: samples, split into training and test, in the form that a loss compares."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fem_dnn.datasets.catalogue import DATASETS, LOSSES, DatasetInfo
from fem_dnn.errors import BadInput, shown

Array = NDArray[np.float64]

DIABETES_MEAN, DIABETES_DEVIATION = 152.0, 77.0
"""The diabetes targets, 25 to 346, are given as (value - mean) / deviation with these constants:
mean and standard deviation of all 442, rounded, so that they depend on no split."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples of a data set, not yet scaled.

    Attributes:
        info: What is known of the data set.
        features: Training features, shape (samples, features).
        targets: Class numbers (samples,), or numbers to predict (samples, outputs).
        features_test: Test features; no rows where nothing is kept for testing.
        targets_test: As targets.
        class_names: Names of the classes, in order of their numbers; empty where there are none.
        feature_names: Names of the features.
    """

    info: DatasetInfo
    features: Array
    targets: NDArray
    features_test: Array
    targets_test: NDArray
    class_names: tuple[str, ...]
    feature_names: tuple[str, ...]

    def targets_for(self, loss_kind: str) -> tuple[Array, Array]:
        """Training and test targets as a loss compares them.

        logistic: (samples,) of −1 (class 0) and +1 (class 1). softmax: (samples,) class numbers.
        mse: (samples, outputs), for two classes one output of −1 and +1, for more the indicators
        of the classes. l2: (samples, features), to be embedded like the inputs.

        Raises:
            BadInput: The loss does not fit the data (loss.kind).
        """
        info = self.info
        if loss_kind not in LOSSES[info.task]:
            what = f"{info.outputs} classes" if info.classifies else f"{info.task} as its task"
            wrong = f"{shown(loss_kind)} does not fit {info.name}, which has {what}"
            raise BadInput(None, "loss.kind", wrong, ", ".join(LOSSES[info.task]))
        train, test = (self._form(t, loss_kind) for t in (self.targets, self.targets_test))
        return train, test

    def _form(self, targets: NDArray, loss_kind: str) -> Array:
        if self.info.classifies and loss_kind != "softmax":
            if self.info.task == "multiclass":
                return np.eye(self.info.outputs)[targets]
            signs = 2.0 * targets - 1.0
            return signs[:, None] if loss_kind == "mse" else signs
        return targets.astype(np.float64)


def load(
    name: str,
    *,
    samples: int | None = None,
    noise: float | None = None,
    seed: int = 0,
    test_fraction: float = 0.0,
) -> Dataset:
    """Load or make a data set. The same arguments give the same arrays.

    Args:
        name: A key of `DATASETS`.
        samples: How many, training and test together; of a measured set a random choice with the
            classes in proportion. Default: the data set's own.
        noise: Standard deviation of the noise of a set that is made. Default: the data set's own.
        seed: Seed of generation, choice and split.
        test_fraction: Part of the samples kept for testing, rounded up; classes in proportion.

    Raises:
        BadInput: No such data set, or the numbers ask for what it does not have (data.*).
    """
    if name not in DATASETS:
        wrong = f"{shown(name)} is not a data set"
        raise BadInput(None, "data.dataset", wrong, ", ".join(DATASETS))
    info = DATASETS[name]
    if info.generator is not None:
        count = info.samples if samples is None else samples
        level = info.noise if noise is None else noise
        assert level is not None
        features, targets = info.generator(count, level, seed)
        feature_names = tuple(f"z_{k}" for k in range(info.features))
        class_names = tuple(f"class {k}" for k in range(info.outputs)) if info.classifies else ()
    else:
        if noise:
            wrong = f"does not apply to {name}, whose samples are measured"
            raise BadInput(None, "data.noise", wrong, "no noise, or a data set that is made")
        features, targets, feature_names, class_names = _measured(name)
        chosen = _choose(info, targets, samples, seed)
        features, targets = features[chosen], targets[chosen]
    train, test = _split(info, targets, test_fraction, seed)
    return Dataset(
        info,
        features[train],
        targets[train],
        features[test],
        targets[test],
        class_names,
        feature_names,
    )


@cache
def _measured(name: str) -> tuple[Array, NDArray, tuple[str, ...], tuple[str, ...]]:
    """All samples of a set that scikit-learn brings along: features, targets, names."""
    # scikit-learn takes about a second to import: pay only when data are loaded.
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    targets = bunch.target
    if name == "diabetes":
        targets = ((targets - DIABETES_MEAN) / DIABETES_DEVIATION)[:, None]
    feature_names = tuple(map(str, bunch.feature_names))
    return bunch.data, targets, feature_names, tuple(map(str, bunch.get("target_names", ())))


def _choose(
    info: DatasetInfo, targets: NDArray, samples: int | None, seed: int
) -> NDArray[np.int64]:
    """Samples of a measured set, in random order."""
    from sklearn.utils import resample  # late, as in `_measured`

    everything = np.arange(len(targets))
    if samples is None:
        return everything
    if samples > len(targets):
        wrong = f"{samples} is more than {info.name} has"
        raise BadInput(None, "data.samples", wrong, f"1 to {len(targets)}")
    classes = targets if info.classifies else None
    return resample(
        everything, replace=False, n_samples=samples, stratify=classes, random_state=seed
    )


def _split(
    info: DatasetInfo, targets: NDArray, fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Training and test samples."""
    everything = np.arange(len(targets))
    if fraction == 0:
        return everything, everything[:0]
    from sklearn.model_selection import train_test_split  # late, as in `_measured`

    kept = int(np.ceil(fraction * len(targets)))
    needed = info.outputs if info.classifies else 1
    rarest = np.bincount(targets, minlength=needed).min() if info.classifies else 2
    if min(kept, len(targets) - kept) < needed or rarest < 2:
        raise BadInput(
            None,
            "data.test_fraction",
            f"{fraction:g} splits {len(targets)} samples into {len(targets) - kept} for training "
            f"and {kept} for testing, too few to have every class in both",
            "0 (no testing), another fraction, or more samples",
        )
    classes = targets if info.classifies else None
    train, test = train_test_split(everything, test_size=kept, stratify=classes, random_state=seed)
    return train, test
