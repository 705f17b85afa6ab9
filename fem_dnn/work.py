"""How much work solves take, counted in state equations."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Work:
    """Work done so far.

    Attributes:
        states, adjoints: State and adjoint equations solved; solves over a part of the depth count
            as that part.
        hessians: Hessian-vector products.
        hamiltonians: Evaluations of the Hamiltonian's derivative along a known trajectory.
    """

    states: float = 0
    adjoints: float = 0
    hessians: int = 0
    hamiltonians: float = 0

    @property
    def sweeps(self) -> float:
        """All work in state solves: one costs as much as an adjoint, or as a Hamiltonian.

        A Hessian product is a tangent and a second adjoint, each of twice the products: as much as
        two gradients, a state and an adjoint each.
        """
        return self.states + self.adjoints + 4 * self.hessians + self.hamiltonians

    def plus(self, other: Work, times: int = 1) -> Work:
        """The sum with other work, or with a multiple of it."""
        return Work(
            self.states + times * other.states,
            self.adjoints + times * other.adjoints,
            self.hessians + times * other.hessians,
            self.hamiltonians + times * other.hamiltonians,
        )

    def take_over(self, other: Work, part: float) -> None:
        """Count a part of the equations solved elsewhere as solved here, and there no more.

        Hessian products are counted where they are asked for.
        """
        self.states += part * other.states
        self.adjoints += part * other.adjoints
        other.states = other.adjoints = 0.0

    def minus(self, earlier: Work) -> Work:
        """What has been done since."""
        return self.plus(earlier, -1)
