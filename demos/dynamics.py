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
# # Forward dynamics: what rests, what decays, what grows in a very deep network
#
# With weights that do not depend on the depth, $\partial_t f = \sigma(Kf + b)$ rests where
# $\sigma(Kf + b) = 0$. Near a state at rest perturbations grow or decay with the eigenvalues of
# $M = \sigma'(Kf + b) K$; far from it the activation decides: tanh moves no faster than 1, sigmoid
# never rests, ReLU never goes down.

# %%
from pathlib import Path

import numpy as np
from mpi4py import MPI
from rich.console import Console

import fem_dnn
from fem_dnn import demos, pictures
from fem_dnn.forward_dynamics import measured_growth, stability, steady_state
from fem_dnn.pictures.style import CLASS_COLOURS, dress_curves, new_figure
from fem_dnn.state import solve_state

comm = MPI.COMM_WORLD
out = demos.output_folder("dynamics")
console = None if comm.rank or demos.quiet() else Console(soft_wrap=True)
case = fem_dnn.read_case(demos.folder() / "dynamics.toml")
fem_dnn.forward(case, fem_dnn.Request(out=out, console=console, comm=comm))

# %% [markdown]
# ## Three kernels, and what the linearisation says of the state at rest
#
# The kernel $\alpha \cos(\pi(x - y)) + \beta \sin(\pi(x - y))$ has the eigenvalues
# $(\alpha \pm i \beta)/2$; all others vanish, so the bias of the state at rest is free along them.

# %%
KERNELS = {"decay": (-0.5, 0.0), "rotation": (-0.1, 2.0), "growth": (0.5, 0.0)}


def kernel(alpha: float, beta: float) -> str:
    """The kernel as a case's expression."""
    return f"{alpha}*cos(pi*(x[0]-y[0])) + {beta}*sin(pi*(x[0]-y[0]))"


def model_of(name: str, activation: str = "tanh") -> fem_dnn.Model:
    """The case with another kernel and activation."""
    changed = case.with_value("network.kernel", kernel(*KERNELS[name]))
    return fem_dnn.assemble(changed.with_value("network.activation", activation), comm)


def norms(model: fem_dnn.Model, inputs: np.ndarray) -> np.ndarray:
    """|f(t)| at the slab ends."""
    space = model.network.space
    ends = solve_state(model.network, model.given, inputs).ends
    squares = np.einsum("n,tns->t", space.local_weights, ends**2)
    return np.asarray(np.sqrt(space.sum(squares)))


def inputs_of(model: fem_dnn.Model) -> np.ndarray:
    """f_I, shape (n_local, 1)."""
    space = model.network.space
    return space.from_file_order(model.ingredients.train.inputs).T.copy()


verdicts, courses = {}, {}
for name in KERNELS:
    model = model_of(name)
    f = inputs_of(model)
    rest = steady_state(model.network, model.given, np.zeros_like(f))
    verdicts[name] = stability(model.network, model.given, rest)
    moving = verdicts[name].eigenvalues[np.argmax(np.abs(verdicts[name].eigenvalues))]
    measured = measured_growth(model.network, model.given, rest, f)
    courses[name] = (norms(model, f), float(moving.real), measured)
    if console is not None:
        rate = f"{moving.real:+.4f} ± {abs(moving.imag):.4f} i"
        console.print(f"{name:9} eigenvalues {rate}, measured rate {measured:+.4f}")

# %% [markdown]
# ## The same kernel, other activations

# %%
ACTIVATIONS = ("linear", "tanh", "relu", "sigmoid", "softplus")
grown = {}
for activation in ACTIVATIONS:
    model = model_of("growth", activation)
    grown[activation] = norms(model, inputs_of(model))

# %%
if comm.rank == 0:
    t = model.network.levels.points
    figure = new_figure(11.0, 4.2, "A very deep network with the same weights in every layer")
    left, right = figure.subplots(1, 2)
    for colour, (name, (size, rate, _)) in zip(CLASS_COLOURS, courses.items(), strict=False):
        left.semilogy(t, size, color=colour, lw=1.8, label=f"{name}: Re = {rate:+.2f}")
        early = size[0] * np.exp(rate * t)
        left.semilogy(t[early < 10], early[early < 10], "--", color="black", lw=1, zorder=3)
    dress_curves(left, title="tanh: dashed, the linearisation", x="depth $t$", y=r"$\|f(t)\|$")
    left.legend(frameon=False)
    for colour, (activation, size) in zip(CLASS_COLOURS, grown.items(), strict=False):
        right.semilogy(t, size, color=colour, lw=1.8, label=activation)
    dress_curves(right, title="growing kernel, every activation", x="depth $t$", y=r"$\|f(t)\|$")
    right.legend(frameon=False)
    pictures.save(figure, Path(out) / "dynamics.png")
    if console is not None:
        console.print(f"pictures: {out}", highlight=False)

# %%
for _, predicted, found in courses.values():
    assert abs(found - predicted) < 1e-3, "growth in depth is not what the eigenvalues say"
