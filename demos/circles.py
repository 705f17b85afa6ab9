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
# # Two circles: how a flow separates what no line can
#
# Points on two concentric circles, labelled by the circle. A point $(z_1, z_2)$ becomes a function
# on the unit interval by its two cosine modes; the network flows it to where one linear functional,
# $z(T) = \int_Y W f(T)\,dx$, tells the circles apart.

# %%
from pathlib import Path

import numpy as np
from mpi4py import MPI
from rich.console import Console

import fem_dnn
from fem_dnn import datasets, demos, pictures
from fem_dnn.assembly import local_samples
from fem_dnn.state import solve_state

comm = MPI.COMM_WORLD
out = demos.output_folder("circles")
console = None if comm.rank or demos.quiet() else Console(soft_wrap=True)

# %%
case = fem_dnn.read_case(demos.folder() / "circles.toml")
run = fem_dnn.solve(case, fem_dnn.Request(out=out, console=console, comm=comm))
result, model = run.result, run.model
embedded = model.ingredients.dataset
assert run.solution is not None and model.problem is not None and embedded is not None

# %% [markdown]
# ## The decision region, before and after
#
# The probability of the inner circle for every point of the plane: embed a grid of points, run the
# network on it, read the output.

# %%
GRID = 81
side = np.linspace(-1.6, 1.6, GRID)
grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
space = model.network.space
functions = datasets.embed(
    embedded.scaling(grid),
    space.nodes,
    space.node_weights,
    space.bounds,
    embedding=embedded.embedding,
)


def probability(at: fem_dnn.Linearisation) -> np.ndarray:
    """Probability of the second class on the grid, shape (GRID, GRID)."""
    terminal = solve_state(model.network, at.weights, local_samples(space, functions)).ends[-1]
    assert at.output_layer is not None
    z = model.outputs_of(terminal, at.output_layer)[:, 0]
    return (1 / (1 + np.exp(-z))).reshape(GRID, GRID)


before = probability(model.problem.linearise(model.initial))
after = probability(run.solution.at)
arrays = run.arrays

# %%
if comm.rank == 0:
    train, test = model.ingredients.train, model.ingredients.test
    assert train.features is not None and train.targets is not None
    assert test is not None and test.features is not None and test.targets is not None
    names = ["outer circle", "inner circle"]
    figure = pictures.decision_regions(
        {"before training": before, "after training": after},
        (side, side),
        (train.features, train.targets),
        test=(test.features, test.targets),
        class_names=names,
        feature_names=("$z_1$", "$z_2$"),
        title="Two circles: which points the network takes for the inner one",
    )
    pictures.save(figure, out / "decision_region.png")
    figure = pictures.trajectories(arrays, train.targets, class_names=names)
    pictures.save(figure, out / "trajectories.png")
if console is not None:
    console.print(
        f"{result['reason']}\ntest accuracy {result['test_accuracy']:.2%}\n"
        f"pictures: {Path(out).resolve()}",
        highlight=False,
    )

# %% [markdown]
# The number this demo stands for: at least 95 % of unseen points on the right side, as many as the
# noise allows.

# %%
assert result["converged"], result["reason"]
assert result["test_accuracy"] >= 0.95
