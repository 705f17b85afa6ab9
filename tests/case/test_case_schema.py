"""The schema of case files: what the contract names is accepted, and every mistake is one line."""

import json
import math
import tomllib

import pytest
from cases import GOOD, changed

from fem_dnn.case import Case, require_given_controls, require_learning_problem
from fem_dnn.case.commands import Constant, Random, Zero
from fem_dnn.case.domain import GradedDepth, Interval, Rectangle, WidthFile
from fem_dnn.case.support import NOT_YET, require_supported
from fem_dnn.errors import BadInput


def refusal(**values):
    with pytest.raises(BadInput) as refused:
        Case.parse(changed(**values), "case.toml")
    text = str(refused.value)
    assert "\n" not in text
    return text


# what is right

CONTRACT = """
[mesh]
width = { shape = "interval", start = 0.0, length = 1.0, cells = 64 }
depth = { length = 1.0, cells = 32 }
[network]
activation = "tanh"
width_degree = 0
depth_scheme = "dg1"
kernel = true
bias = true
kernel_mask = "case.npz:mask"
[data]
inputs  = "case.npz:inputs"
targets = "case.npz:targets"
weights = "case.npz:weights"
[loss]
kind = "l2"
weight = 1.0
outputs = ["1"]
offsets = [0.0]
train_outputs = false
tracking = 0.0
[regularization]
kernel = 1e-2
bias = 1e-2
kernel_depth = 0.0
bias_depth = 0.0
kernel_width = 0.0
bias_width = 0.0
outputs = 1e-2
[bounds]
kernel = [-10.0, 10.0]
bias = [-10.0, 10.0]
[solver]
method = "newton"
rtol = 1e-8
atol = 1e-12
max_iterations = 500
escape = true
initial = { kind = "zero" }
nested = 0
[critical]
points = 5
starts = 10
seed = 0
scale = 1.0
distance = 1e-4
[path]
parameter = "regularization.kernel"
start = 1e-1
stop = 1e-3
max_points = 200
branch_switching = true
[value]
box = [[-3.0, 3.0]]
cells = 200
feedback = true
"""


def test_the_example_of_the_contract_is_a_case_and_shows_the_defaults():
    tables = tomllib.loads(CONTRACT)
    case = Case.model_validate(tables)
    bare = Case.model_validate({"mesh": tables["mesh"], "data": tables["data"]})
    for section in ("loss", "regularization", "solver", "critical", "path"):
        written, default = getattr(case, section), getattr(bare, section)
        same = default.model_dump() | {"offsets": (0.0,)} if section == "loss" else None
        if section == "solver":
            assert bare.initial == case.initial == Zero()
            same = default.model_dump() | {"initial": {"kind": "zero"}}
        assert written.model_dump() == (same or default.model_dump())
    assert case.bounds.kernel == (-10.0, 10.0)
    assert bare.bounds.kernel is None
    assert case.value.box == ((-3.0, 3.0),)


def test_forms_of_the_mesh():
    case = Case.parse(GOOD)
    assert case.mesh.width == Interval(shape="interval", length=1.0, cells=8)
    assert case.mesh.depth.slab_ends == (0.0, 0.25, 0.5, 0.75, 1.0)
    graded = Case.parse(changed(mesh__depth={"points": [0, 0.1, 0.5]}))
    assert graded.mesh.depth == GradedDepth(points=(0.0, 0.1, 0.5))
    assert graded.mesh.depth.slab_ends == (0.0, 0.1, 0.5)
    rectangle = {"shape": "rectangle", "length": [1, 2.0], "cells": [3, 4]}
    case = Case.parse(changed(mesh__width=rectangle, data__inputs=["x[1]", "0"]))
    assert case.mesh.width == Rectangle(shape="rectangle", length=(1.0, 2.0), cells=(3, 4))
    case = Case.model_validate(changed(mesh__width={"file": "disk.msh"}))
    assert case.mesh.width == WidthFile(file="disk.msh")


@pytest.mark.parametrize(
    "values",
    [
        {"network__kernel": False},
        {"network__kernel": "exp(-(x[0] - y[0])**2) * t"},
        {"network__kernel": "case.npz:kernel"},
        {"network__bias": 0.5},
        {"network__kernel_mask": "abs(x[0] - y[0]) < 0.25"},
        {"data__targets": [0, 1.5]},
        {"data__weights": [1, 2.5]},
        {"data__inputs": "folder/case.npz:inputs"},
        {"data__targets": None},
        {"loss__kind": "mse", "data__targets": [0.5, 1]},
        {"loss__kind": "mse", "data__targets": [[0, 1], [1, 0]], "loss__outputs": "default"},
        {"loss__kind": "mse", "data__targets": [[0, 1], [1, 0]], "loss__outputs": ["1", "x[0]"]},
        {"loss__kind": "logistic", "data__targets": [-1, 1]},
        {"loss__kind": "softmax", "data__targets": [0, 3]},
        {"loss__kind": "mse", "data__targets": "a.npz:y", "loss__tracking": 1.0,
         "data__tracking_targets": ["x[0]*t", "0"]},
        {"loss__tracking": 1},
        {"loss__outputs": ["1"], "loss__offsets": [0.0]},
        {"loss__outputs": "default"},
        {"loss__kind": "mse", "data__targets": [[0, 1], [1, 0]], "loss__outputs": ["1", "x[0]"],
         "loss__offsets": [0.0]},
        {"data__tracking_targets": ["t", "x[0]"]},
        {"network__kernel": "x[0]", "network__kernel_mask": "x[0] < y[0]"},
        {"network__bias": False, "solver__initial": {"kind": "constant"}},
        {"network__kernel": False, "solver__initial": {"kind": "constant", "bias": 0.7}},
        {"network__kernel": "0", "network__bias": "0",
         "solver__initial": {"kind": "constant", "kernel": 0.7, "bias": 0.7}},
        {"solver__initial": {"kind": "random", "seed": 3, "scale": 0.1}},
        {"solver__initial": {"kind": "file", "path": "result/solution.npz"}},
        {"path__parameter": "mesh.depth.length"},
        {"path__parameter": "loss.tracking", "path__stop": 0.0},
    ],
)  # fmt: skip
def test_accepted(values):
    case = Case.parse(changed(**values), "case.toml")
    copy = Case.parse(json.loads(json.dumps(case.as_dict(), allow_nan=False)), "case.toml")
    assert copy == case


def test_numbers_become_floats_and_constants_become_expressions():
    case = Case.parse(changed(mesh__width__length=2, network__bias=1))
    assert type(case.mesh.width.length) is float
    assert case.network.bias == "1.0"
    assert case.expression("network.bias", case.network.bias, ("x", "t")).evaluate() == 1.0


def test_initial_guess_follows_the_activation():
    assert Case.parse(GOOD).initial == Zero()
    relu = Case.parse(changed(network__activation="relu"))
    assert relu.initial == Constant(kernel=0.0, bias=0.1)
    case = Case.parse(
        changed(network__activation="relu", solver__initial={"kind": "random", "seed": 7})
    )
    assert case.initial == Random(seed=7, scale=1.0)


def test_softmax_has_several_outputs_by_default():
    softmax = changed(loss__kind="softmax", data__targets=[0, 2])
    assert Case.parse(softmax).loss.outputs == "default"
    mse = changed(loss__kind="mse", data__targets=[0, 2])
    assert Case.parse(mse).loss.outputs == ("1",)


def test_one_sided_bounds_survive_json():
    tables = changed(bounds__kernel=[0.0, math.inf], bounds__bias=[-math.inf, 1])
    case = Case.model_validate(tables)
    assert case.bounds.kernel == (0.0, math.inf)
    stored = json.loads(json.dumps(case.as_dict(), allow_nan=False))
    assert Case.model_validate(stored) == case


def test_with_value_and_number():
    case = Case.parse(GOOD, "case.toml", "folder")
    other = case.with_value("regularization.kernel", 0.25)
    assert other.number("regularization.kernel") == 0.25
    assert case.number("regularization.kernel") == 0.01
    assert other.folder == case.folder
    with pytest.raises(BadInput, match=r"case.toml: mesh.width.length: -1.0 is not > 0"):
        case.with_value("mesh.width.length", -1.0)
    for key in ("mesh.width.cells", "mesh.width", "network.activation", "nothing", "loss._file"):
        with pytest.raises(BadInput, match="is not a real number of the case"):
            case.number(key)


# what is wrong


@pytest.mark.parametrize(
    ("values", "says"),
    [
        # unknown keys
        ({"network__activaton": "tanh"}, "network.activaton: is not a key (did you mean "
         "network.activation?); allowed: activation, width_degree, depth_scheme"),
        ({"dta": {}}, "dta: is not a key (did you mean data?); allowed: mesh, network, data"),
        ({"dta": {}, "data": None}, "dta: is not a key (did you mean data?)"),
        ({"solver__kernel_depth": 1.0}, "(did you mean regularization.kernel_depth?)"),
        ({"mesh__width__lenght": 1.0}, "did you mean mesh.width.length?); allowed: shape, start"),
        ({"mesh__width": {"file": "a.msh", "cells": 3}}, "mesh.width.cells: is not a key; "
         "allowed: file"),
        ({"solver__initial": {"kind": "zero", "seed": 3}}, "solver.initial.seed: is not a key; "
         "allowed: kind"),
        ({"two\nlines": 1}, "two lines: is not a key"),
        # missing
        ({"mesh": None}, "mesh: is missing"),
        ({"data": None}, "data: is missing"),
        ({"mesh__width": None}, "mesh.width: is missing"),
        ({"mesh__width__cells": None}, "mesh.width.cells: is missing"),
        ({"mesh__width__shape": None}, "mesh.width.shape: is missing; allowed: interval, rect"),
        ({"mesh__depth__length": None}, "mesh.depth.length: is missing"),
        ({"solver__initial": {"kind": "file"}}, "solver.initial.path: is missing"),
        # names
        ({"network__activation": "tanhh"}, 'network.activation: "tanhh" is not an activation; '
         "allowed: tanh, sigmoid, relu, softplus, gelu, linear"),
        ({"network__depth_scheme": "dg3"}, "allowed: resnet, dg0, dg1, dg2"),
        ({"loss__kind": "hinge"}, "allowed: l2, mse, logistic, softmax"),
        ({"solver__method": "adam"}, "allowed: newton, all-at-once, lbfgs, sweep, layerwise"),
        ({"solver__initial": {"kind": "ones"}}, "allowed: zero, constant, random, file"),
        ({"mesh__width__shape": "disk"}, 'mesh.width.shape: "disk" is not a shape; allowed: int'),
        ({"mesh__width__shape": ["disk"]}, '["disk"] is not a shape'),
        # types
        ({"mesh": 3}, "mesh: 3 is not a table"),
        ({"mesh__width": "interval"}, 'mesh.width: "interval" is not a table'),
        ({"mesh__depth": 1.0}, "mesh.depth: 1.0 is not a table"),
        ({"mesh__width__length": "long"}, 'mesh.width.length: "long" is not a number'),
        ({"mesh__width__length": True}, "mesh.width.length: true is not a number"),
        ({"mesh__width__cells": True}, "mesh.width.cells: true is not an integer"),
        ({"mesh__width__cells": 8.0}, "mesh.width.cells: 8.0 is not an integer"),
        ({"solver__escape": 1}, "solver.escape: 1 is not a truth value; allowed: true, false"),
        ({"solver__initial": "zero"}, 'solver.initial: "zero" is not a table'),
        ({"network__kernel": [1]}, "network.kernel: [1] is not an expression; allowed: true, fa"),
        ({"network__kernel_mask": True}, "network.kernel_mask: true is not an expression"),
        ({"data__dataset": 3, "data__inputs": None}, "data.dataset: 3 is not text"),
        ({"loss__offsets": 0.0}, "loss.offsets: 0.0 is not a list"),
        # numbers
        ({"mesh__width__length": -1.0}, "mesh.width.length: -1.0 is not > 0; allowed: numbers > 0"),
        ({"mesh__width__length": math.nan}, "mesh.width.length: NaN is not finite"),
        ({"mesh__depth__length": math.inf}, "mesh.depth.length: Infinity is not finite"),
        ({"mesh__depth__cells": 0}, "mesh.depth.cells: 0 is not >= 1"),
        ({"mesh__depth__cells": 10**9}, "is not <= 10000000"),
        ({"network__width_degree": -1}, "network.width_degree: -1 is not >= 0"),
        ({"network__bias": math.nan}, "network.bias: NaN is not an expression"),
        ({"regularization__kernel": -1e-3}, "regularization.kernel: -0.001 is not >= 0"),
        ({"solver__rtol": 1.0}, "solver.rtol: 1.0 is not < 1"),
        ({"solver__initial": {"kind": "random", "seed": -1}}, "initial.seed: -1 is not >= 0"),
        ({"critical__distance": 0.0}, "critical.distance: 0.0 is not > 0"),
        ({"data__weights": [1, 0]}, "data.weights: 0 is not a positive number"),
        ({"loss__offsets": [math.nan]}, "loss.offsets[0]: NaN is not finite"),
        # lists
        ({"mesh__width": {"shape": "rectangle", "length": [1.0], "cells": [2, 2]}},
         "mesh.width.length: [1.0] is too short"),
        ({"mesh__width": {"shape": "rectangle", "length": [1, 2, 3], "cells": [2, 2]}},
         "mesh.width.length: [1, 2, 3] has 3 entries"),
        ({"mesh__width": {"shape": "rectangle", "length": [1, -2], "cells": [2, 2]}},
         "mesh.width.length[1]: -2 is not > 0"),
        ({"mesh__depth": {"points": [0, 0.5, 0.5]}}, "mesh.depth.points: [0.0, 0.5, 0.5] does not"),
        ({"mesh__depth": {"points": [0.1, 0.5]}}, "mesh.depth.points: [0.1, 0.5] does not start"),
        ({"mesh__depth": {"points": [0]}}, "mesh.depth.points: [0.0] does not"),
        ({"mesh__depth": {"points": [0, "a"]}}, 'mesh.depth.points[1]: "a" is not a number'),
        ({"bounds__kernel": [1, 0]}, "bounds.kernel: [1, 0] is not increasing"),
        ({"bounds__kernel": [0, math.nan]}, "bounds.kernel: [0, NaN] is not a pair of numbers"),
        ({"bounds__kernel": 1.0}, "bounds.kernel: 1.0 is not a pair of numbers"),
        ({"value__box": [[1, 0]]}, "value.box: [1.0, 0.0] is empty"),
        ({"value__box": [[0, 1]] * 4}, "has 4 entries"),
        # expressions and references
        ({"network__kernel": "x[1]"}, 'network.kernel: "x[1]" is not a coordinate; allowed: x[0]'),
        ({"network__bias": "y[0]"}, 'network.bias: "y" is not known here'),
        ({"network__bias": "__import__('os')"}, "network.bias: "),
        ({"network__kernel": "a.h5:k"}, '"a.h5:k" is neither an expression nor an array'),
        ({"data__inputs": ["x[0]", "t"]}, 'data.inputs[1]: "t" is not known here'),
        ({"data__inputs": "x[0]"}, 'data.inputs: "x[0]" is not "file.npz:name"; allowed: a list'),
        ({"data__inputs": []}, "data.inputs: [] is not a list with something in it"),
        ({"data__targets": [[1, "a"]]}, "data.targets: "),
        ({"data__targets": [[1, 2], [3]]}, "is not a table of finite numbers"),
        ({"loss__outputs": "default()", "loss__kind": "mse"}, 'loss.outputs: "default()" is not'),
        # relations
        ({"data__inputs": None}, "data: needs inputs or a data set; allowed: exactly one"),
        ({"data__dataset": "circles"}, "data: has both inputs and a data set"),
        ({"data__noise": 0.1}, "data.noise: applies to a named data set"),
        ({"data__targets": ["0"]}, "data.targets: has 1 entries for 2 inputs"),
        ({"data__weights": [1.0]}, "data.weights: has 1 entries for 2 inputs"),
        ({"data__targets": None, "data__weights": [1.0]}, "data.weights: has 1 entries"),
        ({"mesh__depth__points": [0, 1]}, "mesh.depth.cells: cannot be given together with mesh.d"),
        ({"loss__kind": "mse"}, "does not fit loss mse; allowed: "),
        ({"data__targets": [[1, 2], [3, 4]]}, "does not fit loss l2"),
        ({"loss__kind": "mse", "data__targets": [[0, 1], [1, 0]]}, "2 numbers per sample for 1 ou"),
        ({"loss__kind": "logistic", "data__targets": [0, 1]}, "data.targets: 0.0 is not a label"),
        ({"loss__kind": "logistic", "data__targets": [1, 1], "loss__outputs": ["1", "x"]},
         "loss.outputs: has 2 entries; allowed: one output for logistic"),
        ({"loss__kind": "softmax", "data__targets": [0, 1.5]}, "1.5 is not a class number"),
        ({"loss__kind": "softmax", "data__targets": [0, -1]}, "-1.0 is not a class number"),
        ({"loss__kind": "softmax", "data__targets": [0, 1], "loss__outputs": ["1"]},
         "loss.outputs: has one entry; allowed: two or more for softmax"),
        ({"loss__kind": "mse", "data__targets": [0, 1], "loss__offsets": [0, 1]},
         "loss.offsets: has 2 entries; allowed: 1, one per output"),
        ({"loss__train_outputs": True}, "loss.train_outputs: has no meaning for loss l2"),
        ({"loss__outputs": ["x[0]"]}, "loss.outputs: has no meaning for loss l2"),
        ({"loss__offsets": [1.0]}, "loss.offsets: has no meaning for loss l2"),
        ({"loss__kind": "mse", "data__targets": "a.npz:y", "loss__outputs": ["1", "x[0]", "2"],
          "loss__offsets": [0, 0]}, "loss.offsets: has 2 entries; allowed: 3, one per output"),
        ({"network__kernel": False, "network__kernel_mask": "a.npz:m"},
         "network.kernel_mask: masks a kernel that is absent; allowed: no mask, or"),
        ({"network__kernel": False, "solver__initial": {"kind": "constant", "kernel": 0.5}},
         "solver.initial.kernel: is a guess of a kernel that is not trained; allowed: 0.0, or"),
        ({"network__bias": "t", "solver__initial": {"kind": "constant", "bias": 0.5}},
         "solver.initial.bias: is a guess of a bias that is not trained; allowed: 0.0, or"),
        ({"loss__kind": "mse", "data__targets": [0, 1], "loss__tracking": 0.5},
         "data.tracking_targets: is missing, but loss.tracking is 0.5"),
        ({"network__kernel": "1", "bounds__kernel": [0, 1]}, "bounds.kernel: bounds a kernel that"),
        ({"network__bias": False, "bounds__bias": [1, 2]},
         "bounds.bias: [1.0, 2.0] excludes 0, which a bias that is absent amounts to; allowed: no"),
        ({"path__parameter": "regularization.kernl"}, "path.parameter: "),
        ({"path__parameter": "mesh.depth.cells"}, '"mesh.depth.cells" is not a real number'),
        ({"path__stop": -1.0}, "path.stop: -1.0 is no value for regularization.kernel: -1.0 is"),
        ({"path__start": 1e-3}, "path.stop: 0.001 is also path.start"),
    ],
)  # fmt: skip
def test_refused(values, says):
    text = refusal(**values)
    assert text.startswith("case.toml: ")
    assert says in text


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"dataset": "circle"}, 'data.dataset: "circle" is not a data set; allowed: '),
        ({"dataset": "circles", "embedding": "mode"}, 'data.embedding: "mode" is not an embedding'),
        ({"dataset": "circles", "scaling": "minmax"}, "allowed: standard, none"),
        ({"dataset": "circles", "test_fraction": 1.0}, "data.test_fraction: 1.0 is not < 1"),
        ({"dataset": "circles", "noise": -0.1}, "data.noise: -0.1 is not >= 0"),
        ({"dataset": "circles", "samples": 0}, "data.samples: 0 is not >= 1"),
        ({"dataset": "circles", "seed": 2**32}, "data.seed: 4294967296 is not < 4294967296"),
        ({"dataset": "circles", "targets": "a.npz:y"}, "data.targets: comes with the data set"),
    ],
)
def test_refused_of_data_sets(values, says):
    assert says in refusal(data=values)


# what the commands need


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"network__bias": False},
            "case.toml: network.kernel: is true, but a forward solve trains",
        ),
        ({"network__kernel": "x[0]"}, "case.toml: network.bias: is true, but a forward solve"),
    ],
)
def test_forward_needs_given_controls(values, says):
    with pytest.raises(BadInput) as refused:
        require_given_controls(Case.parse(changed(**values), "case.toml"))
    assert says in str(refused.value)
    require_given_controls(Case.parse(changed(network__kernel="x[0]", network__bias=False)))


def test_solve_needs_targets_and_something_to_train():
    require_learning_problem(Case.parse(GOOD))
    with pytest.raises(BadInput, match=r"case.toml: data.targets: is missing; allowed: "):
        require_learning_problem(Case.parse(changed(data__targets=None), "case.toml"))
    with pytest.raises(BadInput, match="network: has nothing to train"):
        require_learning_problem(Case.parse(changed(network__kernel="1", network__bias=False)))


# what cannot be done yet

ASKED = {
    "bounds": {"bounds__kernel": [-1, 1], "solver__method": "all-at-once"},
}


@pytest.mark.parametrize("key", [key for key, _, _ in NOT_YET])
def test_what_is_not_supported_is_refused_by_name(key):
    assert refusal(**ASKED[key]).startswith(f"case.toml: {key}: is not supported yet; allowed: ")
    # the schema itself has no objection
    case = Case.model_validate(changed(**ASKED[key]))
    with pytest.raises(BadInput):
        require_supported(case)
