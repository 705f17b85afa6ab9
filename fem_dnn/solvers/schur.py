"""The optimality system's matrix and its preconditioner, as PETSc sees them.

With A = (L_Pz, L_Pc) the linearised state equation, the system's matrix and its preconditioner are

    | H  A* |         | G  A* |
    | A  0  | ,       | A  0  | ,       G = diag(0, R''),

the latter what remains when second derivatives other than the regulariser's are left out. Applying
its inverse takes an adjoint sweep, a solve with R'' for the controls (in place of the reduced
Hessian, the Schur complement), and a tangent sweep: Biros & Ghattas, SIAM J. Sci. Comput. 27, 2005.
It keeps A exactly. Therefore conjugate gradients, started where A d = 0, stay there and do what
they would do on the reduced Hessian preconditioned by R'' (Gould, Hribar & Nocedal, SIAM J. Sci.
Comput. 23, 2001), indefinite though both matrices are; and the reduced Hessian is R'' plus a
compact operator, so that their number does not grow with the mesh.
"""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray
from petsc4py import PETSc

from fem_dnn.problem import LearningProblem
from fem_dnn.riesz import RieszMap
from fem_dnn.solvers.optimality_system import OptimalityPoint, SystemSpace, Unknowns

Array = NDArray[np.float64]


class ControlMetric:
    """R'' on controls, or for what R leaves free the smallest weight that it has (1 if none).

    Args:
        problem: The learning problem.
    """

    def __init__(self, problem: LearningProblem) -> None:
        self.problem, self.riesz = problem, RieszMap(problem.regularization)
        controls, scales = problem.controls, self.riesz.scales
        weights = [s for name, s in scales.items() if s > 0 and name in _present(problem)]
        self._free = [controls.blocks[name] for name, s in scales.items() if s == 0]
        self._weight = min(weights, default=1.0)

    def solve(self, gradient: Array) -> Array:
        """The control that represents a gradient (collective)."""
        control = self.riesz.solve(gradient)
        for block in self._free:
            control[block] = gradient[block] / self._weight
        return control

    def norm(self, control: Array) -> float:
        """Norm of a control (collective)."""
        image = self.problem.regularization.action(control)
        for block in self._free:
            image[block] += self._weight * control[block]
        return float(np.sqrt(max(self.problem.controls.dot(control, image), 0.0)))


def _present(problem: LearningProblem) -> set[str]:
    controls = problem.controls
    there = {"kernel": controls.has_kernel, "bias": controls.has_bias}
    there |= dict.fromkeys(("outputs", "offsets"), controls.outputs > 0)
    return {name for name, present in there.items() if present}


class SchurSystem:
    """The matrix and its preconditioner at one point, moved from iterate to iterate.

    Args:
        problem: The learning problem.

    Attributes:
        space: Vectors of unknowns.
        metric: R'', the approximate reduced Hessian.
        at: The point.
        matrix: The matrix for PETSc.
    """

    def __init__(self, problem: LearningProblem) -> None:
        self.space, self.metric = SystemSpace(problem), ControlMetric(problem)
        self.comm = problem.network.space.comm
        self.at: OptimalityPoint | None = None
        self._sizes = (self.space.n_local, self.space.n_global)
        sizes = (self._sizes, self._sizes)
        self.matrix = PETSc.Mat().createPython(sizes, _Matrix(self), comm=self.comm)
        self.matrix.setOption(PETSc.Mat.Option.SYMMETRIC, True)
        self.matrix.setUp()

    def vector(self) -> PETSc.Vec:
        """A new vector; the caller destroys it."""
        return PETSc.Vec().createMPI(self._sizes, comm=self.comm)

    def use(self, ksp: PETSc.KSP) -> None:
        """Give a Krylov solver the matrix and the preconditioner."""
        ksp.setOperators(self.matrix, self.matrix)
        pc = ksp.getPC()
        pc.setType(PETSc.PC.Type.PYTHON)
        pc.setPythonContext(_Preconditioner(self))

    def product(self, direction: Unknowns) -> Unknowns:
        """The matrix applied to a direction (collective)."""
        assert self.at is not None, "the system has no point yet"
        return self.at.product(direction)

    def precondition(self, right: Unknowns) -> Unknowns:
        """One adjoint sweep, one solve with R'', one tangent sweep (collective)."""
        at = self.at
        assert at is not None, "the system has no point yet"
        at.problem.work.hessians += 1
        adjoint = at.solve_linearised_adjoint(right.slopes)
        control = self.metric.solve(right.control - at.stationarity_part(adjoint.q))
        slopes = at.solve_linearised_state(right.multipliers, control)
        return Unknowns(slopes, adjoint.levels, control)

    def destroy(self) -> None:
        """Free the PETSc objects, at the same moment on all ranks."""
        self.matrix.destroy()
        self.at = None


class _Matrix:
    """Context of the shell matrix."""

    def __init__(self, system: SchurSystem) -> None:
        self.system = system

    def mult(self, _mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        space = self.system.space
        y.array_w[:] = space.coordinates(self.system.product(space.values(x.array_r)))

    multTranspose = mult  # noqa: N815 (the name PETSc calls)


class _Preconditioner:
    """Context of the preconditioner."""

    def __init__(self, system: SchurSystem) -> None:
        self.system = system

    def apply(self, _pc: PETSc.PC, x: PETSc.Vec, y: PETSc.Vec) -> None:
        space = self.system.space
        y.array_w[:] = space.coordinates(self.system.precondition(space.values(x.array_r)))


def set_trust_radius(ksp: PETSc.KSP, radius: float) -> None:
    """Bound the solution of conjugate gradients, in the preconditioner's norm.

    petsc4py does not wrap this function.
    """
    library = ctypes.CDLL(PETSc.__file__)
    library.KSPCGSetRadius(ctypes.c_void_p(ksp.handle), ctypes.c_double(radius))
