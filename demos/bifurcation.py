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
# # Bifurcation: where the best network stops being unique
#
# A linear network with kernel and bias is to carry one function $f$ to $-f$. The *straight path*
# $f(t) = (1 - 2t)f$ through $0$ is always a critical point. It is the best one as long as
# $\sqrt{\lambda_b/\lambda_a}\,\|f\| < 1.5088796$; where kernels are cheaper, turning $f$ around to
# the left or to the right costs less. `fem-dnn path` follows the critical points as $\lambda_a$
# falls, sees an eigenvalue of the Hessian change its sign, and goes on along both new branches.

# %%
import math
from pathlib import Path

from mpi4py import MPI
from rich.console import Console

import fem_dnn
from fem_dnn import demos, pictures
from fem_dnn.assembly import assemble
from fem_dnn.inertia import inertia
from fem_dnn.path_following import path

comm = MPI.COMM_WORLD
out = demos.output_folder("bifurcation")
console = None if comm.rank or demos.quiet() else Console(soft_wrap=True)


def say(text: str) -> None:
    """Tell it, from rank 0."""
    if console is not None:
        console.print(text, highlight=False)


# %%
case = fem_dnn.read_case(demos.folder() / "bifurcation.toml")
reflection = path(case, fem_dnn.Request(out=out, console=console, comm=comm)).result
assert reflection["converged"], reflection["reason"]

# %% [markdown]
# ## The threshold to four digits
#
# Four layers of `dg1` give the picture; six of `dg2`, near the threshold only, give the number. The
# end point is held by an $\ell_2$ loss of weight 100, which moves the threshold by
# $2 \cdot 10^{-7}$.

# %%
EXACT = 1.5088796
finer = {
    "network.depth_scheme": "dg2",
    "mesh.depth.cells": 6,
    "path.start": 0.0640,
    "path.stop": 0.0625,
    "path.branch_switching": False,
}
for key, value in finer.items():
    case = case.with_value(key, value)
near = path(case, fem_dnn.Request(console=console, comm=comm)).result
(event,) = near["branches"][0]["events"]
threshold = 1.2 * math.sqrt(case.regularization.bias / event["parameter"])
say(f"the straight path loses stability at {threshold:.6f}; exact: {EXACT}")

# %% [markdown]
# ## The trivial branch of the circles problem
#
# Points on two circles; the output $\int_Y W f(T)\,dx$ reads a mode that the inputs do not have, so
# that a network which does nothing gives every point the same chance, and is a critical point for
# every $\lambda$: the gradient is $\sum_s y_s f_s = 0$ by symmetry. So the Hessian there sees the
# samples through $\sigma''(0)$ alone. With tanh or sigmoid $\sigma''(0) = 0$: doing nothing *never*
# loses stability. With gelu it does, at a $\lambda$ that its Hessian at any other $\lambda$ tells,
# because there the Hessian is $\lambda I$ plus what does not depend on $\lambda$.

# %%
circles = fem_dnn.read_case(demos.folder() / "bifurcation_circles.toml")
followed = path(circles, fem_dnn.Request(console=console, comm=comm)).result
assert followed["converged"], followed["reason"]
trivial, *others = followed["branches"]
loses = trivial["events"][0]["parameter"]
predicted = trivial["parameter"][0] - trivial["lowest_eigenvalue"][0]

calm = assemble(circles.with_value("network.activation", "tanh"), comm)
assert calm.problem is not None
lowest = inertia(calm.problem.linearise(calm.initial)).lowest
weight = calm.problem.regularization.kernel
folds = [event["parameter"] for branch in others for event in branch["events"]]
say(
    f"circles: doing nothing loses stability at {loses:.6f} (predicted {predicted:.6f});\n"
    f"what takes its place reaches back to a fold at {max(folds):.6f}: in between, both are "
    f"minima.\n"
    f"With tanh the lowest eigenvalue at lambda_a = {weight:.3g} is {lowest:.3g}: always stable."
)

# %%
if comm.rank == 0:
    figure = pictures.bifurcation_diagram(
        reflection, title="Carrying $f$ to $-f$: the straight path and its two rivals",
        name=r"$\lambda_a$",
    )  # fmt: skip
    pictures.save(figure, out / "bifurcation.png")
    figure = pictures.bifurcation_diagram(
        followed, title="Two circles: doing nothing loses stability", name=r"$\lambda_a$"
    )
    pictures.save(figure, out / "circles.png")
say(f"pictures: {Path(out).resolve()}")

# %% [markdown]
# The numbers this demo stands for: the threshold to four digits; a Hessian that tells its own.

# %%
assert abs(threshold - EXACT) < 5e-5
assert abs(loses - predicted) < 1e-6
assert abs(lowest - weight) < 1e-6 * weight
