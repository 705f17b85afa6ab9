"""The same case on 1, 2 and 3 ranks: the same problem, the same answer, said once."""

import numpy as np
import pytest
from program import batch, write_case

rng = np.random.default_rng(1)
SHAPES = {"rectangle": (6, (3, 2), "dg0"), "interval": (10, 5, "resnet")}


def write(folder, shape):
    """A case with everything in it."""
    nodes, cells, scheme = SHAPES[shape]
    np.savez(
        folder / f"{shape}.npz",
        inputs=rng.standard_normal((3, nodes)),
        targets=np.array([1, 0, 2]),
        tracking=rng.standard_normal((3, 3, nodes)),
        mask=rng.integers(0, 2, (nodes, nodes)),
    )
    tables = {
        "mesh": {
            "width": {
                "shape": shape,
                "length": [1.0, 1.0] if shape == "rectangle" else 1.0,
                "cells": cells,
            },
            "depth": {"points": [0.0, 0.2, 0.5]},
        },
        "network": {
            "depth_scheme": scheme,
            "width_degree": 0 if shape == "rectangle" else 1,
            "kernel_mask": f"{shape}.npz:mask",
        },
        "data": {
            "inputs": f"{shape}.npz:inputs",
            "targets": f"{shape}.npz:targets",
            "tracking_targets": f"{shape}.npz:tracking",
        },
        "loss": {"kind": "softmax", "train_outputs": True, "tracking": 0.3},
        "regularization": {"kernel": 0.3, "bias": 0.3, "outputs": 0.3},
        # Implicit slabs mean many messages: there a few iterations have to do.
        "solver": {
            "rtol": 1e-7,
            "max_iterations": 2 if scheme == "dg0" else 500,
            "escape": False,
            "initial": {"kind": "random", "scale": 0.5, "seed": 2},
        },
    }
    write_case(folder / f"{shape}.toml", tables)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(shape, ranks) -> (outcome on every rank, result, arrays)."""
    folder, found = tmp_path_factory.mktemp("assembly"), {}
    for shape in SHAPES:
        write(folder, shape)
    for ranks in (1, 2, 3):
        outs = {shape: f"{shape}{ranks}" for shape in SHAPES}
        words = [["solve", f"{s}.toml", "--json", "-", "--out", out] for s, out in outs.items()]
        for (shape, out), outcomes in zip(
            outs.items(), batch(words, ranks=ranks, folder=folder, pictures=False), strict=True
        ):
            first = outcomes[0]
            assert first.status == (1 if SHAPES[shape][2] == "dg0" else 0), first.err
            arrays = dict(np.load(folder / out / "solution.npz"))
            found[shape, ranks] = outcomes, first.json, arrays
            assert not [path for path in (folder / out).iterdir() if path.name.startswith(".")]
    return found


@pytest.fixture(params=SHAPES)
def everywhere(request, runs):
    """Ranks -> (outcome on every rank, result, arrays)."""
    return {ranks: found for (shape, ranks), found in runs.items() if shape == request.param}


@pytest.mark.parametrize("ranks", [2, 3])
def test_objectives_agree(everywhere, ranks):
    one, many = everywhere[1][1], everywhere[ranks][1]
    assert many["ranks"] == ranks
    for name in ("objective", "loss", "regularization"):
        assert many[name] == pytest.approx(one[name], rel=1e-10)
    # The random initial guess is the same controls, however they are distributed.
    assert many["initial_gradient_norm"] == pytest.approx(one["initial_gradient_norm"], rel=1e-12)
    first = [result["history"][0]["objective"] for result in (one, many)]
    assert first[1] == pytest.approx(first[0], rel=1e-13)


@pytest.mark.parametrize("ranks", [2, 3])
def test_arrays_agree_in_file_order(everywhere, ranks):
    one, many = everywhere[1][2], everywhere[ranks][2]
    assert one.keys() == many.keys()
    for name in one.keys() - {"made_by"}:
        assert many[name] == pytest.approx(one[name], rel=1e-6, abs=1e-6), name
    for name in ("x", "t", "control_t", "control_weights", "sample_weights"):
        assert many[name] == pytest.approx(one[name], abs=1e-14), name


@pytest.mark.parametrize("ranks", [2, 3])
def test_only_rank_0_speaks(everywhere, ranks):
    [one], [many, *others] = everywhere[1][0], everywhere[ranks][0]
    assert many.err.lower().count("converged: ") == one.err.lower().count("converged: ") == 1
    assert many.err.count("unknown controls") == 1
    assert f", {ranks} ranks" in many.err
    assert [(other.out, other.err) for other in others] == [("", "")] * (ranks - 1)
