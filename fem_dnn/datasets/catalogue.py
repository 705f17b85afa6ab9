"""The data sets that a case can name, and what suits them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fem_dnn.datasets import generators
from fem_dnn.datasets.generators import Generator

Task = Literal["binary", "multiclass", "regression", "transport"]

LOSSES: dict[Task, tuple[str, ...]] = {
    "binary": ("logistic", "softmax", "mse"),
    "multiclass": ("softmax", "mse"),
    "regression": ("mse",),
    "transport": ("l2", "mse"),
}
"""Losses that fit a task, the usual one first."""


@dataclass(frozen=True)
class DatasetInfo:
    """A data set.

    Attributes:
        name: Its name in a case file.
        description: One line.
        task: What is to be learned.
        features: Number of features.
        outputs: Classes, or numbers to predict.
        samples: Samples where none are asked for; all there are, of a measured set.
        noise: Noise where none is asked for; None for a measured set, to which none is added.
        embedding: Embedding where none is asked for.
        generator: Makes the samples; None for a measured set, which scikit-learn brings along.
        image_shape: Rows and columns, where the features are the pixels of a picture.
    """

    name: str
    description: str
    task: Task
    features: int
    outputs: int
    samples: int
    noise: float | None = None
    embedding: str = "modes"
    generator: Generator | None = None
    image_shape: tuple[int, int] | None = None

    @property
    def loss(self) -> str:
        """The usual loss."""
        return LOSSES[self.task][0]

    @property
    def classifies(self) -> bool:
        """Whether the targets are classes."""
        return self.task in ("binary", "multiclass")


def _made(
    description: str, generator: Generator, task: Task, features: int, outputs: int, noise: float
) -> DatasetInfo:
    return DatasetInfo(
        name=generator.__name__,
        description=description,
        task=task,
        features=features,
        outputs=outputs,
        samples=200,
        noise=noise,
        generator=generator,
    )


DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            "digits",
            "handwritten digits, pictures of 8 x 8 pixels",
            "multiclass",
            64,
            10,
            1797,
            embedding="pixels",
            image_shape=(8, 8),
        ),
        _made("two concentric circles", generators.circles, "binary", 2, 2, 0.1),
        _made("two interleaved half circles", generators.moons, "binary", 2, 2, 0.1),
        _made("two arms of a spiral, one turn", generators.spiral, "binary", 2, 2, 0.05),
        _made("a blob inside a ring", generators.donut, "binary", 2, 2, 0.1),
        _made("a 2 x 2 chequerboard", generators.squares, "binary", 2, 2, 0.1),
        DatasetInfo("iris", "three kinds of iris, from their leaves", "multiclass", 4, 3, 150),
        DatasetInfo("wine", "three wine growers, from chemical analyses", "multiclass", 13, 3, 178),
        DatasetInfo("breast_cancer", "tumours, malignant or benign", "binary", 30, 2, 569),
        DatasetInfo("diabetes", "progress of a disease over a year", "regression", 10, 1, 442),
        _made("one period of the sine and its mirror", generators.sine, "regression", 1, 1, 0.05),
        _made("points carried a quarter turn", generators.rotation, "transport", 2, 2, 0.0),
    )
}
"""The data sets, by name."""
