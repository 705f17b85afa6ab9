"""CasADi with IPOPT: multiple shooting, the states of all layers being unknowns, exact Hessian."""

from __future__ import annotations

import casadi as ca
import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.discrete import DiscreteProblem, NumpyModel
from benchmarks.peers.watch import Stop, Watch

Array = NDArray[np.float64]

NEEDS = ("casadi",)
WITHIN_BOUNDS = True


class Model:
    """The programme min J, f_{l+1} - f_l - tau_l tanh(...) = 0, and J without the states.

    CasADi's matrices are stored by columns: Z as (nodes, layers * nodes), B as (nodes, layers),
    states as (nodes, layers * samples).

    Args:
        problem: The problem.
    """

    def __init__(self, problem: DiscreteProblem) -> None:
        self.problem = problem
        N, S, L = problem.nodes, problem.samples, problem.layers
        f, W, b, tau = (
            ca.SX.sym("f", N, S),
            ca.SX.sym("W", N, N),
            ca.SX.sym("b", N),
            ca.SX.sym("tau"),
        )
        u = (W @ f + ca.repmat(b, 1, S) / problem.cell**0.5) / ca.sqrt(tau)
        self.layer = ca.Function("layer", [f, W, b, tau], [f + tau * ca.tanh(u)])
        Z, B = ca.MX.sym("Z", N, L * N), ca.MX.sym("B", N, L)
        F = ca.MX.sym("F", N, L * S)
        controls = ca.vertcat(ca.vec(Z), ca.vec(B))
        steps = ca.DM(problem.steps).T
        before = ca.horzcat(ca.DM(problem.inputs), F[:, : (L - 1) * S])
        defects = self.layer.map(L)(before, Z, B, steps) - F
        penalty = self._penalty(Z, B)
        self.programme = {
            "x": ca.vertcat(controls, ca.vec(F)),
            "f": self._loss(F[:, (L - 1) * S :]) + penalty,
            "g": ca.vec(defects),
        }
        end = self.layer.mapaccum(L)(ca.DM(problem.inputs), Z, B, steps)[:, (L - 1) * S :]
        reduced = self._loss(end) + penalty
        c = ca.Function("c", [Z, B], [reduced, ca.gradient(reduced, Z), ca.gradient(reduced, B)])
        self._reduced = c

    def _loss(self, f: ca.MX) -> ca.MX:
        problem = self.problem
        weights = ca.DM(problem.loss_weight * problem.weights)
        if problem.loss == "l2":
            squares = ca.sum1((f - ca.DM(problem.targets)) ** 2).T
            return 0.5 * problem.cell * ca.dot(weights, squares)
        z = ca.DM(problem.outputs) @ f + ca.repmat(ca.DM(problem.offsets), 1, problem.samples)
        y = ca.DM(problem.targets)
        if problem.loss == "mse":
            return 0.5 * ca.dot(weights, ca.sum1((z - y) ** 2).T)
        if problem.loss == "logistic":
            return ca.dot(weights, ca.log1p(ca.exp(-y * z)).T)
        values = ca.log(ca.sum1(ca.exp(z))) - ca.sum1(z * y)
        return ca.dot(weights, values.T)

    def _penalty(self, Z: ca.MX, B: ca.MX) -> ca.MX:
        problem = self.problem
        if problem.mask.size or problem.kernel_depth or problem.bias_depth:
            raise ValueError("this model has neither masks nor penalised derivatives")
        return 0.5 * (problem.kernel * ca.sumsqr(Z) + problem.bias * ca.sumsqr(B))

    def columns(self, z: Array) -> tuple[Array, Array]:
        """A control vector as CasADi's Z and B."""
        Z, B = self.problem.split(z)
        return np.concatenate(list(Z), axis=1), B.T

    def objective_and_gradient(self, z: Array) -> tuple[float, Array]:
        """J with the states eliminated and its derivative, both by CasADi."""
        N, L = self.problem.nodes, self.problem.layers
        value, dZ, dB = (np.array(part) for part in self._reduced(*self.columns(z)))
        dZ = dZ.reshape(N, L, N).transpose(1, 0, 2)
        return value.item(), np.concatenate([dZ.ravel(), dB.T.ravel()])

    def unknowns(self, z: Array) -> Array:
        """The programme's unknowns at a control, the states being those of the network."""
        states = self.layer.mapaccum(self.problem.layers)(
            ca.DM(self.problem.inputs), *self.columns(z), ca.DM(self.problem.steps).T
        )
        parts = (*self.columns(z), np.array(states))
        return np.concatenate([part.ravel(order="F") for part in parts])

    def control(self, x: Array) -> Array:
        """The control vector in the programme's unknowns."""
        problem = self.problem
        Z = x[: problem.kernel_size].reshape(problem.layers, problem.nodes, problem.nodes)
        return np.concatenate([Z.transpose(0, 2, 1).ravel(), x[problem.kernel_size : problem.size]])


class Look(ca.Callback):
    """What IPOPT calls after every iteration: looks at the gradient with the states eliminated.

    Args:
        model: The programme.
        watch: The clock.
    """

    def __init__(self, model: Model, watch: Watch) -> None:
        ca.Callback.__init__(self)
        self.model, self.watch = model, watch
        self.reduced = NumpyModel(model.problem)
        x, g = model.programme["x"].numel(), model.programme["g"].numel()
        self.sizes = {"f": 1, "x": x, "lam_x": x, "g": g, "lam_g": g}
        self.construct("look", {})

    def get_n_in(self) -> int:
        return ca.nlpsol_n_out()

    def get_n_out(self) -> int:
        return 1

    def get_name_in(self, i: int) -> str:
        return ca.nlpsol_out(i)

    def get_sparsity_in(self, i: int) -> ca.Sparsity:
        return ca.Sparsity.dense(self.sizes.get(ca.nlpsol_out(i), 0), 1)

    def eval(self, arguments: list[ca.DM]) -> list[int]:
        x = np.array(arguments[[ca.nlpsol_out(i) for i in range(self.get_n_in())].index("x")])
        z = self.model.control(x.ravel())
        objective, gradient = self.reduced.objective_and_gradient(z)
        try:
            self.watch.see(objective, self.model.problem.norm(z, gradient))
        except Stop:
            return [1]
        return [0]


def solve(model: Model, start: Array, watch: Watch) -> None:
    """Minimise; the clock starts again once the derivatives have been made."""
    problem = model.problem
    look = Look(model, watch)
    options = {
        "print_time": False,
        "iteration_callback": look,
        "ipopt": {
            "print_level": 0,
            "sb": "yes",
            "tol": 1e-14,
            "acceptable_iter": 0,
            "max_iter": 10**6,
            "max_cpu_time": watch.limit,
        },
    }
    solver = ca.nlpsol("solver", "ipopt", model.programme, options)
    arguments = {"x0": model.unknowns(start), "lbg": 0.0, "ubg": 0.0}
    if problem.box is not None:
        free = np.full(model.programme["x"].numel() - problem.size, np.inf)
        lower, upper = (
            np.concatenate(model_order)
            for model_order in (
                (model.unknowns(problem.box[0])[: problem.size], -free),
                (model.unknowns(problem.box[1])[: problem.size], free),
            )
        )
        arguments |= {"lbx": lower, "ubx": upper}
    watch.start()
    solver(**arguments)
