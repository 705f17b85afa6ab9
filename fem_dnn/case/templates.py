"""The commented case file that `fem-dnn init [DATASET]` writes, set up to suit the data."""

from __future__ import annotations

from dataclasses import dataclass

from fem_dnn.errors import BadInput, shown

_INTERVAL = '{ shape = "interval", length = 1.0, cells = 32 }'
_DIGITS_SQUARE = '{ shape = "rectangle", length = [1.0, 1.0], cells = [8, 8] }'


@dataclass(frozen=True)
class Recipe:
    """Settings that suit a data set, each tried.

    Attributes:
        loss: Kind of loss.
        embedding: How its features become a function on Y.
        width: Width domain, in TOML.
        depth: T.
        layers: Number of layers.
        generated: Number of samples and noise, for sets that are made rather than loaded.
        penalty: Tikhonov weight of kernel, bias and outputs.
        train_outputs: Whether the output layer is learned.
    """

    loss: str
    embedding: str = "modes"
    width: str = _INTERVAL
    depth: float = 4.0
    layers: int = 8
    generated: tuple[int, float] | None = None
    penalty: float = 1e-2
    train_outputs: bool = False


RECIPES: dict[str, Recipe] = {
    "circles": Recipe("logistic", generated=(300, 0.1)),
    "moons": Recipe("logistic", generated=(300, 0.1)),
    "spiral": Recipe("logistic", generated=(300, 0.05)),
    "donut": Recipe("logistic", generated=(300, 0.05)),
    "squares": Recipe("logistic", generated=(300, 0.05)),
    "sine": Recipe("mse", generated=(300, 0.05), penalty=1e-4, train_outputs=True),
    "rotation": Recipe("l2", generated=(100, 0.0), penalty=1e-3),
    "digits": Recipe("softmax", "pixels", width=_DIGITS_SQUARE, depth=3.0, layers=4),
    "iris": Recipe("softmax"),
    "wine": Recipe("softmax"),
    "breast_cancer": Recipe("logistic"),
    "diabetes": Recipe("mse", penalty=0.3),
}
"""The data sets that `init` knows how to set up."""


def template(dataset: str = "circles") -> str:
    """A complete, commented case file that can be solved as it is.

    Args:
        dataset: A key of `RECIPES`.

    Raises:
        BadInput: No such data set.
    """
    if dataset not in RECIPES:
        raise BadInput(None, None, f"{shown(dataset)} is not a data set", ", ".join(RECIPES))
    recipe = RECIPES[dataset]
    return _TEMPLATE.format(
        dataset=dataset,
        generated=_generated(recipe),
        loss=recipe.loss,
        embedding=recipe.embedding,
        width=recipe.width,
        depth=recipe.depth,
        layers=recipe.layers,
        penalty=recipe.penalty,
        train_outputs="true" if recipe.train_outputs else "false",
    )


def _generated(recipe: Recipe) -> str:
    if recipe.generated is None:
        return "# samples = 100             # take only so many; default: all"
    samples, noise = recipe.generated
    return (
        f"samples = {samples}\n"
        f"noise = {noise:<19} # standard deviation of the noise added to the features"
    )


_TEMPLATE = """\
# A case of fem-dnn. Solve it with     fem-dnn solve CASE.toml --out RESULT_DIR
# Any key can be overridden there:     --set network.activation=relu
# Keys that are commented out show their default, or an example where the default is none.

[mesh]                      # the depth-width cylinder Y x (0, T)
width = {width}
# or {{ shape = "rectangle", length = [1.0, 1.0], cells = [8, 8] }}
depth = {{ length = {depth}, cells = {layers} }}   # the layers; or {{ points = [0.0, 0.1, 0.3] }}

[network]                   # f_t = activation( integral over Y of kernel * f + bias )
activation = "tanh"         # tanh | sigmoid | relu | softplus | gelu | linear
width_degree = 0            # polynomial degree of the discontinuous width space
depth_scheme = "resnet"     # resnet (the layered network itself) | dg0 | dg1 | dg2
kernel = true               # true: trained; false: absent; "expression in x, y, t" or
                            # "file.npz:name": given
bias = true                 # likewise, an expression in x, t
# kernel_mask = "abs(x[0] - y[0]) < 0.25"   # which neurons may connect; default: all

[data]
dataset = "{dataset}"
{generated}
seed = 0                    # of generation and of the split
test_fraction = 0.2         # part of the samples kept for testing
embedding = "{embedding}"   # how features become a function on Y: modes | cells | pixels
scaling = "standard"        # features to mean 0 and variance 1; or "none"
# Your own data instead of a data set:
# inputs = "case.npz:inputs"                # (samples, nodes), or expressions in x, one per sample
# targets = "case.npz:targets"              # l2: as inputs; mse: (samples, outputs);
#                                           # logistic: +1/-1; softmax: class numbers
# tracking_targets = "case.npz:tracking"    # (layers + 1, samples, nodes), where tracking > 0
# weights = "case.npz:weights"              # sample weights; default 1/S each

[loss]
kind = "{loss}"             # l2 | mse | logistic | softmax
weight = 1.0                # factor on the terminal loss
outputs = "default"         # W_k(x): as many as the data need; or expressions in x
# offsets = [0.0]           # m_k, one per output; default 0
train_outputs = {train_outputs}       # learn W_k and m_k too
tracking = 0.0              # mu

[regularization]            # halves of these times the squared L2 norms
kernel = {penalty}
bias = {penalty}
outputs = {penalty}             # of W and m, where they are learned
# kernel_depth = 0.0        # of the depth derivatives
# bias_depth = 0.0
# kernel_width = 0.0        # of the width gradients
# bias_width = 0.0

# [bounds]                  # box bounds on the controls; default: none
# kernel = [-10.0, 10.0]
# bias = [-10.0, 10.0]

[solver]
method = "newton"           # newton | all-at-once | lbfgs | sweep | layerwise | gradient
rtol = 1e-6                 # on the L2 norm of the gradient, relative to the initial guess
atol = 1e-12
max_iterations = 500
escape = true               # leave saddles along negative curvature
# initial = {{ kind = "zero" }}   # or constant (kernel, bias), random (seed, scale), file (path)
# representation = "auto"   # auto | dense | gram (cost linear in the width; newton)
# sample_groups = "auto"    # of ranks, under MPI; auto: as many as cost the least exchange
# memory_gb = 4.0           # what a rank may take: of more, samples go a portion at a time
# nested = 0                # coarser meshes to solve on first

# [critical]                # for `fem-dnn critical`
# points = 5                # stop after this many distinct points
# starts = 10               # random starts besides the initial one
# seed = 0
# scale = 1.0
# distance = 1e-4           # points closer than this in L2, relative, are the same

# [path]                    # for `fem-dnn path`
# parameter = "regularization.kernel"
# start = 0.1
# stop = 0.001
# max_points = 200
# branch_switching = true

# [value]                   # for `fem-dnn value`: samples x nodes <= 3
# box = [[-3.0, 3.0]]       # one pair per state dimension; default: chosen
# cells = 200
# feedback = true
"""
