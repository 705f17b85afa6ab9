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
# # Neurons on a disc: a network learns to turn functions by 120 degrees
#
# The width domain $Y$ need not be an interval: here the neurons sit on the unit disc, on a mesh of
# triangles from a file. Three bumps are each to be carried to where a turn by $120°$ puts them,
# $f_s(T) \approx g_s$, by one kernel $a(x, y, t)$ for all of them. Nothing tells the network that
# it is a rotation.

# %%
from pathlib import Path

import numpy as np
from mpi4py import MPI
from rich.console import Console

import fem_dnn
from fem_dnn import demos, pictures

comm = MPI.COMM_WORLD
out = demos.output_folder("disc")
console = None if comm.rank or demos.quiet() else Console(soft_wrap=True)

# %%
case = fem_dnn.read_case(demos.folder() / "disc.toml")
run = fem_dnn.solve(case, fem_dnn.Request(out=out, console=console, comm=comm))
result, arrays = run.result, run.arrays

# %% [markdown]
# ## What was asked for, and what came out
#
# The result folder holds the state through depth on the true cells, the receptive fields
# $a(x, \cdot, t)$ of some neurons and the training curve. Below, the targets beside the state at
# $t = T$, and the error between them.

# %%
targets = run.model.ingredients.train.targets
assert targets is not None
reached = arrays["state"][-1]
if comm.rank == 0:
    figure = pictures.compared_functions(
        arrays,
        {"input $f_I$": arrays["state"][0], "target $g$": targets, "reached $f(T)$": reached},
        "Three functions on the disc, turned by 120 degrees",
    )
    pictures.save(figure, out / "turned.png")


def norm(f: np.ndarray) -> np.ndarray:
    """Norms in L2(Y), over the last axis."""
    return np.sqrt(f**2 @ arrays["node_weights"])


error = norm(reached - targets) / norm(targets)
if console is not None:
    console.print(
        f"{result['reason']}\nrelative error of the turned functions: {error.max():.2%}\n"
        f"pictures: {Path(out).resolve()}",
        highlight=False,
    )

# %% [markdown]
# The number this demo stands for: every function arrives within a few percent, in $L^2(Y)$.

# %%
assert result["converged"], result["reason"]
assert error.max() < 0.05
