# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Turnpike: what a longer depth is good for, with and without tracking
#
# C. Esteve, B. Geshkovski, D. Pighin and E. Zuazua (arXiv:2008.02491) ask what training looks like
# when the depth $T$ grows.
#
# *Without tracking*, the path of a network that is homogeneous in its controls (ReLU, linear) is
# stretched: $T$ times the depth takes controls $T$ times as small, so the cost falls like $1/T$ and
# the training error is that of a regularisation divided by $T$. Where the targets are in reach
# that is $T^{-2}$ for the $L^2$ loss. A tanh is linear to such small controls.
#
# *With tracking* of targets $g$ that do not depend on depth, near $f = g$ the optimality system is
# linear, and the distances of state and adjoint decay exponentially in $t$, with the exponents
# $r^2 \in \mu\,\mathrm{spec}(W^{1/2} K W^{1/2})$,
# $K_{ss'} = \langle g_s, g_{s'}\rangle/\lambda_a + 1/\lambda_b$: the network is done early, and the
# training error decays exponentially in $T$.

# %%
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mpi4py import MPI
from rich.console import Console

import fem_dnn
from fem_dnn import demos, pictures
from fem_dnn.controllability import turnpike_rates
from fem_dnn.pictures.style import CLASS_COLOURS, FAINT, dress_curves, new_figure

comm = MPI.COMM_WORLD
out = demos.output_folder("turnpike")
console = None if comm.rank or demos.quiet() else Console(soft_wrap=True)
case = fem_dnn.read_case(demos.folder() / "turnpike.toml")


@dataclass
class Trained:
    """A trained network: distances of state and adjoint along the depth, error and cost."""

    t: np.ndarray
    state: np.ndarray
    adjoint: np.ndarray
    error: float
    cost: float
    predicted: np.ndarray


def measured(at: fem_dnn.Linearisation) -> Trained:
    """What we look at."""
    problem, space = at.problem, at.problem.network.space
    loss = problem.loss
    assert isinstance(loss, fem_dnn.L2Loss)

    def norm(values: np.ndarray) -> np.ndarray:
        return np.sqrt(space.sum(np.einsum("n,kns->k", space.local_weights, values**2)))

    return Trained(
        problem.network.levels.points,
        norm(at.state.ends - loss.targets),
        norm(at.adjoint.ends),
        float(problem.sample_weights @ at.loss_point.values),
        at.regularization,
        turnpike_rates(problem) if problem.tracking is not None else np.zeros(0),
    )


def train(activation: str, tracking: float, depth: float, layers: int) -> Trained:
    """Train the case with other numbers in it."""
    changed = {
        "network.activation": activation,
        "loss.tracking": tracking,
        "mesh.depth.length": depth,
        "mesh.depth.cells": layers,
    }
    varied = case
    for key, value in changed.items():
        varied = varied.with_value(key, value)
    model = fem_dnn.assemble(varied, comm)
    assert model.problem is not None
    solution = fem_dnn.solve_newton(model.problem, model.initial)
    assert solution.converged, solution.reason
    return measured(solution.at)


def exponent(x: np.ndarray, values: np.ndarray) -> float:
    """r of values ~ exp(-r x), fitted where neither end of the depth is felt."""
    inside = (x > 0.3 * x[-1]) & (x < 0.9 * x[-1])
    return -float(np.polyfit(x[inside], np.log(values[inside]), 1)[0])


# %% [markdown]
# ## With tracking
#
# One long depth, linear and tanh, and shorter ones.

# %%
run = fem_dnn.solve(case, fem_dnn.Request(out=out, console=console, comm=comm))
assert run.solution is not None and run.solution.converged, run.result["reason"]
mu, layers = case.loss.tracking, 50
T = float(case.mesh.depth.slab_ends[-1])
tracked = {"linear": measured(run.solution.at), "tanh": train("tanh", mu, T, layers)}
free = {name: train(name, 0.0, T, layers) for name in tracked}
SHORTER = np.array([0.4, 0.6, 0.8, 1.0]) * T
errors = {
    name: [train(name, mu, d, round(layers * d / T)).error for d in SHORTER[:-1]]
    + [tracked[name].error]
    for name in tracked
}
slowest = float(tracked["linear"].predicted[0])
fits = {
    name: (
        exponent(of.t, of.state),
        exponent(of.t, of.adjoint),
        -float(np.polyfit(SHORTER, np.log(errors[name]), 1)[0]),
    )
    for name, of in tracked.items()
}

# %% [markdown]
# ## Without tracking

# %%
LONGER = np.array([2.0, 4.0, 8.0, 16.0, 32.0])
stretched = {
    name: [train(name, 0.0, depth, 8) for depth in LONGER] for name in ("linear", "relu", "tanh")
}
powers = {
    name: tuple(
        -float(np.polyfit(np.log(LONGER[-3:]), np.log(values[-3:]), 1)[0])
        for values in ([of.error for of in series], [of.cost for of in series])
    )
    for name, series in stretched.items()
}

# %%
if comm.rank == 0:
    figure = new_figure(10.2, 7.0, "A longer depth, with and without tracking the targets")
    axes = figure.subplots(2, 2)
    colours = dict(zip(("linear", "tanh", "relu"), CLASS_COLOURS, strict=False))
    looks = {"linear": "-", "tanh": "--", "relu": ":"}
    panels = (("state", r"$\|f(t) - g\|$"), ("adjoint", r"$\|p(t)\|$"))
    for panel, (what, symbol) in zip(axes[0], panels, strict=True):
        for name in tracked:
            panel.semilogy(
                tracked[name].t, getattr(tracked[name], what), looks[name], lw=1.8,
                color=colours[name], label=f"{name}, tracking",
            )  # fmt: skip
            panel.semilogy(
                free[name].t, getattr(free[name], what), looks[name], lw=1.4, color=FAINT,
                label=f"{name}, no tracking",
            )  # fmt: skip
        reference = tracked["linear"]
        middle = len(reference.t) // 2
        slope = getattr(reference, what)[middle] * np.exp(
            -slowest * (reference.t - reference.t[middle])
        )
        shown = slice(middle // 2, -2)
        panel.semilogy(
            reference.t[shown], 0.4 * slope[shown], color="black", lw=1,
            label=f"predicted: exp(-{slowest:.3f} t)",
        )  # fmt: skip
        dress_curves(panel, title=f"{what}, $T = {T:g}$", x="depth $t$", y=symbol)
        panel.legend(frameon=False, fontsize=8)
    left, right = axes[1]
    for name in tracked:
        left.semilogy(
            SHORTER, errors[name], "o" + looks[name], color=colours[name],
            label=f"{name}: exp(-{fits[name][2]:.2f} T)",
        )  # fmt: skip
    left.semilogy(
        SHORTER, 0.4 * errors["linear"][1] * np.exp(-2 * slowest * (SHORTER - SHORTER[1])),
        color="black", lw=1, label=f"predicted: exp(-{2 * slowest:.2f} T)",
    )  # fmt: skip
    dress_curves(left, title="with tracking", x="$T$", y="training error")
    for name, series in stretched.items():
        power = powers[name]
        right.loglog(
            LONGER, [of.error for of in series], "o" + looks[name], color=colours[name],
            label=f"{name}, error: $T^{{-{power[0]:.2f}}}$",
        )  # fmt: skip
        right.loglog(
            LONGER, [of.cost for of in series], "s" + looks[name], color=colours[name],
            markerfacecolor="white", label=f"{name}, cost: $T^{{-{power[1]:.2f}}}$",
        )  # fmt: skip
    dress_curves(right, title="without tracking", x="$T$", y="training error, cost of control")
    right.set_xticks(LONGER, [f"{depth:g}" for depth in LONGER])
    right.minorticks_off()
    for panel in (left, right):
        panel.legend(frameon=False, fontsize=8)
    pictures.save(figure, out / "turnpike.png")
if console is not None:
    lines = [f"with tracking, predicted exponent {slowest:.4f} of state and adjoint, twice it in T"]
    lines += [
        f"  {name:>6}: state {state:.4f}, adjoint {adjoint:.4f}, training error in T {error:.4f}"
        for name, (state, adjoint, error) in fits.items()
    ]
    lines.append("without tracking, powers of 1/T (theory: 2 and 1)")
    lines += [f"  {name:>6}: error {a:.3f}, cost {b:.3f}" for name, (a, b) in powers.items()]
    console.print("\n".join([*lines, f"pictures: {Path(out).resolve()}"]), highlight=False)

# %% [markdown]
# The numbers this demo stands for: the exponents in $t$ to 3 %, that in $T$ to 10 %, and the powers
# of $T$ to 5 %.

# %%
for state, adjoint, error in fits.values():
    assert abs(state / slowest - 1) < 0.03
    assert abs(adjoint / slowest - 1) < 0.03
    assert abs(error / (2 * slowest) - 1) < 0.1
for error_power, cost_power in powers.values():
    assert abs(error_power - 2) < 0.1
    assert abs(cost_power - 1) < 0.05
