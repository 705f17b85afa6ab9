"""[network], [data], [loss], [regularization], [bounds]: the learning problem itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from fem_dnn.case.values import (
    BoxBounds,
    Control,
    Count,
    FieldText,
    Functions,
    NonNegative,
    Numbers,
    OutputFunctions,
    SampleWeights,
    Section,
    Seed,
    Targets,
    bad,
)
from fem_dnn.errors import shown


class Network(Section):
    """The state equation and its discretisation."""

    activation: Literal["tanh", "sigmoid", "relu", "softplus", "gelu", "linear"] = "tanh"
    """σ."""
    width_degree: Annotated[int, Field(ge=0, le=10)] = 0
    """Polynomial degree of the discontinuous width space; 0 to 3 on triangles and tetrahedra."""
    depth_scheme: Literal["resnet", "dg0", "dg1", "dg2"] = "dg1"
    """Scheme in depth: explicit Euler (the layered network), or discontinuous Galerkin."""
    kernel: Control = True
    """a: true: a control; false: absent; an expression in x, y, t or "file.npz:name" of shape
    (nodes, nodes) or (levels, nodes, nodes): given, not trained."""
    bias: Control = True
    """b: likewise, an expression in x, t, or an array (nodes,) or (levels, nodes)."""
    kernel_mask: FieldText | None = None
    """m(x, y), 0 or 1: which neurons may connect. An expression in x, y, or (nodes, nodes)."""


DATASET_OPTIONS = ("samples", "noise", "seed", "test_fraction", "embedding", "scaling")
"""Keys of [data] that speak about a named data set."""


class Data(Section):
    """Samples: either given functions (`inputs`, `targets`) or a named data set."""

    inputs: Functions | None = None
    """f_I: "file.npz:name" of shape (samples, nodes), or expressions in x, one per sample."""
    targets: Targets | None = None
    """l2: g, as inputs; mse: (samples, outputs); logistic: (samples,) of +1/-1; softmax:
    (samples,) class numbers. An array reference, or the numbers themselves."""
    tracking_targets: Functions | None = None
    """g(x, t) for the tracking term: expressions in x, t, one per sample, or an array
    (layers + 1, samples, nodes) at the slab ends. Default for l2: the targets."""
    weights: SampleWeights | None = None
    """w_s > 0, used as given. Default: 1/S each."""
    dataset: str | None = None
    """A named data set, instead of inputs and targets."""
    samples: Count | None = None
    """How many samples to take or make. Default: the data set's own."""
    noise: NonNegative | None = None
    """Standard deviation of the noise of a generated data set. Default: the data set's own."""
    seed: Seed = 0
    """Seed of generation and of the split into training and test samples."""
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Part of the samples that is kept for testing."""
    embedding: str | None = None
    """How features become a function on Y: modes, cells, pixels. Default: the data set's own."""
    scaling: Literal["standard", "none"] = "standard"
    """Scale every feature to mean 0 and variance 1 over the training samples, or not."""

    @field_validator("dataset", "embedding")
    @classmethod
    def _known(cls, value: str | None, info: Any) -> str | None:
        if value is None:
            return None
        # Imported here: only cases with a data set pay for it.
        from fem_dnn import datasets

        names = datasets.DATASETS if info.field_name == "dataset" else datasets.EMBEDDINGS
        if value not in names:
            noun = "a data set" if info.field_name == "dataset" else "an embedding"
            raise bad(f"{shown(value)} is not {noun}", ", ".join(names))
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.dataset is None) == (self.inputs is None):
            wrong = (
                "needs inputs or a data set"
                if self.inputs is None
                else ("has both inputs and a data set")
            )
            raise bad(wrong, "exactly one of data.inputs and data.dataset")
        if self.dataset is not None and self.targets is not None:
            raise bad("comes with the data set", "targets with inputs only", "targets")
        if self.dataset is None:
            fields = type(self).model_fields
            for option in DATASET_OPTIONS:
                if getattr(self, option) != fields[option].default:
                    raise bad("applies to a named data set", "with data.dataset only", option)
        return self


class Loss(Section):
    """The terminal loss ℓ and the tracking term."""

    kind: Literal["l2", "mse", "logistic", "softmax"] = "l2"
    """ℓ: l2 compares functions on Y, the others the outputs z_k = ∫ W_k f(T) dx + m_k."""
    weight: NonNegative = 1.0
    """Factor on the terminal loss."""
    outputs: OutputFunctions = ("1",)
    """W_k for mse, logistic, softmax: expressions in x, "file.npz:name" of shape
    (outputs, nodes), or "default": as many as the data need. softmax needs several, so there the
    default is "default"."""
    offsets: Numbers = ()
    """m_k, one per output; none given: 0."""
    train_outputs: bool = False
    """Learn W_k and m_k too, starting from these."""
    tracking: NonNegative = 0.0
    """μ."""

    @model_validator(mode="before")
    @classmethod
    def _several_outputs(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("kind") == "softmax":
            return {"outputs": "default", **values}
        return values


class Regularization(Section):
    """R(a, b)."""

    kernel: NonNegative = 1e-2
    """λ_a."""
    bias: NonNegative = 1e-2
    """λ_b."""
    kernel_depth: NonNegative = 0.0
    """γ_a: on the depth derivative of the kernel."""
    bias_depth: NonNegative = 0.0
    """γ_b: on the depth derivative of the bias."""
    kernel_width: NonNegative = 0.0
    """η_a: on the width gradient of the kernel. A masked kernel counts as 0 where it is masked: it
    pays for the jump there."""
    bias_width: NonNegative = 0.0
    """η_b: on the width gradient of the bias."""
    outputs: NonNegative = 1e-2
    """Half this times the squared L2 norm of W and m, where they are learned."""


class Bounds(Section):
    """Box bounds on the controls' nodal values; none unless given.

    Gradients, tolerances and curvature are then those of the problem within the bounds.
    """

    kernel: BoxBounds | None = None
    """[low, high] for a."""
    bias: BoxBounds | None = None
    """[low, high] for b."""
