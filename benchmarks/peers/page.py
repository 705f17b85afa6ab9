"""docs/peers.md: the records as tables, ratios, and where they fall short of what we aim at."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import median

from benchmarks.markdown import digits, duration, span, table
from benchmarks.peers.records import DOCS, Record
from benchmarks.peers.summary import (
    NAMES,
    groups,
    of,
    rate,
    reached,
    seconds,
    sweeps,
    times,
)
from benchmarks.peers.verdicts import PRODUCT, RATE, SIZE, cost_aim, reasons, verdict_table

PATH = DOCS / "peers.md"

COSTS = {
    "newton": "**fem-dnn**",
    "jax_trust_ncg": "JAX, compiled",
    "scipy_lbfgsb": "NumPy, by hand",
    "torch_lbfgs": "PyTorch, autograd",
}

HEAD = """# Beside the peers

Made by `python3 -m benchmarks.peers TABLE` (TABLE: solves, tiny, wide, costs; page: none, only this
page anew), which any Python from 3.11 starts outside of the environment; do not edit. All runs are
in [peers.json](peers.json).

Everybody solves the same discretised problem, from the same controls, to the same accuracy. Each
peer reads it as arrays (`benchmarks/peers/discrete.py`) and is measured only where its objective
and gradient norm agree with ours at two controls: here to {difference:.0e} or better. Its unknowns
are ours, L2-orthonormal coordinates, which suit it better than raw weights. A solve ends where the
L2 norm of the gradient (projected where there are bounds) has fallen to 1e-8 of its value at the
start; the peers' own tests of convergence are off, and they begin anew where a line search gives
up. Compiling and building (JAX, CasADi) are not counted, nor is our eigenvalue proof that the point
is a minimiser, which no peer has: "with proof" says how many times as long a solve is with it.
Methods may end at different minimisers.

- **fem-dnn `newton`**: all defaults, through the library's `solve_newton`, in the form the program
  chooses (`benchmarks/peers/newton.py`).
- **JAX + SciPy trust-ncg**: `jit`, `scan` over layers, Hessian products forward over reverse.
- **SciPy L-BFGS-B** on an exact gradient written by hand in NumPy, 10 pairs (20 were slower on
  `sine`).
- **PyTorch L-BFGS**: strong Wolfe, double precision, autograd, 100 pairs (10, 20 and 50 were
  slower on `sine`; 11 on the wide network, for memory).
- **CasADi + IPOPT**: multiple shooting, exact Hessian, MUMPS, IPOPT's defaults otherwise.
- **PyTorch Adam**: all samples at once, rate 1e-3, weights W f + b; its lowest objective in the
  time that `newton` takes.

Seconds are the process's own ({threads}); on an idle machine they are the wall clock's, but this
machine had {cores} cores for several jobs: the wall's clock, in brackets, says how busy it was.
Medians over the runs (seeds 0, 1, ... of standard normal controls).

- "times" is the time divided by that of `newton`{marked}.
- A sweep is a state or an adjoint; of the peers two are counted for a gradient and four for a
  Hessian product (IPOPT's cannot be).
- "per gradient" is the time divided by the number of gradients, a Hessian product counted as two:
  what a solver's own work adds to the costs in the last table.
- "rate" is the machine's, of square matrix products of order 1 500, in GFLOP/s, measured by NumPy
  in every process of ours and in those of the last table.

Versions: {versions}.
"""

NOTE = "; ° where the two were measured in different sessions"


def render(records: Sequence[Record]) -> str:
    """The page."""
    known = {
        key: [r for r in records if r["table"] == key] for key in {r["table"] for r in records}
    }
    body = [_solves(known[name], name, title) for name, title in TITLES if name in known]
    if "costs" in known:
        body.append(_costs(known["costs"]))
    marked = NOTE if any("°" in part for part in body) else ""
    return "\n".join([_head(records, marked), *body, reasons(known)])


TITLES = (
    ("solves", "Time to a relative gradient of 1e-8"),
    ("tiny", "Coarse networks, with CasADi"),
    ("wide", "A wide network and few samples: the Gram form"),
)


def _head(records: Sequence[Record], marked: str) -> str:
    versions: dict[str, str] = {}
    for record in records:
        versions |= record.get("versions", {})
    threads = sorted({record["threads"] for record in records})
    return HEAD.format(
        difference=max((record.get("difference", 0.0) for record in records), default=0.0),
        threads=" or ".join("one thread" if n == 1 else f"{n} threads" for n in threads),
        cores=max((record.get("cores", 0) for record in records), default=0),
        marked=marked,
        versions=", ".join(f"{name} {version}" for name, version in sorted(versions.items())),
    )


def _stated(records: Sequence[Record]) -> str:
    """When a table was measured, and which state of our package."""
    ours = [record for record in records if record["tool"] == "newton"]
    commits = sorted({record["revision"] for record in ours if record.get("revision")})
    sessions = sorted({record["session"] for record in records})
    rates = [record["gflops"] for record in records if "gflops" in record]
    return (
        f"fem-dnn at {', '.join(commits) or 'commits that the records do not name'}; "
        f"{'session' if len(sessions) == 1 else 'sessions'} {', '.join(sessions)} (UTC)"
        + (f"; rates {span(rates, '.0f')} GFLOP/s" if rates else "")
        + ".\n"
    )


def _solve_row(
    title: str, tool: str, mine: Sequence[Record], ours: Sequence[Record]
) -> Sequence[str]:
    lead = [title, NAMES[tool]]
    if mine[0].get("representation") == "gram":
        lead[1] += ", Gram form"
    for reason in ("absent", "refused", "ended"):
        if all(reason in record for record in mine):
            return [*lead, mine[0][reason], *[""] * 10]
    if tool == "torch_adam":
        return [*lead, *_adam(mine[0], seconds(ours))]
    done = reached(mine)
    seen = [record for record in mine if "cpu_seconds" in record]
    there = f"{len(done)} of {len(mine)}"
    if len(done) < len(seen):
        rest = [record for record in seen if not record["reached"]]
        over = all(record["cpu_seconds"] >= record["limit"] for record in rest)
        how = f"in {rest[0]['limit']:.0f} s" if over else "gave up"
        there += f" ({how}: {of(rest, 'relative_gradient'):.0e})"
    proof = ""
    if tool == "newton":
        proof = digits(of(mine, "seconds_with_proof") / of(mine, "seconds"))
        proof = f"{proof} times"
    return [
        *lead,
        there,
        f"{digits(of(seen, 'cpu_seconds'))} ({digits(of(seen, 'seconds'))})",
        proof,
        times(mine, ours) if tool != "newton" else "1",
        f"{of(seen, 'objective'):.5g}",
        f"{median(map(sweeps, seen)):.0f}" if tool != "casadi_ipopt" else "",
        f"{of(seen, 'evaluations'):.0f}",
        f"{of(seen, 'hessian_products'):.0f}" if of(seen, "hessian_products") else "",
        duration(median(map(_per_gradient, seen))),
        rate(seen),
    ]


def _per_gradient(record: Record) -> float:
    """Own seconds per gradient, a Hessian product being as much work as two."""
    return record["cpu_seconds"] / (record["evaluations"] + 2 * record["hessian_products"])


def _adam(record: Record, ours: float | None) -> list[str]:
    """What Adam had reached in the time that we took, of its curve."""
    until = min(ours or record["cpu_seconds"], record["cpu_seconds"])
    objectives = [objective for spent, objective in record["curve"] if spent <= until]
    lowest = f"{objectives[-1]:.5g}" if objectives else ""
    return ["", digits(until), "", "", lowest, *[""] * 5]


def _solves(records: Sequence[Record], name: str, title: str) -> str:
    head = ("problem", "solver", "reached", "seconds", "with proof", "times", "objective", "sweeps")
    rows = []
    for problem, tools in groups(records):
        ours = tools.get("newton", [])
        rows += [_solve_row(problem, tool, mine, ours) for tool, mine in tools.items()]
    solved = table((*head, "gradients", "Hessian products", "per gradient", "rate"), rows, text=2)
    return "\n".join([f"## {title}\n", _stated(records), solved, verdict_table(records, name)])


def _costs(records: Sequence[Record]) -> str:
    head = ("problem", "by", "rate", "gradient", "of the rate", "Hessian product", "of the rate")
    rows = []
    for problem, tools in groups(records):
        nodes, samples, layers = map(int, re.findall(r"(\d+) (?:nodes|samples|layers)", problem))
        operations = 6.0 * nodes**2 * samples * layers
        for tool, mine in tools.items():
            if "absent" in mine[0]:
                rows.append([problem, COSTS[tool], "", mine[0]["absent"], *[""] * 5])
                continue
            row, shares = [problem, COSTS[tool], rate(mine)], {}
            for name, work in (("gradient", operations), ("hessian", 2 * operations)):
                if name in mine[0]:
                    shares[name] = 1e-9 * work / of(mine, name) / of(mine, "gflops")
                    row += [duration(of(mine, name)), f"{shares[name]:.1%}"]
                else:
                    row += ["", ""]
            ratio = of(mine, "hessian") / of(mine, "gradient") if "hessian" in shares else None
            row.append(f"{ratio:.2f}" if ratio is not None else "")
            rows.append([*row, cost_aim(problem, tool, shares.get("gradient"), ratio)])
    return (
        "## What a gradient costs, and a Hessian product\n\n"
        "In per cent of the rate of matrix products measured in the same process, counting 6 "
        "nodes² samples layers operations for objective and gradient, and twice that for a product "
        "(as many as it needs where state and adjoint are known: ours keeps them, the others solve "
        "for them again in every product). Median over a second of calls. Aimed at on "
        f"{SIZE}: {RATE:.0%} of the rate, a product for {PRODUCT} gradients.\n\n"
        f"{_stated(records)}\n"
    ) + table((*head, "in gradients", "aims"), rows, text=2)
