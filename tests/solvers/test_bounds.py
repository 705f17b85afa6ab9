"""Bounded controls: the theory's projection formulas, and agreement of the methods."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import (
    everywhere,
    l2_problem,
    make_network,
    random_control,
    random_problem,
    relative,
    uniform,
    width_space,
)
from mpi4py import MPI
from scipy.optimize import brentq

import fem_dnn
from fem_dnn.active_set import ActiveSet
from fem_dnn.comparison import compare
from fem_dnn.errors import BadInput
from fem_dnn.solvers import (
    ALL_METHODS,
    METHODS,
    UNBOUNDED,
    Tolerances,
    solve_newton,
)

pytestmark = pytest.mark.mpi

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF
BOUNDS = {"kernel": (-0.3, 0.4), "bias": (-0.1, 0.2)}
STRONG = (0.2, 0.1, 0.2)
TIGHT = Tolerances(rtol=1e-10, max_iterations=2000)


def problem_and_start(comm=WORLD, **options):
    options = {"scheme": "resnet", "bounds": BOUNDS, "regularization": STRONG, **options}
    problem = random_problem(comm, **options)
    return problem, random_control(problem, scale=0.1)


@pytest.mark.parametrize("scheme", ["resnet", "dg1"])
def test_controls_are_projections_at_every_level(scheme: str) -> None:
    """theory.md section 3, from states and adjoints in file order, by hand."""
    problem, start = problem_and_start(scheme=scheme)
    solution = solve_newton(problem, start, TIGHT)
    assert solution.converged, solution.reason
    at, space, w = solution.at, problem.network.space, problem.sample_weights
    q = space.to_file_order(at.adjoint.q, axis=1)  # sigma'(u) p: (levels, nodes, samples)
    assert at.state.gathered is not None
    f = np.empty_like(at.state.gathered)
    # In mesh order, times sqrt(h).
    f[:, space.file_position] = at.state.gathered / space.sqrt_weights[:, None]
    found = problem.controls.values(solution.control)
    kernel = np.clip(-np.einsum("lxs,lys,s->lxy", q, f, w) / STRONG[0], *BOUNDS["kernel"])
    bias = np.clip(-(q @ w) / STRONG[1], *BOUNDS["bias"])
    # A gradient entry g in coordinates moves a nodal value by g / (lambda scale).
    smallest = 1 / float(np.min(problem.controls.scale, initial=1.0))
    allowed = 10 * smallest * solution.gradient_norm / min(STRONG) + 1e-13
    assert np.max(np.abs(found.kernel - kernel)) < allowed
    assert np.max(np.abs(found.bias - bias)) < allowed
    for values, (low, high) in ((kernel, BOUNDS["kernel"]), (bias, BOUNDS["bias"])):
        assert np.any(values == low) and np.any(values == high)
    low, high = BOUNDS["kernel"]
    assert np.any((low < kernel) & (kernel < high))


@pytest.mark.parametrize("method", [name for name in METHODS if name not in UNBOUNDED])
def test_a_bound_that_cuts_the_exact_bias(method: str) -> None:
    """Exact case 2: the optimal bias is constant in depth; with a bound it is clipped pointwise."""
    T, penalty, high = 1.5, 0.1, 0.95
    network = make_network(width_space(WORLD, 5), "dg1", points=[0.0, 0.4, 0.6, T])
    x = network.space.nodes[:, 0]
    d = 1.1 + 0.3 * np.sin(3 * x)

    def slope(B: float, d: float) -> float:
        return (T * np.tanh(B) - d) * (1 - np.tanh(B) ** 2) + penalty * B

    B = np.clip([brentq(slope, 0, 5, args=(v,), xtol=1e-15) for v in d], 0.0, high)
    assert np.any(high == B) and np.any(high > B)
    problem = l2_problem(
        network, np.cos(x), np.cos(x) + d, bias=penalty, bounds={"bias": (0.0, high)}
    )
    solution = METHODS[method](problem, problem.controls.constant(bias=2.0), Tolerances(rtol=1e-12))
    assert solution.converged, solution.reason
    assert "initial guess was projected" in solution.reason
    found = problem.controls.values(solution.control).bias
    # What a gradient of that size leaves: the Hessian is lambda_b or more.
    left = solution.gradient_norm / (penalty * np.min(problem.controls.scale, initial=1.0))
    assert np.max(np.abs(found - B)) < 2 * left + 1e-13
    active = ActiveSet.of(solution.at)
    assert active is not None
    share = network.space.node_weights @ (high == B)
    assert abs(active.fractions()["bias"] - share / np.sum(network.space.node_weights)) < 1e-14


@pytest.mark.parametrize("method", ["lbfgs", "gradient", "sweep", "layerwise", "bntr", "bnls"])
@pytest.mark.parametrize("options", [{}, {"loss": "mse", "learn_outputs": True, "mask": True}])
def test_methods_agree(method: str, options: dict) -> None:
    options = {**options, "cells": 3, "samples": 2}
    tolerances = Tolerances(rtol=1e-9, max_iterations=2000)
    a, b = (ALL_METHODS[m](*problem_and_start(**options), tolerances) for m in (method, "newton"))
    assert a.converged and b.converged, (a.reason, b.reason)
    assert a.initial_gradient_norm == b.initial_gradient_norm
    assert abs(a.objective - b.objective) < 1e-12 * max(b.objective, 1)
    assert relative(everywhere(a.problem, a.control), everywhere(b.problem, b.control)) < 1e-6


@pytest.mark.one_rank
def test_converges_superlinearly_at_the_end() -> None:
    """Each late step multiplies |g| by |g|^(1/4) or less: no linear factor, and of at most 4e-3
    in the last one."""
    solution = solve_newton(*problem_and_start(scheme="dg1"), Tolerances(rtol=1e-12))
    assert solution.converged, solution.reason
    g = (
        np.array([line.gradient_norm for line in solution.history])
        / solution.history[0].gradient_norm
    )
    late = g[:-1] < 1e-2
    assert late.sum() >= 3
    assert np.all(g[1:][late] < g[:-1][late] ** 1.25)
    active = ActiveSet.of(solution.at)
    assert active is not None and 0 < active.fractions()["kernel"] < 1


def test_smoothed_controls_within_bounds() -> None:
    """Boxes are none in Riesz coordinates: L2 ones are used, and give what lbfgs gives."""
    problem, start = problem_and_start()
    R = replace(problem.regularization, kernel_depth=0.02, bias_depth=0.02, kernel_width=0.01)
    problem = replace(problem, regularization=R)
    a = solve_newton(problem, start, TIGHT)
    b = METHODS["lbfgs"](problem, start, Tolerances(rtol=1e-8, max_iterations=3000))
    assert a.converged and b.converged, (a.reason, b.reason)
    assert np.array_equal(problem.controls.project(a.control), a.control)
    assert abs(a.objective - b.objective) < 1e-12 * a.objective


@pytest.mark.parametrize("method", ["newton", "sweep"])
@pytest.mark.several_ranks
def test_same_solution_on_any_number_of_ranks(method: str) -> None:
    a, b = (
        METHODS[method](*problem_and_start(comm), Tolerances(rtol=1e-11)) for comm in (WORLD, SELF)
    )
    assert a.converged and b.converged, (a.reason, b.reason)
    assert abs(a.objective - b.objective) < 1e-12 * b.objective
    assert relative(everywhere(a.problem, a.control), everywhere(b.problem, b.control)) < 1e-8


def reflection(high: float):
    """Exact case 5, |f| = 2: carry f to -f; straight through 0 is a saddle."""
    network = make_network(width_space(WORLD, 2), "dg1", "linear", points=uniform(1.0, 4))
    f = np.full(2, 2.0)
    return l2_problem(
        network, f, -f, kernel=0.1, bias=0.1, weight=2.0, bounds={"kernel": (-high, high)}
    )


@pytest.mark.one_rank
def test_curvature_is_that_of_the_free_controls() -> None:
    """A kernel held by its bounds cannot leave the symmetric path: a minimiser. Wider bounds make
    the path a saddle, which is left for a point where other bounds hold."""
    tight = reflection(0.5)
    held = solve_newton(tight, tight.controls.constant(), Tolerances(rtol=1e-9))
    assert held.converged and "on the 16 controls that no bound holds" in held.reason
    assert np.all(np.abs(tight.controls.values(held.control).kernel) == 0.5)
    loose = reflection(3.0)
    start, rtol = loose.controls.constant(), Tolerances(rtol=1e-9)
    saddle = solve_newton(loose, start, rtol, escape=False)
    left = solve_newton(loose, start, rtol)
    assert saddle.converged and left.converged, (saddle.reason, left.reason)
    assert left.objective < saddle.objective - 1e-3
    assert np.array_equal(loose.controls.project(left.control), left.control)
    assert "that no bound holds" in left.reason and "local minimiser" in left.reason
    active = ActiveSet.of(left.at)
    assert active is not None and active.fractions()["kernel"] == 0.25


def test_types_that_know_no_bounds_are_refused() -> None:
    problem, start = problem_and_start()
    with pytest.raises(BadInput, match=r"bounds: ntr knows no bounds; allowed: another"):
        ALL_METHODS["ntr"](problem, start)
    with pytest.raises(BadInput, match="bounds: all-at-once knows no bounds"):
        METHODS["all-at-once"](problem, start)


CASE = {
    "mesh": {
        "width": {"shape": "interval", "length": 1.0, "cells": 4},
        "depth": {"length": 1.0, "cells": 4},
    },
    "network": {"depth_scheme": "resnet"},
    "data": {"inputs": ["sin(3*x[0])"], "targets": ["x[0] - 0.5"]},
    "bounds": {"kernel": [-0.5, 0.5], "bias": [-0.2, np.inf]},
}


def test_a_bounded_case_from_tables_to_the_result() -> None:
    nested = {**CASE, "solver": {"nested": 1, "initial": {"kind": "constant", "bias": -1.0}}}
    for case in (CASE, nested):
        result = fem_dnn.solve(case).result
        assert result["converged"], result["reason"]
        assert 0 < result["active_fraction"]["kernel"] < 1
        assert set(result["active_fraction"]) == {"kernel", "bias"}
        # In the unit of the gradient's density: |Y| T = 1 here.
        assert 0 <= result["complementarity"] < 100 * result["gradient_norm"] + 1e-14
    assert "the initial guess was projected onto the bounds" in result["reason"]


def test_comparison_refuses_types_that_know_no_bounds() -> None:
    with pytest.raises(BadInput, match=r"--methods: nls knows no bounds, the case has some"):
        compare(CASE, methods=["newton", "nls"])
