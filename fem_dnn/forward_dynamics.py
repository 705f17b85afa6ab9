"""Forward dynamics with weights that do not depend on the depth (Liu & Markowich 2020).

    d_t f = sigma(Kf + b)

A steady state has sigma(Kf + b) = 0. An activation with one zero u_0 (tanh, linear: u_0 = 0) makes
that the linear equation Kf = u_0 - b; ReLU vanishes on a half line, so whole cones rest; sigmoid
and softplus are positive, and nothing rests. Perturbations of a state at rest obey

    d_t df = M df,   M = sigma'(Kf + b) K,

so they grow or decay with the eigenvalues of M: the state is linearly stable where all real parts
are negative. The eigenvalues are found by SLEPc, or densely on small meshes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from petsc4py import PETSc
from slepc4py import SLEPc

from fem_dnn.activations import Activation
from fem_dnn.errors import FemDnnError
from fem_dnn.network import LayerWeights, Network
from fem_dnn.nonlocal_operator import NonlocalOperator
from fem_dnn.state import solve_state, solve_tangent

Array = NDArray[np.float64]

DENSE = 500
"""Nodes up to which all eigenvalues are computed."""

SAME = 1e-12
"""Relative difference of levels that counts as none."""

AT_REST = 1e-10
"""Norm of sigma(Kf + b) below which a state rests, relative to that of Kf, b or 1."""

ZERO = {"tanh": 0.0, "linear": 0.0}
"""Where activations with one zero vanish."""


class NotAutonomous(FemDnnError):
    """The weights depend on the depth, or there is no kernel."""


class NoSteadyState(FemDnnError):
    """No state rests: says why."""


@dataclass(frozen=True, eq=False)
class Stability:
    """Linear stability of a state.

    Attributes:
        eigenvalues: Of M, by falling real part, complex; all of them or the rightmost.
        rest: |sigma(Kf + b)|, relative: 0 at a steady state.
        explanation: The verdict in a sentence.
    """

    eigenvalues: NDArray[np.complex128]
    rest: float
    explanation: str

    @property
    def growth_rate(self) -> float:
        """The largest real part: perturbations behave like exp(growth_rate t)."""
        return float(self.eigenvalues[0].real)

    @property
    def stable(self) -> bool:
        """Whether all perturbations decay."""
        return self.growth_rate < 0


def require_autonomous(weights: LayerWeights) -> NonlocalOperator:
    """The operator of weights that are the same at all levels (collective).

    Raises:
        NotAutonomous: They are not, or there is no kernel.
    """
    if weights.operator is None:
        raise NotAutonomous("there is no kernel: the state moves with a constant velocity")
    operator, comm = weights.operator, weights.operator.space.comm
    rows = operator.rows / np.sqrt(operator.level_weights)[:, None, None]
    varying = [rows] if weights.bias is None else [rows, weights.bias]
    differs = any(
        float(np.max(np.ptp(c, axis=0), initial=0.0)) > SAME * float(np.max(np.abs(c), initial=0.0))
        for c in varying
    )
    if comm.allreduce(int(differs)):
        raise NotAutonomous("kernel or bias depend on the depth: nothing rests")
    return operator


def steady_state(network: Network, weights: LayerWeights, near: Array) -> Array:
    """The state at rest nearest to a given one, shape (n_local, 1) (collective).

    Args:
        network: Width space, depth levels, activation with one zero.
        weights: Kernel and bias, the same at all levels.
        near: Shape (n_local, 1).

    Raises:
        NotAutonomous: The weights depend on the depth.
        NoSteadyState: -b is not in the kernel operator's range, or the activation has no zero.
    """
    operator, space, activation = require_autonomous(weights), network.space, network.activation
    if activation.name not in ZERO:
        raise NoSteadyState(_why_no_zero(activation))
    K = _matrix(operator)
    root = space.sqrt_weights[space.owned, None]
    bias = np.zeros_like(near) if weights.bias is None else weights.bias[0]
    start, right = (space.gather(root * f) for f in (near, ZERO[activation.name] - bias))
    change, *_ = scipy.linalg.lstsq(K, right - K @ start)
    found = start + change
    if float(np.linalg.norm(K @ found - right)) > AT_REST * float(np.linalg.norm(right)):
        raise NoSteadyState("-b is not in the range of the kernel operator: nothing rests")
    result: Array = found[space.owned] / root
    return result


def stability(network: Network, weights: LayerWeights, f: Array, count: int = 6) -> Stability:
    """Eigenvalues of M = sigma'(Kf + b) K at a state (collective).

    Args:
        network: Width space, depth levels, activation.
        weights: Kernel and bias, the same at all levels.
        f: The state, shape (n_local, 1).
        count: How many eigenvalues, the rightmost, beyond `DENSE` nodes.

    Raises:
        NotAutonomous: The weights depend on the depth.
    """
    operator, space = require_autonomous(weights), network.space
    u = operator.apply(0, operator.gather(f))
    scale = max(float(space.sum(np.array(space.local_weights @ u[:, 0] ** 2))), 1.0) ** 0.5
    if weights.bias is not None:
        u = u + weights.bias[0]
    value, slope = network.activation.evaluate(u, 1)
    rest = float(space.sum(np.array(space.local_weights @ value[:, 0] ** 2))) ** 0.5 / scale
    if space.n_nodes <= DENSE:
        eigenvalues = scipy.linalg.eigvals(space.gather(slope) * _matrix(operator))
    else:
        eigenvalues = _rightmost(operator, slope, count)
    eigenvalues = eigenvalues[np.argsort(-eigenvalues.real, kind="stable")]
    rate = eigenvalues[0].real
    text = f"perturbations {'grow' if rate > 0 else 'decay'} like exp({rate:.6g} t)"
    if rest > AT_REST:
        text += f"; but the state moves, |sigma(Kf + b)| = {rest:.2e}: it is no steady state"
    elif abs(rate) <= AT_REST:
        text = "perturbations neither grow nor decay to first order: the linearisation is silent"
    return Stability(eigenvalues, rest, text)


def measured_growth(network: Network, weights: LayerWeights, f: Array, change: Array) -> float:
    """Rate at which the tangent equation lets a change of the input grow (collective).

    The slope of log |df(t)| over the second half of the depth, by least squares.

    Args:
        network: Width space, depth levels, activation.
        weights: Kernel and bias.
        f: Input, shape (n_local, 1).
        change: Its change, same shape.
    """
    state = solve_state(network, weights, f)
    nothing = LayerWeights(None, None)
    tangent = solve_tangent(network, weights, state, nothing, inputs=change)
    squares = np.einsum("n,tns->t", network.space.local_weights, tangent.ends**2)
    norms = np.sqrt(network.space.sum(squares))
    t = network.levels.points
    late = t >= 0.5 * (t[0] + t[-1])
    return float(np.polyfit(t[late], np.log(norms[late]), 1)[0])


def _why_no_zero(activation: Activation) -> str:
    if activation.name in ("sigmoid", "softplus"):
        return f"{activation.name} is positive: every state moves up for ever"
    if activation.name == "relu":
        return "relu vanishes on a half line: every f with Kf + b <= 0 rests, none is singled out"
    return f"{activation.name} has no zero that is known here"


def _matrix(operator: NonlocalOperator) -> Array:
    """K in L2-orthonormal coordinates, whole on every rank, shape (n_nodes, n_nodes)."""
    rows = operator.rows[0] / np.sqrt(operator.level_weights[0])
    return operator.space.gather(np.ascontiguousarray(rows))


class _Linearised:
    """Context of a shell matrix: M in L2-orthonormal coordinates."""

    def __init__(self, operator: NonlocalOperator, slope: Array) -> None:
        self.operator, self.slope = operator, slope
        self.scale = 1 / np.sqrt(operator.level_weights[0])

    def mult(self, _mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """y = M x."""
        gathered = self.operator.space.gather(x.array_r[:, None])
        y.array_w[:] = self.slope[:, 0] * (self.scale * (self.operator.rows[0] @ gathered))[:, 0]


def _rightmost(operator: NonlocalOperator, slope: Array, count: int) -> NDArray[np.complex128]:
    """The rightmost eigenvalues of M by SLEPc."""
    space = operator.space
    sizes = (space.n_local, space.n_nodes)
    matrix = PETSc.Mat().createPython((sizes, sizes), _Linearised(operator, slope), space.comm)
    matrix.setUp()
    eps = SLEPc.EPS().create(space.comm)
    try:
        eps.setOperators(matrix)
        eps.setProblemType(SLEPc.EPS.ProblemType.NHEP)
        eps.setWhichEigenpairs(SLEPc.EPS.Which.LARGEST_REAL)
        eps.setDimensions(nev=count, ncv=min(max(4 * count, 40), space.n_nodes))
        eps.setTolerances(tol=1e-10, max_it=1000)
        eps.solve()
        found = [eps.getEigenvalue(i) for i in range(eps.getConverged())]
    finally:
        eps.destroy()
        matrix.destroy()
    if not found:
        raise FemDnnError("the rightmost eigenvalues were not found in 1000 restarts")
    return np.array(found, dtype=np.complex128)
