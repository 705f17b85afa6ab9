"""The bordered linear systems of continuation, by GMRES without any matrix.

    [ H     F_xi ] [ dc  ]   [ g     ]
    [ r'    rho  ] [ dxi ] = [ gamma ]

is regular at regular points and at simple folds, where H alone is singular, if the row (r, rho) is
along the branch (Keller, 1977). H = R'' plus a compact operator; preconditioned by R''^{-1} it is
the identity plus a compact operator, and the border adds rank two, so that GMRES converges
superlinearly, on any mesh, whatever the sign of H's eigenvalues.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray
from petsc4py import PETSc

from fem_dnn.continuation.equations import Place, StepFailure
from fem_dnn.controls import ControlSpace
from fem_dnn.problem import Linearisation
from fem_dnn.riesz import RieszMap
from fem_dnn.slab import SlabFailure
from fem_dnn.solvers.curvature import MEMORY_BYTES
from fem_dnn.solvers.petsc import PREFIX, original_errors, read_options

Array = NDArray[np.float64]

DEFAULTS: dict[str, object] = {
    "ksp_type": "gmres",
    "ksp_pc_side": "right",
    "ksp_gmres_cgs_refinement_type": "refine_ifneeded",
    "ksp_max_it": 400,
}
"""PETSc options. Right preconditioning: the residual that is watched is the true one."""

LONGEST_BASIS = 200


@dataclass(frozen=True, eq=False)
class Bordered:
    """A bordered matrix.

    Attributes:
        at: Linearisation whose Hessian is H.
        rate: F_xi.
        row: (r, rho).
    """

    at: Linearisation
    rate: Array
    row: Place


class _Shell:
    """Context of the shell matrix and of its preconditioner. Rank 0 holds the last unknown.

    Args:
        controls: Control space.
    """

    def __init__(self, controls: ControlSpace) -> None:
        self.controls, self.comm = controls, controls.space.comm
        self.extra = 1 if self.comm.rank == 0 else 0
        self.system: Bordered | None = None

    def set(self, system: Bordered) -> None:
        """Move to another system."""
        self.system = system
        self.riesz = RieszMap(system.at.problem.regularization)
        # A block without weight keeps its residual as it is.
        self.scales = {name: scale or 1.0 for name, scale in self.riesz.scales.items()}

    def mult(self, _mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """y = the bordered matrix times x."""
        assert self.system is not None
        at, row = self.system.at, self.system.row
        place = self.unpacked(x.array_r)
        upper = at.hessian_action(place.control) + place.xi * self.system.rate
        lower = self.controls.dot(row.control, place.control) + row.xi * place.xi
        y.array_w[:] = self.packed(Place(upper, lower))

    def apply(self, _pc: PETSc.PC, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """y = R''^{-1} of the controls' part of x, and its last entry as it is."""
        place = self.unpacked(x.array_r)
        smooth = self.riesz.apply(self.riesz.apply_transpose(place.control))
        for name, block in self.controls.blocks.items():
            smooth[block] /= self.scales[name]
        y.array_w[:] = self.packed(Place(smooth, place.xi))

    def packed(self, place: Place) -> Array:
        """This rank's entries of a vector."""
        return np.append(place.control, place.xi) if self.extra else place.control

    def unpacked(self, values: Array) -> Place:
        """Controls and parameter of this rank's entries, the parameter on every rank."""
        last = float(values[-1]) if self.extra else 0.0
        if self.comm.size > 1:
            last = self.comm.bcast(last, root=0)
        return Place(np.array(values[: self.controls.n_local]), last)


class BorderedSolver:
    """GMRES for bordered systems on one control space.

    PETSc's options are read here: insert them before.

    Args:
        controls: Control space.
    """

    def __init__(self, controls: ControlSpace) -> None:
        self.controls = controls
        self.iterations = 0
        """Krylov iterations so far."""
        shell, comm = _Shell(controls), controls.space.comm
        size = controls.n_local + shell.extra, controls.n_global + 1
        self._shell = shell
        self._matrix = PETSc.Mat().createPython((size, size), shell, comm=comm)
        self._matrix.setUp()
        self._ksp = PETSc.KSP().create(comm)
        self._ksp.setOptionsPrefix(PREFIX)
        self._ksp.setOperators(self._matrix)
        pc = self._ksp.getPC()
        pc.setType(PETSc.PC.Type.PYTHON)
        pc.setPythonContext(shell)
        affordable = int(MEMORY_BYTES / (8 * max(size[0], 1)))
        length = comm.allreduce(min(LONGEST_BASIS, max(30, affordable)), op=MPI.MIN)
        self._ksp.setType(PETSc.KSP.Type.GMRES)
        self._ksp.setGMRESRestart(min(length, size[1]))
        read_options(self._ksp)

    def solve(self, system: Bordered, right: Place, rtol: float) -> Place:
        """Solve a bordered system to a relative residual, or as far as GMRES gets (collective).

        Raises:
            StepFailure: A tangent equation cannot be solved.
        """
        shell = self._shell
        shell.set(system)
        b, x = self._matrix.createVecs()
        try:
            b.array_w[:] = shell.packed(right)
            self._ksp.setTolerances(rtol=rtol)
            with original_errors():
                self._ksp.solve(b, x)
            self.iterations += self._ksp.getIterationNumber()
            return shell.unpacked(x.array_r)
        except SlabFailure as problem:
            raise StepFailure(str(problem)) from None
        finally:
            for vector in (b, x):
                vector.destroy()

    def destroy(self) -> None:
        """Free the PETSc objects, at the same moment on all ranks."""
        for thing in (self._ksp, self._matrix):
            thing.destroy()
