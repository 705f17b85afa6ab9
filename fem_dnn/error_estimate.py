"""A posteriori estimate of the discretisation error of the optimal objective.

With c_h the discrete minimiser, J_+ the objective of a richer discretisation and P c_h the same
control there,

    J_h(c_h) - J(u*)  ~  [J_h(c_h) - J_+(P c_h)] + [J_+(P c_h) - min J_+],

the first bracket is the error of state and data at this control, the second what a better control
c_+ gains: Newton steps from P c_h, by conjugate gradients that stop when they no longer matter. As
the richer discretisation is of higher order (depth 2q + 3 after 2q + 1, width 2r + 4 after
2r + 2), the estimate is asymptotically exact where the solution is smooth.

Both brackets are localised by the dual-weighted residual: with the state's prolongation F, the
adjoint p_+ at P c_h (the mean of those at F and at
the state there), and the gradients g, g_+ at P c_h and c_+,

    eta ~ sum_s w_s int p_+ (F' - sigma(K F + b)) + sum_s w_s (p_+(0), F(0) - f_I)
          + [loss, tracking and regulariser less those of F, P c_h] + (g + g_+, P c_h - c_+) / 2,

slab by slab and cell by cell (R. Becker, R. Rannacher, Acta Numerica 10, 2001; R. Becker,
H. Kapp, R. Rannacher, SIAM J. Control Optim. 39, 2000).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fem_dnn import enrichment
from fem_dnn.assembly import Model
from fem_dnn.case import is_array
from fem_dnn.enrichment import Enrichment
from fem_dnn.error_shares import shares
from fem_dnn.errors import FemDnnError
from fem_dnn.problem import LearningProblem, Linearisation
from fem_dnn.riesz import RieszMap
from fem_dnn.width import width_element

Array = NDArray[np.float64]

MEMORY = 2e9
"""Bytes per rank that an estimate may take."""

MAX_STEPS = 3
"""Newton steps to the better control."""

MAX_PRODUCTS = 20
"""Hessian products that they may take together; smooth problems need few."""

MIN_PRODUCTS = 3
SHARE = 0.1
"""Of the solve's operations, that each direction of the estimate may take."""

FREE = 2e10
"""Operations that it may take in any case: a second or two."""

NEGLIGIBLE = 0.05
"""Part of the estimate below which a further gain no longer matters."""


@dataclass(frozen=True, eq=False)
class ErrorEstimate:
    """Estimated J_h(c_h) - J(u*), signed, by the direction that it comes from.

    Attributes:
        depth, width: The two parts; None where not estimated.
        depth_indicators: Parts of `depth` by slab, shape (layers,).
        width_indicators: Parts of `width` by cell, ordered as in `WidthSpace.mesh_arrays`.
        notes: What the estimate leaves out, and why.
    """

    depth: float | None
    width: float | None
    depth_indicators: Array | None
    width_indicators: Array | None
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> float | None:
        """Both parts together; None where one is missing."""
        if self.depth is None or self.width is None:
            return None
        return self.depth + self.width

    def as_dict(self) -> dict[str, Any]:
        """For the JSON result."""
        return {
            "depth": self.depth,
            "width": self.width,
            "total": self.total,
            "notes": list(self.notes),
        }

    def arrays(self) -> dict[str, Array]:
        """The indicators by their names in files."""
        indicators = {
            "depth_indicators": self.depth_indicators,
            "width_indicators": self.width_indicators,
        }
        return {name: values for name, values in indicators.items() if values is not None}


def estimate_error(
    model: Model, at: Linearisation, *, sweeps: float | None = None
) -> ErrorEstimate:
    """Estimate the objective's discretisation error at a minimiser (collective).

    Args:
        model: The model that was solved.
        at: Its learning problem linearised at the minimiser.
        sweeps: What the solve took: the estimate shall cost little against it. None: whatever
            `MAX_PRODUCTS` allows.
    """
    if at.problem.controls.box is not None:
        why = "no estimate: the controls have bounds, which the Newton steps to better ones ignore"
        return ErrorEstimate(None, None, None, None, (why,))
    depth = _direction("depth", model, at, enrichment.in_depth, sweeps)
    width = _direction("width", model, at, enrichment.in_width, sweeps)
    case, notes = model.case, [part.note for part in (depth, width) if part.note is not None]
    arrays = {
        "inputs": case.data.inputs,
        "targets": case.data.targets if case.loss.kind == "l2" else None,
        "tracking targets": case.data.tracking_targets,
        "kernel": case.network.kernel,
        "bias": case.network.bias,
        "mask": case.network.kernel_mask,
        "outputs": case.loss.outputs if model.ingredients.outputs is not None else None,
    }
    given = [name for name, entries in arrays.items() if is_array(entries)]
    if given:
        notes.append(
            f"{', '.join(given)} from arrays count as functions of the discrete space: what was "
            "lost in making these arrays is not in the estimate"
        )
    return ErrorEstimate(
        depth.value,
        width.value,
        None if depth.shares is None else depth.shares.sum(axis=1),
        None if width.shares is None else width.shares.sum(axis=0),
        tuple(notes),
    )


@dataclass(frozen=True, eq=False)
class _Part:
    """Estimate of one direction, its shares (layers, cells), and what is to be said of it."""

    value: float | None
    shares: Array | None
    note: str | None


def _direction(
    name: str,
    model: Model,
    at: Linearisation,
    enrich: Callable[[Model], Enrichment],
    sweeps: float | None,
) -> _Part:
    try:
        needed = _richer_memory(name, model)
        if needed > MEMORY:
            why = f"it would take {needed / 1e9:.1f} GB on a rank, more than {MEMORY / 1e9:g} GB"
            return _Part(None, None, f"no estimate in {name}: {why}")
        richer = enrich(model)
        problem = richer.fine.problem
        assert problem is not None
        values = richer.lift.controls(at.problem.controls.values(at.control))
        control = smoothed(name, problem, problem.controls.coordinates(values))
        prolonged = problem.linearise(control)
        products = MAX_PRODUCTS
        if sweeps is not None:
            allowed = max(FREE, SHARE * sweeps * operations(at.problem))
            products = int(allowed / (4 * operations(problem)))
        better, enough = improve(
            prolonged, at.objective, min(max(products, MIN_PRODUCTS), MAX_PRODUCTS)
        )
        found = shares(richer, at, prolonged, better)
    except FemDnnError as failure:
        # No element of the next degree, or a slab that cannot be solved: alike on all ranks.
        return _Part(None, None, f"no estimate in {name}: {failure}")
    note: str | None = None
    if not enough:
        note = (
            f"the estimate in {name} stopped before the better control was found, so its signed "
            "value is only a lower bound: the mesh is coarse for it, or more would cost too much"
        )
    return _Part(at.objective - better.objective, found, note)


def smoothed(direction: str, problem: LearningProblem, control: Array) -> Array:
    """A prolonged control without the jumps that R would make it pay for.

    What is constant on slabs or cells jumps between them, and on a richer discretisation
    derivatives of that are large. (kappa I + gamma A) c = kappa P c_h with kappa = gamma / h^2, h
    being the mesh size, takes jumps away and changes a smooth function by O(h^2); likewise eta in
    width. Nothing changes where no derivative in this direction is penalised, nor from higher
    degrees, whose jumps are as small as their error.

    Args:
        direction: depth | width.
        problem: The problem on the richer discretisation.
        control: P c_h there.
    """
    R, space, levels = problem.regularization, problem.network.space, problem.network.levels
    depth = direction == "depth"
    if (levels.scheme.levels - 1 if depth else space.degree) > 1:
        return control
    if depth:
        h = float(levels.points[-1]) / levels.layers
    else:
        h = float(np.sum(space.weights) / len(space.cell_nodes)) ** (1 / space.dimension)
    kernel, bias = (R.kernel_depth, R.bias_depth) if depth else (R.kernel_width, R.bias_width)
    smoother = replace(
        R,
        kernel=kernel / h**2 or 1.0,
        bias=bias / h**2 or 1.0,
        outputs=1.0,
        kernel_depth=kernel if depth else 0.0,
        bias_depth=bias if depth else 0.0,
        kernel_width=0.0 if depth else kernel,
        bias_width=0.0 if depth else bias,
    )
    right = control.copy()
    for name, part in problem.controls.blocks.items():
        right[part] *= smoother.tikhonov[name]
    return RieszMap(smoother).solve(right)


IMPLICIT = 6
"""Applications of the nonlocal operator per level that an implicit slab takes."""


def operations(problem: LearningProblem) -> float:
    """Floating-point operations of one sweep: three matrix products per level and node."""
    network = problem.network
    levels, nodes = network.levels, network.space.n_nodes
    repeated = 1 if levels.scheme.explicit else IMPLICIT
    return 3.0 * nodes**2 * problem.inputs.shape[1] * levels.count * repeated


def improve(
    at: Linearisation, reference: float, products: int = MAX_PRODUCTS
) -> tuple[Linearisation, bool]:
    """A better control by Newton steps, as good as the estimate needs it.

    Args:
        at: Where to start.
        reference: The objective whose error is sought.
        products: At most so many Hessian products.

    Returns:
        The better point, and whether what is still to be gained is negligible.
    """
    left = products
    for _ in range(MAX_STEPS):
        step, predicted, used, enough = newton_step(at, reference, left)
        left -= used
        better = _descend(at, step)
        if better is None:
            # No descent at round-off or at a kink: this is as good as it gets.
            return at, enough
        gained = at.objective - better.objective
        at = better
        if abs(gained - predicted) <= NEGLIGIBLE * abs(reference - at.objective):
            return at, enough
        if left <= 0:
            break
    return at, False


def _descend(at: Linearisation, step: Array) -> Linearisation | None:
    """The first of c - z, c - z/2, c - z/4, ... with a lower objective; None if there is none."""
    for halvings in range(4):
        trial = at.problem.linearise(at.control - 0.5**halvings * step)
        if trial.objective < at.objective:
            return trial
    return None


def newton_step(
    at: Linearisation, reference: float, products: int
) -> tuple[Array, float, int, bool]:
    """z with H z ~ g, by conjugate gradients preconditioned by the regulariser.

    The quadratic model's gain (g, z) - (z, H z) / 2 grows with every iteration; they end when
    two gains together are negligible against the estimate so far, or at negative curvature.

    Args:
        at: Where gradient and Hessian are taken.
        reference: The objective whose error is sought.
        products: At most so many Hessian products.

    Returns:
        z, the model's gain, the products taken, and whether the rest is negligible.
    """
    controls, riesz = at.problem.controls, RieszMap(at.problem.regularization)
    # A part that is not regularised is left as it is.
    free = [part for name, part in controls.blocks.items() if riesz.scales[name] == 0]
    z, p = np.zeros_like(at.control), np.zeros_like(at.control)
    r = at.gradient.copy()
    gains, rho = [np.inf], 1.0
    for taken in range(products):
        y = riesz.solve(r)
        for part in free:
            y[part] = r[part]
        rho, last = controls.dot(r, y), rho
        p = y + (rho / last) * p
        Hp = at.hessian_action(p)
        curvature = controls.dot(p, Hp)
        if curvature <= 0:
            return z, sum(gains[1:]), taken + 1, False
        z += rho / curvature * p
        r -= rho / curvature * Hp
        gains.append(0.5 * rho / curvature * rho)
        estimate = reference - at.objective + sum(gains[1:])
        if gains[-1] + gains[-2] <= NEGLIGIBLE * abs(estimate) or rho <= np.finfo(float).tiny:
            return z, sum(gains[1:]), taken + 1, True
    return z, sum(gains[1:]), products, False


def memory(model: Model) -> float:
    """Bytes that a solve or an estimate on a model's discretisation takes on a rank."""
    return _bytes(model, model.network.space.n_nodes, model.network.levels.count)


def _richer_memory(name: str, model: Model) -> float:
    """The same on the richer discretisation of a direction, before it is made."""
    space, levels = model.network.space, model.network.levels
    if name == "depth":
        return _bytes(model, space.n_nodes, levels.layers * (levels.scheme.levels + 1))
    cell = space.mesh.topology.cell_name()
    per_cell = [width_element(cell, space.degree + k).dim for k in (0, 1)]
    return _bytes(model, space.n_nodes * per_cell[1] // per_cell[0], levels.count)


def _bytes(model: Model, nodes: int, count: int) -> float:
    problem, ranks = model.problem, model.comm.size
    assert problem is not None
    # Control, gradient, four vectors of conjugate gradients and two temporaries are distributed,
    # two copies in file order are on every rank; the states likewise.
    has_kernel = problem.controls.has_kernel or model.given.operator is not None
    kernel = float(count) * nodes**2 * (8 / ranks + 2) if has_kernel else 0.0
    return 8 * (kernel + float(count) * nodes * problem.inputs.shape[1] * (10 / ranks + 2))
