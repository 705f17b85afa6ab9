"""solve --adapt: meshes refined until the objective's estimated error is small."""

import numpy as np
import pytest
from mpi4py import MPI
from program import here as run_program
from test_error_estimate import case, solve

import fem_dnn
from fem_dnn import adaptivity
from fem_dnn.adaptivity import solve_adaptively
from fem_dnn.request import Request

LAYER = {"inputs": ["tanh(20*(x[0]-0.3))", "cos(2*x[0])"]}


def test_the_error_is_below_the_tolerance_on_a_graded_mesh() -> None:
    tolerance = 1e-3
    adaptive = solve_adaptively(case(3, 2, "dg0", 0, data=LAYER), tolerance)
    exact = solve(case(12, 2, "dg1", 2, data=LAYER)).solution.objective
    run = adaptive.run
    assert run.result["converged"] and len(adaptive.meshes) > 2
    assert abs(run.estimate.depth) + abs(run.estimate.width) <= tolerance
    assert abs(run.solution.objective - exact) < 1.5 * tolerance
    # Cells are smallest in the layer at x = 0.3.
    ends = np.sort(run.model.network.space.mesh_arrays.points[:, 0])
    smallest = np.argmin(np.diff(ends))
    assert abs(ends[smallest] - 0.3) < 0.1
    assert np.diff(ends).max() / np.diff(ends).min() > 1.9


def test_the_solver_goes_on_from_the_mesh_before() -> None:
    adaptive = solve_adaptively(case(3, 2, "dg1", 0, data=LAYER), 1e-3)
    last = adaptive.run.solution
    again = solve_adaptively(case(3, 2, "dg1", 0, data=LAYER), 1e3).run.solution
    model = adaptive.run.model
    assert last.history[0].gradient_norm < 0.5 * again.history[0].gradient_norm
    # The tolerance is that of the case's own initial guess on the finest mesh.
    own = model.problem.linearise(model.initial).gradient_norm
    assert last.initial_gradient_norm == pytest.approx(own, rel=1e-12)
    assert last.gradient_norm <= model.case.solver.rtol * own


def test_limits_are_results(monkeypatch) -> None:
    monkeypatch.setattr(adaptivity, "MAX_ROUNDS", 1)
    result = solve_adaptively(case(3, 2, "dg1", 0, data=LAYER), 1e-9).run.result
    assert not result["converged"]
    assert "the limit of 1 meshes was reached" in result["reason"]
    monkeypatch.undo()
    monkeypatch.setattr(adaptivity, "MEMORY", 1.0)
    result = solve_adaptively(case(3, 2, "dg1", 0, data=LAYER), 1e-9).run.result
    assert not result["converged"] and "GB on a rank" in result["reason"]


def test_the_adapted_case_reproduces_the_last_solve(tmp_path) -> None:
    """Piecewise constant data leave an error in depth alone: the width stays the case's own."""
    rng = np.random.default_rng(3)
    np.savez(
        tmp_path / "data.npz",
        inputs=rng.standard_normal((2, 3)),
        tracking=rng.standard_normal((3, 2, 3)),
    )
    tables = case(
        3,
        2,
        "dg1",
        0,
        problem="tracking",
        network={"kernel": False, "depth_scheme": "dg1"},
        data={
            "inputs": f"{tmp_path}/data.npz:inputs",
            "targets": f"{tmp_path}/data.npz:inputs",
            "tracking_targets": f"{tmp_path}/data.npz:tracking",
        },
    )
    out = tmp_path / "out"
    run = solve_adaptively(tables, 1e-6, Request(out=out)).run
    assert run.model.network.levels.layers > 2
    assert (out / "mesh.png").exists()
    again = fem_dnn.solve(out / "adapted.toml")
    assert again.model.network.levels.points.tolist() == run.model.network.levels.points.tolist()
    assert again.solution.objective == pytest.approx(run.solution.objective, rel=1e-12)
    arrays = np.load(out / "solution.npz")
    assert arrays["depth_indicators"].shape == (run.model.network.levels.layers,)
    assert arrays["width_indicators"].shape == (3,)


@pytest.mark.mpi
@pytest.mark.parametrize("cells", [4, [2, 2]])
@pytest.mark.several_ranks
def test_the_same_meshes_on_any_number_of_ranks(cells) -> None:
    distributed, serial = (
        solve_adaptively(case(cells, 2, "dg1", 0, data=LAYER), 4e-2, Request(comm=comm))
        for comm in (MPI.COMM_WORLD, MPI.COMM_SELF)
    )
    for there, here in zip(distributed.meshes, serial.meshes, strict=True):
        assert there["nodes"] == here["nodes"] and there["layers"] == here["layers"]
        assert there["objective"] == pytest.approx(here["objective"], rel=1e-12)


def test_a_tolerance_must_be_positive(tmp_path) -> None:
    file = tmp_path / "case.toml"
    file.write_text(
        '[mesh]\nwidth = { shape = "interval", length = 1.0, cells = 2 }\n'
        "depth = { length = 1.0, cells = 2 }\n"
        '[data]\ninputs = ["x[0]"]\ntargets = ["1"]\n'
    )
    outcome = run_program("solve", file, "--adapt", "0", folder=tmp_path)
    assert outcome.status == 2
    assert "--adapt" in outcome.err and "positive" in outcome.err
