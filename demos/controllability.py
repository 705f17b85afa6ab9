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
# # Controllability: what a network can reach, at what cost, and what it cannot
#
# Along the straight path $f_s(t) = f_{I,s} + t v_s$, $v_s = (g_s - f_{I,s})/T$, the pre-activations
# $u_s = \sigma^{-1}(v_s)$ and the Gram matrix $K_{ss'} = \langle f_s, f_{s'}\rangle/\lambda_a +
# 1/\lambda_b$ give kernel and bias in closed form, $q = K^{-1}u$: they reach every target exactly,
# without training, if $v_s$ lies in the range of $\sigma$ and $K(t)$ is positive definite. They are
# not the cheapest controls that do.

# %%
from dataclasses import replace
from pathlib import Path

import numpy as np
from mpi4py import MPI
from rich.console import Console

import fem_dnn
from fem_dnn import demos, pictures
from fem_dnn.controllability import (
    exact_controls,
    gramian_spectrum,
    loss_floor,
    minimum_norm_controls,
    vanishing_regularization,
)
from fem_dnn.pictures.style import CLASS_COLOURS, FAINT, dress_curves, new_figure

comm = MPI.COMM_WORLD
out = demos.output_folder("controllability")
console = None if comm.rank or demos.quiet() else Console(soft_wrap=True)

# %%
case = fem_dnn.read_case(demos.folder() / "controllability.toml")
run = fem_dnn.solve(case, fem_dnn.Request(out=out, console=console, comm=comm))
problem = run.model.problem
assert run.solution is not None and problem is not None
space, levels = problem.network.space, problem.network.levels
loss = problem.loss
assert isinstance(loss, fem_dnn.L2Loss)

# %% [markdown]
# ## Exact controls, and the cheapest ones
#
# The straight path through the forward solver, and from there the method of multipliers to the
# least cost among controls that reach the targets.

# %%
exact = exact_controls(problem)
cheapest = minimum_norm_controls(problem, exact.control)
assert cheapest.converged, cheapest.reason


def cost_along_depth(control: np.ndarray) -> np.ndarray:
    """Density in depth of R, at the levels."""
    parts = problem.controls.split(control)
    assert parts.kernel is not None and parts.bias is not None
    R = problem.regularization
    squares = R.kernel * np.sum(parts.kernel**2, axis=(1, 2)) + R.bias * np.sum(
        parts.bias**2, axis=1
    )
    return 0.5 * space.sum(squares) / levels.weights


densities = {"straight path": cost_along_depth(exact.control)}
densities["least cost"] = cost_along_depth(cheapest.at.control)

# %% [markdown]
# ## As the regularisation vanishes
#
# In reach, the loss falls like $\varepsilon^2$ with the regularisation $\varepsilon R$. Beyond, a
# floor remains, $|g - f_I| > T$ being out of reach of a tanh, and as no control attains it the rest
# falls like $\varepsilon$ up to a logarithm only.

# %%
beyond = replace(
    problem, loss=replace(loss, targets=problem.inputs + 1.6 * (loss.targets - problem.inputs))
)
floor = loss_floor(beyond).value
start = np.zeros(problem.controls.n_local)
inside = vanishing_regularization(problem, start, ratio=0.25, points=7)
outside = vanishing_regularization(beyond, start, ratio=0.25, points=7)
assert inside.converged and outside.converged

# %% [markdown]
# ## Directions that cannot be reached
#
# The Gramian of the linearised equation at the trained network: all of its eigenvalues are
# positive, so the trained outputs can be moved in every direction. If two of the samples coincide,
# as many directions as there are neurons are lost.

# %%
coinciding = replace(problem, inputs=problem.inputs[:, [0, 1, 0]])
spectra = {
    "three different samples": gramian_spectrum(run.solution.at),
    "two of them coincide": gramian_spectrum(coinciding.linearise(run.solution.control)),
}

# %%
ends = {"input": problem.inputs, "target": loss.targets, "reached": exact.at.state.ends[-1]}
whole = {name: space.to_file_order(values, axis=0) for name, values in ends.items()}
if comm.rank == 0:
    figure = new_figure(10.2, 7.0, "What a network can reach, at what cost, and what it cannot")
    (reached, cost), (vanishing, spectrum) = figure.subplots(2, 2)
    x = space.nodes[:, 0]
    for s, colour in enumerate(CLASS_COLOURS[:3]):
        reached.plot(x, whole["input"][:, s], ":", color=colour, lw=1.2)
        reached.plot(x, whole["reached"][:, s], color=colour, lw=1.8)
        reached.plot(x, whole["target"][:, s], "o", color=colour, markersize=4, mfc="white")
    for look, name in ((":", "input"), ("-", "reached"), ("o", "target")):
        reached.plot([], [], look, color=FAINT, mfc="white", label=name)
    dress_curves(
        reached, title=f"exact controls: misfit {exact.misfit:.0e}", x="width $x$", y="$f$"
    )
    t = levels.points
    for name, colour in zip(densities, (CLASS_COLOURS[2], CLASS_COLOURS[0]), strict=True):
        total = float(densities[name] @ levels.weights)
        cost.stairs(densities[name], t, color=colour, lw=1.8, label=f"{name}: $R$ = {total:.4f}")
    cost.set_ylim(bottom=0)
    dress_curves(cost, title="cost of control along the depth", x="depth $t$", y="density of $R$")
    for path, least, name, colour in (
        (inside, 0.0, "in reach: loss", CLASS_COLOURS[0]),
        (outside, floor, f"beyond: loss - {floor:.4f}", CLASS_COLOURS[2]),
    ):
        label = rf"{name} $\sim \varepsilon^{{{path.rate:.2f}}}$"
        vanishing.loglog(path.factors, path.losses - least, "o-", color=colour, label=label)
    dress_curves(vanishing, title="vanishing regularisation", x=r"$\varepsilon$", y="loss")
    for (name, values), look, colour in zip(
        spectra.items(), ("o", "s"), (CLASS_COLOURS[0], CLASS_COLOURS[2]), strict=True
    ):
        sizes = np.maximum(values.eigenvalues[::-1] / values.largest, 1e-18)
        lost = f": {values.unreachable} directions lost"
        spectrum.semilogy(
            np.arange(1, len(sizes) + 1), sizes, look, color=colour, markersize=4, mfc="white",
            label=name + lost,
        )  # fmt: skip
    spectrum.axhline(1e-12, color=FAINT, lw=0.8, ls="--")
    dress_curves(spectrum, title="spectrum of the Gramian", x="number", y="eigenvalue / largest")
    for panel, place in (
        (reached, "upper left"), (cost, "lower left"), (vanishing, "lower right"),
        (spectrum, "center left"),
    ):  # fmt: skip
        panel.legend(frameon=False, fontsize=8, loc=place)
    pictures.save(figure, out / "controllability.png")
if console is not None:
    console.print(
        f"exact controls: misfit {exact.misfit:.1e}, cost {exact.cost:.6f}, K's lowest eigenvalue "
        f"{exact.lowest_eigenvalue:.1e} of its highest\n"
        f"least cost: misfit {cheapest.misfit:.1e}, cost {cheapest.cost:.6f}\n"
        f"vanishing regularisation: in reach rate {inside.rate:.2f}, limit {inside.limit:.1e}; "
        f"beyond rate {outside.rate:.2f}, limit {outside.limit:.5f}, floor {floor:.5f}\n"
        + "\n".join(
            f"Gramian, {name}: lowest / largest {s.ratio:.1e}, unreachable {s.unreachable}"
            for name, s in spectra.items()
        )
        + f"\npictures: {Path(out).resolve()}",
        highlight=False,
    )

# %% [markdown]
# The numbers this demo stands for: targets reached to round-off; the floor approached from above;
# rate 2 in reach; one lost direction per neuron where two samples coincide.

# %%
assert exact.misfit < 1e-12
assert cheapest.cost < exact.cost
assert abs(inside.rate - 2) < 0.15
assert outside.losses[-1] > floor and abs(outside.limit - floor) < 0.02 * floor
assert spectra["three different samples"].unreachable == 0
assert spectra["two of them coincide"].unreachable == space.n_nodes
