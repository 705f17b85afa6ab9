"""Which commands know the Gram form: the others refuse it, and `validate` says so beforehand."""

import resource

import pytest
from program import batch, merged, write_case

TABLES = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.0, "cells": 2},
        "depth": {"length": 1.0, "cells": 2},
    },
    "network": {"activation": "tanh", "depth_scheme": "resnet"},
    "data": {"inputs": ["sin(3 * x)"], "targets": ["0.5"]},
    "regularization": {"kernel": 5e-2, "bias": 1e-1},
    "path": {"parameter": "regularization.kernel", "start": 1e-1, "stop": 5e-2},
    "value": {"cells": 4},
}
GRAM = ["--set", "solver.representation=gram"]
REFUSING = {
    "compare": ["compare", "case.toml", "--methods", "newton"],
    "critical": ["critical", "case.toml"],
    "path": ["path", "case.toml"],
    "value": ["value", "case.toml"],
    "solve --adapt": ["solve", "case.toml", "--adapt", "1e-2"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("admission")
    write_case(folder / "case.toml", TABLES)
    return folder


@pytest.fixture(scope="module")
def on_two_ranks(folder):
    commands = [[*words, *GRAM, "--out", "never"] for words in REFUSING.values()]
    groups = ["validate", "case.toml", "--set", "solver.sample_groups=2"]
    memory = ["validate", "case.toml", "--set", "solver.memory_gb=0.01"]
    return batch([*commands, groups, memory, ["validate", "case.toml"]], ranks=2, folder=folder)


def test_commands_that_hold_the_kernel_dense_refuse_the_gram_form_on_all_ranks(
    folder, on_two_ranks
):
    for name, outcomes in zip(REFUSING, on_two_ranks, strict=False):
        assert [outcome.status for outcome in outcomes] == [2, 2], name
        assert outcomes[0].err == (
            f'fem-dnn: case.toml: solver.representation: is "gram", but {name} holds the kernel '
            'dense; allowed: "auto" or "dense" for it\n'
        )
        assert outcomes[1].err == ""
    assert not (folder / "never").exists(), "refused before anything is written"


def test_validate_says_what_groups_and_memory_cannot_be(on_two_ranks):
    *_, (groups, _), (memory, _), (admitted, _) = on_two_ranks
    wrong = "solver.sample_groups is 2, for 1 samples"
    assert f"not for solve, check, compare: {wrong}" in groups.out
    assert "not for solve, check: solver.memory_gb is 0.01, but" in memory.out
    everything = "check, compare, critical, path, predict, solve, transfer, value"
    assert f"good for {everything} (" in admitted.out


REFUSED = {
    # what is set -> what solve says, and validate beforehand
    "solver.method=lbfgs": "solver.method is lbfgs: only newton works in that form",
    "solver.nested=1": "solver.nested transfers kernels between meshes",
    "solver.sample_groups=2": "solver.sample_groups is 2: it knows no groups",
    "network.kernel=false": "the kernel is not a control",
    "network.kernel_mask=x - y < 1": "the kernel has a mask",
    "bounds.bias=[-1.0, 1.0]": "the controls have bounds",
    "regularization.bias_depth=0.1": "derivatives of the controls are penalised",
    "regularization.bias=0.0": "a Tikhonov weight is 0",
    "network.activation=relu": "the initial guess, constant, is no sum over the samples",
}


def test_validate_says_what_solve_refuses(folder):
    commands = []
    for setting in REFUSED:
        options = ["case.toml", *GRAM, "--set", setting]
        commands += [[name, *options] for name in ("validate", "solve")]
    outcomes = [outcome for [outcome] in batch(commands, folder=folder)]
    for number, why in enumerate(REFUSED.values()):
        validated, refusal = outcomes[2 * number : 2 * number + 2]
        wrong = f'solver.representation{{}} is "gram", but {why}'
        assert f"not for solve, check: {wrong.format('')}\n" in validated.out
        assert refusal.status == 2 and wrong.format(":") in refusal.err


def test_a_wide_case_is_validated_without_its_kernel(folder):
    """A level of it would take 80 GB: the run is not given more than 8."""
    wide = merged(TABLES, mesh={"width": {"shape": "interval", "length": 1.0, "cells": 100_000}})
    del wide["path"], wide["value"]
    write_case(folder / "wide.toml", wide)
    bounds = ["--set", "bounds.bias=[-1.0, 1.0]"]
    limit = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, limit[1]))
    try:
        commands = [["validate", "wide.toml", *options] for options in ([], bounds, bounds + GRAM)]
        free, bounded, refused = (outcome for [outcome] in batch(commands, folder=folder))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)
    assert "good for check, compare, critical, predict, solve" in free.out
    assert "good for check, compare, predict, solve" in bounded.out
    assert '"gram", but the controls have bounds' in refused.out


def test_no_start_at_a_kink_is_advised(folder):
    guess = "solver.initial={ kind = 'random' }"
    words = ["solve", "case.toml", *GRAM, "--set"]
    commands = [[*words, "network.activation=relu"], [*words, guess]]
    relu, tanh = (outcome.err for [outcome] in batch(commands, folder=folder))
    assert relu.endswith('allowed: "auto" or "dense"\n')
    assert tanh.endswith('"dense"; or solver.initial = { kind = "zero" }\n')
