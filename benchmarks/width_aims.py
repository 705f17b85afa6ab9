"""What the record of `benchmarks.width` says about its aims, and why one is not reached."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import log2
from typing import Any

import numpy as np

from benchmarks.markdown import number, span, table, word

Row = dict[str, Any]

GROWTH, FIRST, LAST = 2.2, 1000, 300_000
"""Aim: cost per doubling of the width at the most, between these widths."""

TARGET, MINUTES = 100_000, 10
"""Aim: a solve with so many nodes within minutes, which is taken as so many."""

MEMORY, MACHINE = 1.3, 24.0
"""Aims: the peak against what must be stored, at the most; and the machine's gigabytes, which a
million nodes have to fit in, where a row does not name them."""

SOLVER, STRETCH = 5, 6
"""Arrays as large as q that conjugate gradients need (q, step, residual, direction, product), and
those of the layers at hand: f, sigma', sigma'', w p, df, du."""


def of(record: Row, measure: str) -> list[Row]:
    """The rows of one kind, by width."""
    rows = [row for row in record["rows"] if row["measure"] == measure]
    return sorted(rows, key=lambda row: (row["nodes"], row.get("at_once", 0)))


def full(row: Row) -> bool:
    """Whether a row is of the table's own size, with all layers at hand."""
    return not any(name in row for name in ("at_once", "samples", "layers"))


def needed(record: Row, row: Row) -> float:
    """Gigabytes that the mathematics must store: vectors of the solver, arrays of the layers."""
    layers = row.get("layers", record["layers"])
    array = row["control_gigabytes"]
    at_once = row.get("at_once", layers)
    starts = 0 if at_once == layers else 3 * -(-layers // at_once)  # f, w p, df where they start
    vectors = SOLVER if row["measure"] == "solve" else 2
    return float(array * (vectors + (STRETCH * (at_once + 1) + starts) / layers))


Growths = dict[int, float]
"""Growth of a cost per doubling of the width, by the width that it leads to."""


def product_growths(record: Row) -> Growths:
    """Of a Hessian product, where the aim counts."""
    return {r["nodes"]: r["growth"] for r in of(record, "product") if r["beside"] >= FIRST}


def step_growths(record: Row) -> Growths:
    """Of a Newton step's processor time, where all layers are at hand; the table's size first."""

    def step(row: Row) -> float:
        return float(row["processor_seconds"] / row["iterations"])

    solves = [r for r in of(record, "solve") if not {"at_once", "samples"} & set(r)]
    found: Growths = {}
    for layers in dict.fromkeys([None, *(row.get("layers") for row in solves)]):
        rows = [row for row in solves if row.get("layers") == layers]
        for a, b in pairwise(rows):
            growth = (step(b) / step(a)) ** (1 / log2(b["nodes"] / a["nodes"]))
            found.setdefault(b["nodes"], growth)
    return found


def _growth_verdict(what: str, growths: Growths, rates: Sequence[float]) -> list[str]:
    worst, most = max(growths.values()), max(growths)
    verdict = word(worst <= GROWTH)
    if worst <= GROWTH and most < LAST:
        verdict = f"open: measured to {number(most)} nodes only"
    return [
        f"cost of {what} per doubling, {number(FIRST)} to {number(LAST)} nodes",
        f"{GROWTH} times at the most",
        f"{worst:.2f} to {number(most)} nodes",
        verdict,
        span(rates, ".0f"),
    ]


def verdicts(record: Row) -> list[str]:
    """What is aimed at against what is there, as a table."""
    lines = []
    for what, measure, growths in (
        ("a product", "product", product_growths(record)),
        ("a Newton step", "solve", step_growths(record)),
    ):
        if growths:
            rates = [r["gflops"] for r in of(record, measure) if r["nodes"] in growths]
            lines.append(_growth_verdict(what, growths, rates))
    for row in of(record, "solve"):
        if full(row) and row["nodes"] == TARGET:
            lines.append(
                [
                    f"{number(TARGET)} nodes, {record['samples']} samples, {record['layers']} "
                    f"layers to {record['rtol']:g}",
                    f"minutes (taken as {MINUTES})",
                    f"{row['seconds'] / 60:.1f} minutes, {row['processor_seconds'] / 60:.1f} of "
                    "the processor",
                    word(row["converged"] and row["seconds"] <= 60 * MINUTES),
                    f"{row['gflops']:.0f}",
                ]
            )
    for row in of(record, "once"):
        machine = row.get("machine_gigabytes", MACHINE)
        lines.append(
            [
                f"{number(row['nodes'])} nodes fit in memory, the layers in stretches",
                f"{machine:.0f} GB, the machine's",
                f"{row['peak_gigabytes']:.3g} GB (gradient, product)",
                word(row["peak_gigabytes"] <= machine),
                f"{row['gflops']:.0f}",
            ]
        )
    head = ["aim", "wanted", "measured", "", "rate"]
    return [table(head, lines, text=4).rstrip()] if lines else []


def constant_and_factor(record: Row) -> tuple[float, float] | None:
    """Gigabytes that no width changes, and per gigabyte that must be stored, of whole solves."""
    rows = [row for row in of(record, "solve") if full(row)]
    if len(rows) < 2:
        return None
    must = [needed(record, row) for row in rows]
    factor, constant = np.polyfit(must, [row["peak_gigabytes"] for row in rows], 1)
    return float(constant), float(factor)


def reasons(record: Row) -> list[str]:
    """Why an aim is not reached, in numbers of the record, and what might help."""
    found = []
    rows = of(record, "solve")
    small = [r for r in rows if r["peak_gigabytes"] > MEMORY * needed(record, r)]
    line = constant_and_factor(record)
    if small and line is not None:
        constant, factor = line
        named = ", ".join(f"{r['peak_gigabytes'] / needed(record, r):.2f}" for r in small)
        where = (
            f"the ratio falls below {MEMORY} where {constant / (MEMORY - factor):.1f} GB must be "
            "stored"
            if factor < MEMORY
            else f"the ratio stays above {MEMORY}"
        )
        libraries = [r["base_gigabytes"] for r in rows if "base_gigabytes" in r]
        share = f"{span(libraries, '.2f')} GB of them libraries, " if libraries else "libraries, "
        found.append(
            f"*Memory of small solves* ({named} times). The peaks of solves with all layers at "
            f"hand lie on a line: {constant:.2f} GB whatever the width ({share}work arrays of a "
            f"block of nodes) and {factor:.2f} times what must be stored, so {where}. The part "
            "above 1 is of the moment at which a trial point is made: one vector (the start) and "
            "two arrays of all layers more than are counted (by tracemalloc on 4 000 nodes). "
            "Next: give the start up when it has been left; write the trial's states over the "
            "tangent's."
        )
    steps = step_growths(record)
    if steps and max(steps) < LAST:
        found.append(
            f"*Newton steps beyond {number(max(steps))} nodes.* A solve on {number(LAST)} with "
            f"all {record['layers']} layers takes most of the machine's memory. Next: the two "
            "solves with 8 layers that the command takes and the record does not have yet."
        )
    found.append(
        "*A whole solve of a million nodes with 16 samples and 32 layers* has not been done: its "
        "five vectors alone are 20.5 GB. Next: the step's length along a direction from the "
        "tangent alone, which makes one of the five superfluous; states made anew once per "
        "product instead of twice; blocks of nodes shared by threads."
    )
    return found
