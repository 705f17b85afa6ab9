"""docs/peers.md: the records as tables, ratios, and where they fall short of what we aim at."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any

from benchmarks.peers.records import DOCS, Record

PATH = DOCS / "peers.md"

NAMES = {
    "newton": "**fem-dnn `newton`**",
    "jax_trust_ncg": "JAX + SciPy trust-ncg",
    "scipy_lbfgsb": "SciPy L-BFGS-B, NumPy gradient",
    "torch_lbfgs": "PyTorch L-BFGS",
    "torch_adam": "PyTorch Adam",
    "casadi_ipopt": "CasADi + IPOPT",
}

COSTS = {
    "newton": "**fem-dnn**",
    "jax_trust_ncg": "JAX, compiled",
    "scipy_lbfgsb": "NumPy, by hand",
    "torch_lbfgs": "PyTorch, autograd",
}

AIMS = {"solves": 10.0, "wide": 25.0, "tiny": 50.0}
"""How many times as long as `newton` the best peer shall take; of `tiny`: CasADi."""

HEAD = """# Beside the peers

Made by `python3 -m benchmarks.peers TABLE` (TABLE: solves, tiny, wide, costs); do not edit. All
runs are in [peers.json](peers.json).

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
Medians over the runs (seeds 0, 1, ... of standard normal controls). "times" is the time divided by
that of `newton`{marked}; "per gradient" is the time divided by the number of gradients, a Hessian
product counted as two: what a solver's own work adds to the costs in the last table. The machine
multiplied matrices at {rates} GFLOP/s, measured by NumPy in every process of ours.

Versions: {versions}; fem-dnn at the commits {revisions}.
"""

REASONS = """## Where the aim is not reached, and the next ideas

- *What is left at 64 nodes.* `newton` takes far fewer sweeps than the peers, but pays more for
  each. Of its time on `circles_1e-3` the objectives and gradients are a third, and run at half
  the machine's rate; two fifths are directions (the metric's inverse, and two passes over eight
  remembered pairs of vectors of controls, which do not fit into the cache), a sixth makes
  metrics, a tenth is Newton's last step. Pairs in the few coordinates that the states span do not
  serve: 1.5 to 4.5 times as much work was needed. Sweeps in single precision would serve until
  the gradient has fallen to some 1e-3, which is half of the steps: by estimate a tenth of the
  time. Next: the metric in single precision, as it shapes directions only; with derivatives in
  depth penalised, its two products along the depth in one.
- *The coarsest networks.* At 4 and 8 nodes the whole solve takes less than 0.1 s, mostly Python's
  own: CasADi takes as little at 4 nodes, and a fiftieth of its time at 8 would be 20 ms. Next:
  whole stretches of steps in C.
- *Newton's last step.* Next: what has been learned as a preconditioner for its conjugate gradients.
- *Gram form.* Its metric is that of L2, in which quasi-Newton steps save nothing. Next: the
  pointwise term, K + K D K at every node, inverted there too.
"""

NOTE = "; ° where the two were measured in different sessions"


def render(records: Sequence[Record]) -> str:
    """The page."""
    known = {
        key: [r for r in records if r["table"] == key] for key in {r["table"] for r in records}
    }
    body = [_solves(known[name], AIMS[name], title) for name, title in TITLES if name in known]
    if "costs" in known:
        body.append(_costs(known["costs"]))
    marked = NOTE if any("°" in part for part in body) else ""
    return "\n".join([_head(records, marked), *body, REASONS])


TITLES = (
    ("solves", "Time to a relative gradient of 1e-8"),
    ("tiny", "Coarse networks, with CasADi"),
    ("wide", "A wide network and few samples: the Gram form"),
)


def _head(records: Sequence[Record], marked: str) -> str:
    versions: dict[str, str] = {}
    for record in records:
        versions |= record.get("versions", {})
    revisions = sorted({record["revision"] for record in records if "revision" in record})
    rates = [record["gflops"] for record in records if "gflops" in record]
    threads = sorted({record["threads"] for record in records})
    return HEAD.format(
        difference=max((record.get("difference", 0.0) for record in records), default=0.0),
        threads=" or ".join("one thread" if n == 1 else f"{n} threads" for n in threads),
        cores=max((record.get("cores", 0) for record in records), default=0),
        marked=marked,
        rates=f"{min(rates):.0f} to {max(rates):.0f} (median {median(rates):.0f})"
        if rates
        else "?",
        revisions=", ".join(revisions) or "unknown",
        versions=", ".join(f"{name} {version}" for name, version in sorted(versions.items())),
    )


def _groups(records: Sequence[Record]) -> Iterable[tuple[str, dict[str, list[Record]]]]:
    """Problems with more than one thread apart, and in each the records by tool."""

    def natural(title: str) -> list[Any]:
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", title)]

    found: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        many = f", {record['threads']} threads" if record["threads"] > 1 else ""
        tools = found.setdefault(record["problem"] + many, {})
        tools.setdefault(record["tool"], []).append(record)
    for title in sorted(found, key=natural):
        yield title, {name: found[title][name] for name in NAMES if name in found[title]}


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * 2 + ["---:"] * (len(head) - 2), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _of(records: Sequence[Record], name: str) -> float:
    return median(record[name] for record in records)


def _reached(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.get("reached")]


def _seconds(records: Sequence[Record]) -> float | None:
    """Median time of a tool, a run that did not reach the accuracy taking its limit at least."""
    times = [r["cpu_seconds"] for r in records if "cpu_seconds" in r]
    return median(times) if times and len(times) == len(records) else None


def _times(mine: Sequence[Record], ours: Sequence[Record]) -> str:
    """How many times as long as ours; at least so many where the accuracy was not reached."""
    own, theirs = _seconds(ours), _seconds(mine)
    if own is None or theirs is None:
        return ""
    at_least = "" if 2 * len(_reached(mine)) > len(mine) else "> "
    same = {r["session"] for r in mine} & {r["session"] for r in ours}
    return f"{at_least}{_number(theirs / own)}{'' if same else '°'}"


def _solve_row(
    title: str, tool: str, mine: Sequence[Record], ours: Sequence[Record]
) -> Sequence[str]:
    lead = [title, NAMES[tool]]
    if mine[0].get("representation") == "gram":
        lead[1] += ", Gram form"
    for reason in ("absent", "refused", "ended"):
        if all(reason in record for record in mine):
            return [*lead, mine[0][reason], *[""] * 8]
    if tool == "torch_adam":
        return [*lead, *_adam(mine[0], _seconds(ours))]
    done = _reached(mine)
    seen = [record for record in mine if "cpu_seconds" in record]
    reached = f"{len(done)} of {len(mine)}"
    if len(done) < len(seen):
        rest = [record for record in seen if not record["reached"]]
        over = all(record["cpu_seconds"] >= record["limit"] for record in rest)
        how = f"in {rest[0]['limit']:.0f} s" if over else "gave up"
        reached += f" ({how}: {_of(rest, 'relative_gradient'):.0e})"
    proof = ""
    if tool == "newton":
        proof = _number(_of(mine, "seconds_with_proof") / _of(mine, "seconds"))
        proof = f"{proof} times"
    return [
        *lead,
        reached,
        f"{_number(_of(seen, 'cpu_seconds'))} ({_number(_of(seen, 'seconds'))})",
        proof,
        _times(mine, ours) if tool != "newton" else "1",
        f"{_of(seen, 'objective'):.5g}",
        f"{_of(seen, 'evaluations'):.0f}",
        f"{_of(seen, 'hessian_products'):.0f}" if _of(seen, "hessian_products") else "",
        f"{1e3 * median(map(_per_gradient, seen)):.3g} ms",
    ]


def _per_gradient(record: Record) -> float:
    """Own seconds per gradient, a Hessian product being as much work as two."""
    return record["cpu_seconds"] / (record["evaluations"] + 2 * record["hessian_products"])


def _adam(record: Record, seconds: float | None) -> list[str]:
    """What Adam had reached in the time that we took, of its curve."""
    until = min(seconds or record["cpu_seconds"], record["cpu_seconds"])
    objectives = [objective for spent, objective in record["curve"] if spent <= until]
    lowest = f"{objectives[-1]:.5g}" if objectives else ""
    return ["", _number(until), "", "", lowest, "", "", ""]


def _solves(records: Sequence[Record], aim: float, title: str) -> str:
    head = ("problem", "solver", "reached", "seconds", "with proof", "times", "objective")
    rows, verdicts = [], []
    for problem, tools in _groups(records):
        ours = tools.get("newton", [])
        rows += [_solve_row(problem, tool, mine, ours) for tool, mine in tools.items()]
        verdicts.append(_verdict(problem, tools, aim))
    text = _table((*head, "gradients", "Hessian products", "per gradient"), rows)
    against = "CasADi" if aim == AIMS["tiny"] else "the best peer"
    columns = ("problem", "fastest peer", f"times as long as we (aim: {aim:.0f}, {against})", "aim")
    return f"## {title}\n\n{text}\n{_table(columns, verdicts)}"


def _verdict(problem: str, tools: dict[str, list[Record]], aim: float) -> Sequence[str]:
    """The ratio that is aimed at, and whether it is there."""
    ours = tools.get("newton", [])
    own = _seconds(_reached(ours))
    wanted: Callable[[str], bool] = lambda tool: (  # noqa: E731
        tool == "casadi_ipopt" if aim == AIMS["tiny"] else tool not in ("newton", "torch_adam")
    )
    done = {
        tool: _seconds(mine)
        for tool, mine in tools.items()
        if wanted(tool) and 2 * len(_reached(mine)) > len(mine)
    }
    times = {tool: seconds for tool, seconds in done.items() if seconds is not None}
    if own is None or len(_reached(ours)) < len(ours):
        return [problem, "", "", "not reached: we did not get there in every run"]
    if not times:
        lower = [_seconds(mine) for tool, mine in tools.items() if wanted(tool)]
        least = min((seconds for seconds in lower if seconds), default=None)
        if least is None:
            return [problem, "none took part", "", ""]
        verdict = "reached" if least / own >= aim else "open: the peers were stopped too early"
        return [problem, "none got there", f"> {_number(least / own)}", verdict]
    best = min(times, key=lambda tool: times[tool])
    return [problem, NAMES[best], _times(tools[best], ours), _word(times[best] / own >= aim)]


def _word(reached: bool) -> str:
    return "reached" if reached else "**not reached**"


def _costs(records: Sequence[Record]) -> str:
    head = ("problem", "by", "gradient", "of the rate", "Hessian product", "of the rate")
    rows = []
    for problem, tools in _groups(records):
        nodes, samples, layers = map(int, re.findall(r"(\d+) (?:nodes|samples|layers)", problem))
        operations = 6.0 * nodes**2 * samples * layers
        for tool, mine in tools.items():
            if "absent" in mine[0]:
                rows.append([problem, COSTS[tool], mine[0]["absent"], "", "", ""])
                continue
            row = [problem, COSTS[tool]]
            for name, work in (("gradient", operations), ("hessian", 2 * operations)):
                if name in mine[0]:
                    seconds = _of(mine, name)
                    share = 1e-9 * work / seconds / _of(mine, "gflops")
                    row += [f"{1e3 * seconds:.3g} ms", f"{share:.0%}"]
                else:
                    row += ["", ""]
            rows.append(row)
    return (
        "## What a gradient costs, and a Hessian product\n\n"
        "In per cent of the rate of matrix products measured in the same process, counting 6 "
        "nodes² samples layers operations for objective and gradient, and twice that for a product "
        "(as many as it needs where state and adjoint are known: ours keeps them, the others solve "
        "for them again in every product). Median over a second of calls.\n\n"
    ) + _table(head, rows)
