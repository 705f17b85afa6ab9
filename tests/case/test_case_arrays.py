"""Arrays that a case names: loaded, checked, never unpickled; functions evaluated on the nodes."""

import pickle

import numpy as np
import pytest
from cases import changed

from fem_dnn.case import Case, field_array, functions_array, load_array
from fem_dnn.errors import BadInput

SAMPLES_NODES = {("samples", "nodes"): (None, 8)}


class Explosive:
    """Unpickling this would raise."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was read",))


@pytest.fixture
def folder(tmp_path):
    np.savez(
        tmp_path / "case.npz",
        inputs=np.arange(16).reshape(2, 8),
        mask=np.eye(8, dtype=bool),
        wide=np.zeros((2, 9)),
        hole=np.where(np.arange(16) == 11, np.nan, 1.0).reshape(2, 8),
        endless=np.full((2, 8), np.inf),
        text=np.array(["a", "b"]),
        complex=np.ones((2, 8), dtype=complex),
        objects=np.array([Explosive(), None], dtype=object),
    )
    np.save(tmp_path / "inputs.npy", np.ones((2, 8), dtype=np.float32))
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps(Explosive()))
    whole = (tmp_path / "case.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "folder.npz").mkdir()
    return tmp_path


def test_integers_and_truth_values_become_float64(folder):
    inputs = load_array("case.npz:inputs", folder, "data.inputs", SAMPLES_NODES)
    assert inputs.dtype == np.float64
    np.testing.assert_array_equal(inputs, np.arange(16.0).reshape(2, 8))
    mask = load_array("case.npz:mask", folder, "network.kernel_mask")
    np.testing.assert_array_equal(mask, np.eye(8))


def test_a_single_array_needs_no_name(folder):
    inputs = load_array("inputs.npy", folder, "data.inputs", SAMPLES_NODES)
    np.testing.assert_array_equal(inputs, np.ones((2, 8)))


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("none.npz:inputs", "cannot be read (No such file or directory)"),
        ("folder.npz:inputs", "cannot be read (Is a directory)"),
        ("case.npz:input", 'has no array "input"; allowed: case.npz:inputs, case.npz:mask'),
        ("case.npz", "holds several arrays; allowed: case.npz:inputs, case.npz:mask"),
        ("inputs.npy:inputs", "names an array in a file that holds only one"),
        ("case.npz:wide", "has shape (2, 9); allowed: (samples, nodes) = (any, 8)"),
        ("case.npz:hole", "is nan at index (1, 3); allowed: finite numbers"),
        ("case.npz:endless", "is inf at index (0, 0)"),
        ("case.npz:text", "instead of numbers; allowed: an array of real numbers"),
        ("case.npz:complex", "holds complex128 instead of numbers"),
        ("case.npz:objects", "is not an array of numbers"),
        ("text.npz:inputs", "is not an array of numbers"),
        ("empty.npz:inputs", "is not an array of numbers"),
        ("cut.npz:inputs", "is not an array of numbers"),
        ("pickle.npy", "is not an array of numbers"),
        ("case.txt", '"case.txt" is not an array file'),
    ],
)
def test_refused(folder, reference, says):
    with pytest.raises(BadInput) as refused:
        load_array(reference, folder, "data.inputs", SAMPLES_NODES, file="case.toml")
    text = str(refused.value)
    assert text.startswith("case.toml: data.inputs: ")
    assert says in text
    assert "\n" not in text


def test_one_of_several_shapes(folder):
    shapes = {("nodes", "nodes"): (8, 8), ("levels", "nodes", "nodes"): (4, 8, 8)}
    load_array("case.npz:mask", folder, "network.kernel", shapes)
    with pytest.raises(BadInput, match=r"allowed: \(nodes, nodes\) = \(8, 8\) or \(levels, nodes,"):
        load_array("case.npz:inputs", folder, "network.kernel", shapes)
    with pytest.raises(BadInput, match=r"allowed: \(samples,\) = \(2,\)"):
        load_array("case.npz:inputs", folder, "data.weights", {("samples",): (2,)})


X = (np.arange(8)[:, None] + 0.5) / 8


def test_functions_from_expressions_and_from_files(folder):
    case = Case.parse(changed(data__inputs=["x[0]**2", "1"]), "case.toml", folder)
    values = functions_array(case, "data.inputs", case.data.inputs, x=X)
    np.testing.assert_allclose(values, [X[:, 0] ** 2, np.ones(8)], rtol=1e-15)
    values = functions_array(case, "data.inputs", "case.npz:inputs", x=X)
    np.testing.assert_array_equal(values, np.arange(16.0).reshape(2, 8))
    with pytest.raises(
        BadInput, match=r"case.toml: data.targets: .* \(samples, nodes\) = \(3, 8\)"
    ):
        functions_array(case, "data.targets", "case.npz:inputs", x=X, count=3)
    with pytest.raises(BadInput, match=r"data.targets: has 2 entries; allowed: 3 \(samples\)"):
        functions_array(case, "data.targets", ("0", 1.5), x=X, count=3)
    constants = functions_array(case, "data.targets", (0.25, -1.5), x=X)
    np.testing.assert_array_equal(constants, [[0.25] * 8, [-1.5] * 8])
    with pytest.raises(BadInput, match=r'case.toml: data.inputs\[0\]: "log\(x\[0\] - 1\)" is nan'):
        functions_array(case, "data.inputs", ("log(x[0] - 1)",), x=X)


def test_fields_from_expressions_and_from_files(folder):
    case = Case.parse(changed(), "case.toml", folder)
    x, y, t = X[:, None], X[None], np.array([0.0, 0.5, 1.0])[:, None, None]
    shapes = {("nodes", "nodes"): (8, 8)}
    kernel = field_array(case, "network.kernel", "x[0] - y[0]*t", shapes, x=x, y=y, t=t)
    np.testing.assert_allclose(kernel, X - t * X.T, rtol=1e-15)
    mask = field_array(case, "network.kernel_mask", "x < y", shapes, x=x, y=y)
    np.testing.assert_array_equal(mask, np.triu(np.ones((8, 8)), 1))
    np.testing.assert_array_equal(
        field_array(case, "network.kernel_mask", "case.npz:mask", shapes, x=x, y=y), np.eye(8)
    )
    with pytest.raises(BadInput, match=r'network.kernel_mask: "t" is not known here'):
        field_array(case, "network.kernel_mask", "t", shapes, x=x, y=y)
