"""Data sets, their scaling, and how features become functions on the width domain.

Importing this package reads names only; scikit-learn is imported when data are loaded.
"""

from fem_dnn.datasets.catalogue import DATASETS, LOSSES, DatasetInfo
from fem_dnn.datasets.embeddings import EMBEDDINGS, EmbeddingInfo, embed
from fem_dnn.datasets.loading import Dataset, load
from fem_dnn.datasets.preparation import EmbeddedDataset, default_outputs, prepare
from fem_dnn.datasets.scaling import Scaling

__all__ = [
    "DATASETS",
    "EMBEDDINGS",
    "LOSSES",
    "Dataset",
    "DatasetInfo",
    "EmbeddedDataset",
    "EmbeddingInfo",
    "Scaling",
    "default_outputs",
    "embed",
    "load",
    "prepare",
]
