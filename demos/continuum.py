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
# # The continuum limit: one network at many widths and depths
#
# A network with more neurons and layers is a finer mesh for the same functions $a(x, y, t)$ and
# $b(x, t)$. So a network that was trained at one size runs at any other: its controls are
# projected there in $L^2$, and nothing is trained again.
#
# Thorpe and van Gennip (arXiv:1810.11741) prove that the minimisers of residual networks converge,
# as the layers increase, to those of the limit in continuous depth (they regularise the derivative
# in depth, which we do not here). We look at the same trend in depth and in width at once: the
# optimal objective settles, and so does what a given network does.

# %%
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from mpi4py import MPI
from rich.console import Console

import fem_dnn
from fem_dnn import demos, pictures
from fem_dnn.control_transfer import transfer_control

comm = MPI.COMM_WORLD
out = demos.output_folder("continuum")
console = None if comm.rank or demos.quiet() else Console(soft_wrap=True)
request = fem_dnn.Request(comm=comm)
case = fem_dnn.read_case(demos.folder() / "continuum.toml")


def at_size(cells: int, layers: int) -> fem_dnn.Case:
    """The same problem with so many neurons and layers."""
    return case.with_value("mesh.width.cells", cells).with_value("mesh.depth.cells", layers)


# %% [markdown]
# ## Train at one size, run at all
#
# What `fem-dnn transfer RESULT_DIR CASE.toml` does, for a grid of sizes.

# %%
trained = fem_dnn.solve(case, fem_dnn.Request(out=out, console=console, comm=comm))
assert trained.solution is not None and trained.model.problem is not None
SIZES = (2, 4, 8, 16, 32)
objective = np.empty((len(SIZES), len(SIZES)))
accuracy = np.empty_like(objective)
for i, layers in enumerate(SIZES):
    for j, cells in enumerate(SIZES):
        moved = fem_dnn.transfer(out, at_size(cells, layers), request)
        objective[i, j], accuracy[i, j] = moved["objective"], moved["test_accuracy"]

# %% [markdown]
# ## Train at several sizes
#
# Each from a neighbouring size's solution, so that all of them follow one minimiser. The
# differences between successive sizes fall at a rate; the limit is where they lead.

# %%
SQUARE = (4, 8, 16, 32)
TOLERANCES = fem_dnn.Tolerances(case.solver.rtol, case.solver.atol, case.solver.max_iterations)
solutions = {8: trained.solution}
for n, neighbour in ((4, 8), (16, 8), (32, 16)):
    model = fem_dnn.assemble(at_size(n, n), comm)
    assert model.problem is not None
    near = solutions[neighbour]
    guess = transfer_control(near.problem.controls, near.control, model.problem.controls)
    solutions[n] = fem_dnn.solve_newton(model.problem, guess, TOLERANCES, escape=False)
    assert solutions[n].converged, solutions[n].reason
optimal = [solutions[n].objective for n in SQUARE]
differences = -np.diff(optimal)
rate = float(-np.polyfit(np.log(SQUARE[:-1]), np.log(np.abs(differences)), 1)[0])
limit = optimal[-1] - differences[-1] / (2**rate - 1)

# %%
if comm.rank == 0:
    figure = Figure(figsize=(11.5, 3.9), layout="constrained", dpi=150)
    left, middle, right = figure.subplots(1, 3)
    for panel, values, title, form in (
        (left, objective, "objective $J$", "{:.3f}"),
        (middle, accuracy, "test accuracy", "{:.0%}"),
    ):
        colours = np.log(values)  # a few large values would bleach the rest
        panel.imshow(colours, origin="lower", cmap="viridis")
        middle_value = np.exp((colours.min() + colours.max()) / 2)
        for i in range(len(SIZES)):
            for j in range(len(SIZES)):
                panel.text(
                    *(j, i, form.format(values[i, j])), ha="center", va="center", fontsize=8,
                    color="white" if values[i, j] < middle_value else "black",
                )  # fmt: skip
        panel.set_xticks(range(len(SIZES)), SIZES)
        panel.set_yticks(range(len(SIZES)), SIZES)
        panel.set(xlabel="neurons", ylabel="layers", title=f"{title}, trained at 8 x 8, run at")
        panel.title.set_fontsize(10)
        at = SIZES.index(8) - 0.5
        panel.plot(
            [at, at + 1, at + 1, at, at], [at, at, at + 1, at + 1, at], color="#e76300", lw=2
        )
    gap = np.array(optimal) - limit
    right.loglog(SQUARE, np.abs(gap), "o-", color="#3f90da", label="trained at each size")
    diagonal = [abs(objective[k, k] - limit) for k in range(len(SIZES))]
    right.loglog(SIZES, diagonal, "s--", color="#e76300", label="trained at 8 x 8, transferred")
    right.set_xticks(SIZES, SIZES)
    right.minorticks_off()
    right.set(xlabel="neurons = layers", ylabel="distance of $J$ from the limit of the optima")
    right.set_title(f"optimal objective: rate {rate:.2f}, limit {limit:.4f}", fontsize=10)
    right.legend(frameon=False, fontsize=8)
    pictures.save(figure, out / "continuum.png")
if console is not None:
    lines = ["test accuracy (objective) of the network trained at 8 x 8, layers x neurons"]
    lines.append("layers  " + "".join(f"{cells:>16}" for cells in SIZES))
    for i, layers in enumerate(SIZES):
        row = (f"{accuracy[i, j]:8.1%} ({objective[i, j]:.3f})" for j in range(len(SIZES)))
        lines.append(f"{layers:>6}  " + "".join(f"{cell:>16}" for cell in row))
    lines.append("optimal objective " + ", ".join(
        f"{n} x {n}: {J:.5f}" for n, J in zip(SQUARE, optimal, strict=True)
    ))  # fmt: skip
    lines.append(f"rate {rate:.2f}, limit {limit:.5f}\npictures: {Path(out).resolve()}")
    console.print("\n".join(lines), highlight=False)

# %% [markdown]
# The number this demo stands for: the optimal objective converges at about first order, that of
# the layers and of piecewise constants. And the transferred network, at twice as many neurons and
# layers, still classifies as before, up to a few of the 40 test samples; coarser than it was
# trained it loses what it has learned, because it resolves neither its inputs nor its flow.

# %%
assert 0.8 < rate < 1.6, rate
assert abs(accuracy[3, 3] - accuracy[2, 2]) < 0.06
