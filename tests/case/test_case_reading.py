"""Reading case files: TOML, overrides, other ranks, templates, and the reference."""

import subprocess
import sys
from pathlib import Path

import pytest
from cases import GOOD

from fem_dnn.case import Case, read_case, read_case_collectively, template
from fem_dnn.case.reference import reference
from fem_dnn.case.templates import RECIPES
from fem_dnn.collective import on_root
from fem_dnn.errors import BadInput

TEXT = """
[mesh]
width = { shape = "interval", length = 1.0, cells = 8 }
depth = { length = 1.0, cells = 4 }
[data]
inputs = ["x[0]", "1"]
targets = ["0", "x[0]**2"]
"""


@pytest.fixture
def case_file(tmp_path):
    path = tmp_path / "case.toml"
    path.write_text(TEXT)
    return path


def refusal(path, *overrides):
    with pytest.raises(BadInput) as refused:
        read_case(path, overrides)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_reads_what_is_written(case_file, tmp_path):
    case = read_case(case_file)
    assert case.as_dict() == Case.parse(GOOD).as_dict()
    assert case.folder == tmp_path
    assert case.file == str(case_file)


# overrides


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("mesh.width.cells=128", ("mesh", "width", "cells"), 128),
        ("regularization.kernel=1e-3", ("regularization", "kernel"), 1e-3),
        ("network.activation=relu", ("network", "activation"), "relu"),
        ('network.activation="relu"', ("network", "activation"), "relu"),
        ("network.kernel = false", ("network", "kernel"), False),
        ("network.kernel=x[0]*y[0] + t", ("network", "kernel"), "x[0]*y[0] + t"),
        ("network.bias=x[0] == 0.5", ("network", "bias"), "x[0] == 0.5"),
        ('data.inputs=["x[0]**2", "1"]', ("data", "inputs"), ["x[0]**2", "1"]),
        ("data.inputs=other.npz:f", ("data", "inputs"), "other.npz:f"),
        ("mesh.depth={ points = [0.0, 0.5] }", ("mesh", "depth"), {"points": [0.0, 0.5]}),
    ],
)
def test_override(case_file, override, key, value):
    found = read_case(case_file, [override]).as_dict()
    for part in key:
        found = found[part]
    assert found == value


def test_the_last_override_wins(case_file):
    case = read_case(case_file, ["loss.weight=2", "loss.weight=3"])
    assert case.loss.weight == 3.0


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("network.activation=tanhh", '--set: network.activation: "tanhh" is not an activation'),
        ("network.activaton=tanh", "--set: network.activaton: is not a key (did you mean"),
        ("mesh.width.cells=-1", "--set: mesh.width.cells: -1 is not >= 1"),
        (
            "mesh.depth.points=[0, 1]",
            "--set: mesh.depth.cells: cannot be given together with mesh.",
        ),
        ("data.dataset=circles", "--set: data: has both inputs and a data set"),
        ("mesh.width.cells.x=1", "--set: mesh.width.cells.x: mesh.width.cells is not a table"),
        ("network.kernel=foo(x)", '--set: network.kernel: "foo" is not known here'),
        ("data.inputs=['foo', 'x']", '--set: data.inputs[0]: "foo" is not known here'),
        ("network.bias=1\nkernel = false", "--set: network.bias: "),
        ("mesh.width.cells", '--set: "mesh.width.cells" is not an override; allowed: section.key='),
        ("=1", '--set: "=1" is not an override'),
        ("a..b=1", '--set: "a..b=1" is not an override'),
    ],
)
def test_an_override_s_error_names_the_option(case_file, override, says):
    assert refusal(case_file, override).startswith(says)


def test_an_error_of_the_file_names_the_file_even_with_overrides(case_file):
    case_file.write_text(TEXT.replace("cells = 4", "cells = 0"))
    assert refusal(case_file, "loss.weight=2").startswith(f"{case_file}: mesh.depth.cells: 0")
    assert read_case(case_file, ["mesh.depth.cells=3"]).mesh.depth.cells == 3


# files that are no cases


def test_missing_file(tmp_path):
    path = tmp_path / "none.toml"
    assert refusal(path).startswith(f"{path}: cannot be read (No such file or directory)")
    assert refusal(tmp_path).startswith(f"{tmp_path}: cannot be read (Is a directory)")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[mesh\nwidth = 3", "is not TOML: "),
        (b"[mesh]\nwidth = \n", "at line 2"),
        (b"[mesh]\n[mesh]\n", "at line 2"),
        (b"\xff\xfe\x00", "is not text in UTF-8"),
        (b"", "mesh: is missing"),
        (b"a = " + b"[" * 100_000, "case.toml: is n"),
    ],
)
def test_files_that_are_not_toml(tmp_path, content, says):
    path = tmp_path / "case.toml"
    path.write_bytes(content)
    assert says in refusal(path)


# MPI


class Rank:
    """One of two ranks, played one after the other: rank 1 hears what rank 0 said."""

    said = None

    def __init__(self, rank):
        self.rank = rank

    def bcast(self, obj, root=0):
        if self.rank == root:
            Rank.said = obj
        return Rank.said


def test_other_ranks_do_not_touch_the_file(case_file):
    first = read_case_collectively(Rank(0), case_file)
    case_file.unlink()
    assert read_case_collectively(Rank(1), case_file) == first


def test_all_ranks_raise_whatever_rank_0_raises(case_file):
    for rank in (0, 1):
        with pytest.raises(BadInput, match=r"--set: loss.weight: -1 is not >= 0"):
            read_case_collectively(Rank(rank), case_file, ["loss.weight=-1"])
    for rank in (0, 1):
        with pytest.raises(ZeroDivisionError):
            on_root(Rank(rank), lambda: 1 / 0)


@pytest.mark.mpi
def test_reading_collectively(tmp_path_factory):
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    folder = comm.bcast(str(tmp_path_factory.mktemp("mpi")) if comm.rank == 0 else None)
    path = Path(folder) / "case.toml"
    if comm.rank == 0:
        path.write_text(TEXT)
    case = read_case_collectively(comm, path, ["network.kernel=x[0]*y[0]"])
    assert comm.allgather(case.as_dict()) == [case.as_dict()] * comm.size
    assert case.folder == Path(folder)
    for overrides in (["network.kernel=foo(x)"], ["mesh.width.cells=0"]):
        with pytest.raises(BadInput) as refused:
            read_case_collectively(comm, path, overrides)
        assert set(comm.allgather(str(refused.value))) == {str(refused.value)}
    with pytest.raises(BadInput, match="cannot be read"):
        read_case_collectively(comm, path.with_name("none.toml"))


# templates, reference, cost


@pytest.mark.parametrize("dataset", RECIPES)
def test_templates_are_cases(tmp_path, dataset):
    path = tmp_path / "case.toml"
    path.write_text(template(dataset))
    case = read_case(path)
    assert case.data.dataset == dataset
    assert all(len(line) <= 100 for line in template(dataset).splitlines())


def test_the_commented_keys_of_a_template_are_valid_too():
    """Uncomment every key that is not an alternative to one that is set."""
    import tomllib

    skipped = ("inputs", "targets", "tracking_targets", "weights", "offsets", "samples")
    lines = []
    for line in template("circles").splitlines():
        bare = line.removeprefix("# ")
        is_key = bare.startswith("[") or bare.split(" = ")[0].isidentifier()
        keep = is_key and line != bare and not bare.startswith(skipped)
        lines.append(bare if keep else line)
    case = Case.model_validate(tomllib.loads("\n".join(lines)))
    sections = set(Case.model_fields) - {"data", "loss", "network"}
    assert sections <= case.model_fields_set
    for name in sections - {"mesh"}:
        section = getattr(case, name)
        assert section.model_fields_set == set(type(section).model_fields), name


def test_every_data_set_has_a_template():
    from fem_dnn.datasets import DATASETS

    assert set(RECIPES) == set(DATASETS)
    with pytest.raises(BadInput, match='"circle" is not a data set; allowed: circles, moons'):
        template("circle")


def test_the_reference_is_up_to_date():
    path = Path(__file__).parents[2] / "docs" / "case-file.md"
    assert path.read_text() == reference(), (
        "run python -m fem_dnn.case.reference > docs/case-file.md"
    )


def test_reading_a_case_needs_no_finite_elements(case_file):
    program = (
        "import sys; from fem_dnn.case import read_case; read_case(sys.argv[1]); "
        "print(*{'dolfinx', 'petsc4py', 'mpi4py', 'sklearn'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program, str(case_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
