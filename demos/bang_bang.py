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
# # Bang-bang controls: cheap weights within bounds are used in full
#
# Kernel and bias may move between bounds, and cost next to nothing. The optimal ones are
# projections onto the bounds of
# $-\frac1{\lambda_a}\sum_s w_s \sigma'(u_s)\,p_s \otimes f_s$ and
# $-\frac1{\lambda_b}\sum_s w_s \sigma'(u_s)\,p_s$: with a small $\lambda$ they sit at one bound or
# the other, and switch where these *switching functions* change their sign. Where a switching
# function vanishes throughout, on *singular arcs*, the control lies between its bounds.

# %%
from pathlib import Path

import numpy as np
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.patches import Patch
from mpi4py import MPI
from rich.console import Console

import fem_dnn
from fem_dnn import demos, pictures
from fem_dnn.pictures.style import CLASS_COLOURS, ColourScale, dress, grid, new_figure, picked
from fem_dnn.pictures.width import WidthNodes

comm = MPI.COMM_WORLD
out = demos.output_folder("bang_bang")
console = None if comm.rank or demos.quiet() else Console(soft_wrap=True)

# %%
case = fem_dnn.read_case(demos.folder() / "bang_bang.toml")
run = fem_dnn.solve(case, fem_dnn.Request(out=out, console=console, comm=comm))
result, arrays = run.result, run.arrays

# %% [markdown]
# ## Where which bound is attained
#
# $-1$ at the lower bound, $1$ at the upper one, $0$ between them: the bias over depth and width,
# and the kernel at several depths.


# %%
def arcs(values: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """-1, 0 or 1: at the lower bound, between the bounds, at the upper bound."""
    low, high = bounds
    reach = 1e-12 * (high - low)
    return (values >= high - reach).astype(float) - (values <= low + reach)


bounds = case.bounds
assert bounds.kernel is not None and bounds.bias is not None
kernel, bias = arcs(arrays["kernel"], bounds.kernel), arcs(arrays["bias"], bounds.bias)

# %%
if comm.rank == 0:
    nodes, t = WidthNodes.of(arrays), arrays["control_t"]
    colours = [CLASS_COLOURS[0], "#f7f7f7", CLASS_COLOURS[2]]
    scale = ColourScale(Normalize(-1, 1), ListedColormap(colours), "neither")
    figure = new_figure(9.2, 5.6, "Bang-bang: which bound kernel and bias attain")
    above, below = figure.subfigures(2, 1, height_ratios=[1, 1.05])
    assert nodes.edges is not None
    edges = nodes.edges[0]
    shown = picked(len(t), 4)
    for panel, level in zip(grid(above, len(shown), len(shown)), shown, strict=True):
        panel.pcolorfast(edges, edges, kernel[level], norm=scale.norm, cmap=scale.cmap)
        panel.set_aspect("equal")
        dress(panel, title=f"kernel, $t = {t[level]:.2f}$", x="$y$", y="$x$" if level == 0 else "")
    panel = below.subplots()
    depth = np.concatenate([[0.0], np.cumsum(arrays["control_weights"])])
    nodes.draw_over(panel, depth, bias, scale)
    dress(panel, title="bias", x="depth $t$", y="width $x$")
    names = ("at the lower bound", "between", "at the upper bound")
    keys = [
        Patch(facecolor=colour, edgecolor="#8a8f96", linewidth=0.6, label=name)
        for colour, name in zip(colours, names, strict=True)
    ]
    below.legend(handles=keys, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    pictures.save(figure, out / "bang_bang.png")
if console is not None:
    active = result["active_fraction"]
    console.print(
        f"{result['reason']}\nat a bound: {active['kernel']:.1%} of the kernel, "
        f"{active['bias']:.1%} of the bias\npictures: {Path(out).resolve()}",
        highlight=False,
    )

# %% [markdown]
# The number this demo stands for: at least 95 % of the kernel is at a bound.

# %%
assert result["converged"], result["reason"]
assert result["active_fraction"]["kernel"] >= 0.95
