"""The peers' benchmark: what every peer is given is our discretised problem, to round-off."""

from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI

from benchmarks.peers.discrete import DiscreteProblem, NumpyModel
from benchmarks.peers.export import checked_values, discrete_problem
from fem_dnn.assembly import assemble
from fem_dnn.case import read_case

PROBLEMS = Path(__file__).parent.parent / "benchmarks" / "problems"
SMALL = ["mesh.depth.cells=5"]


@pytest.mark.parametrize("name", sorted(path.stem for path in PROBLEMS.glob("*.toml")))
def test_the_peers_problem_is_ours_in_objective_and_gradient(name, tmp_path):
    model = assemble(read_case(PROBLEMS / f"{name}.toml", SMALL), MPI.COMM_SELF)
    np.savez(tmp_path / "problem.npz", **discrete_problem(model).arrays(), **checked_values(model))
    theirs = DiscreteProblem.read(tmp_path / "problem.npz")
    controls = model.problem.controls
    for seed, scale in ((1, 1.0), (4, 0.4)):
        z = theirs.random(seed, scale)
        objective, gradient = NumpyModel(theirs).objective_and_gradient(z)
        at = model.problem.linearise(controls.project(controls.random(seed, scale)))
        ours = controls.values(at.gradient)
        expected = theirs.coordinates(ours.kernel, ours.bias)
        assert objective == pytest.approx(at.objective, rel=1e-13)
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-13 * at.gradient_norm)
        assert theirs.norm(z, gradient) == pytest.approx(at.gradient_norm, rel=1e-12)
