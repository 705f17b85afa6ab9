"""The part of docs/parallel.md on two ranks: tables, what is aimed at, which way is taken, why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.markdown import duration, number, span, table, word
from benchmarks.parallel_model import PRODUCTS
from benchmarks.revision import measured_with
from fem_dnn.process_grid import WAITED_FOR, best_group_count

Row = dict[str, Any]

SHARED = {"width": "rows", "samples": "samples"}
"""What two ranks share, by the name of the mode."""

WANTED = 1.85
"""Speedup of two ranks that is aimed at, on the first size."""

SOLVES = (
    *("problem", "two ranks share", "seconds", "times one rank", "gradients", "Hessian products"),
    *("sweeps", "objective", "rate"),
)

CLOCKS = {"": "wall", " processor": "processor"}


def size_of(row: Row) -> str:
    """Nodes, samples, layers."""
    return f"{number(row['nodes'])}, {number(row['samples'])}, {row['layers']}"


def two_ranks(found: Row) -> list[str]:
    """The section, in paragraphs."""
    rows = found["rows"]
    return [
        "# Two ranks, and many",
        "Objective and gradient, and a Hessian product, on one rank and on two, each with one BLAS "
        f"thread, in turns: medians of {rows[0]['rounds']} rounds, speedups medians of the rounds' "
        "ratios. Rates are of matrix products of the sweep's own shape (half the rows), in 1e9 "
        "operations a second and rank: of one rank while the other sleeps, of each of two at the "
        "same time; the gain is what two ranks can have from this machine at best. Rows: the "
        "kernel's rows over two ranks; samples: half of the samples each, in two groups of one "
        "rank.",
        _measured(rows, ""),
        f"The load was {span((row['load'] for row in rows), '.1f')} on {rows[0]['cores']} cores: "
        "where it is above the number of cores others were at work, and the wall clock says "
        "little. The same by processor times, the larger of the ranks'; these meet asleep before "
        "they exchange, so waiting does not count, work and copying do:",
        _measured(rows, " processor"),
        "## What is aimed at, and what is taken",
        f"Aimed at: {WANTED} times as fast as one rank on {size_of(rows[0])} (nodes, samples, "
        "layers).",
        _aims(rows[0]),
        *_taken(found),
        "Why, and what is next:",
        "\n".join(f"- {reason}" for reason in _reasons(rows)),
        "Made by `environment/enter python3 -m benchmarks.parallel` (`--page`: only the page "
        f"anew). Times were measured with {measured_with(rows)}.",
    ]


def _measured(rows: Iterable[Row], clock: str) -> str:
    lines = []
    for row in rows:
        one, two = row[f"rate one{clock}"], row[f"rate two{clock}"]
        cells = [size_of(row)]
        cells += [f"{one / 1e9:.1f}", f"{two / 1e9:.1f}", f"{2 * two / one:.2f}"]
        for what in PRODUCTS:
            cells.append(duration(row[f"alone {what}{clock}"]))
            for mode in SHARED:
                seconds, speedup = (row[f"{mode} {what}{kind}{clock}"] for kind in ("", " speedup"))
                cells.append(f"{duration(seconds)}: **{speedup:.2f}**")
        lines.append(cells)
    columns = ("", ", rows", ", samples")
    head = ["nodes, samples, layers", "rate, one", "rate, two", "gain"]
    head += [name + column for name in ("gradient", "Hessian") for column in columns]
    return table(head, lines).rstrip()


def _speedups(row: Row, mode: str, clock: str) -> dict[str, float]:
    return {what: float(row[f"{mode} {what} speedup{clock}"]) for what in PRODUCTS}


def _aims(row: Row) -> str:
    lines = []
    for mode, shared in SHARED.items():
        for clock, named in CLOCKS.items():
            speedups = _speedups(row, mode, clock)
            one, two = row[f"rate one{clock}"], row[f"rate two{clock}"]
            lines.append(
                [
                    shared,
                    named,
                    *(f"{speedup:.3f}" for speedup in speedups.values()),
                    f"{2 * two / one:.2f}",
                    f"{one / 1e9:.1f}",
                    word(min(speedups.values()) >= WANTED),
                ]
            )
    head = ["two ranks share", "clock", "gradient", "Hessian product", "gain at best", "rate, one"]
    return table([*head, f"aim {WANTED}"], lines, text=2).rstrip()


def _taken(found: Row) -> list[str]:
    """Which way a solve goes by itself, and what each takes as a whole."""
    rows = [row for row in found["rows"] if _choice(row) == "rows"]
    samples = [row for row in found["rows"] if _choice(row) == "samples"]
    text = [
        '**Which way a solve goes.** With `solver.sample_groups = "auto"` `newton`, `lbfgs` and '
        "`gradient` take the grid whose exchanges cost the least, a number of a state counted as "
        f"{WAITED_FOR:.0f} of a kernel's piece (`fem_dnn.process_grid.best_group_count`). Of the "
        "sizes above that is rows for "
        f"{'; '.join(map(size_of, rows)) or 'none'}, and samples for "
        f"{'; '.join(map(size_of, samples)) or 'none'}. Where samples are dealt out, `newton` goes "
        "on measuring its steps by the curvature: every group marches the same samples for it, all "
        "of them up to 512, once for some thirty gradients."
    ]
    solves = found.get("solves", [])
    if not solves:
        return [*text, "Time to solution on two ranks has not been measured."]
    lines = []
    for problem in dict.fromkeys(solve["problem"] for solve in solves):
        alone, *shared = (solve for solve in solves if solve["problem"] == problem)
        for solve in (alone, *shared):
            ratio = alone["seconds"] / solve["seconds"]
            lines.append(
                [
                    f"{problem}: {size_of(solve)}",
                    "one rank" if solve is alone else _shares(solve),
                    duration(solve["seconds"]),
                    "" if solve is alone else f"{ratio:.2f}",
                    number(solve["gradients"]),
                    number(solve["hessian_products"]),
                    number(solve["sweeps"]),
                    f"{solve['objective']:.5g}",
                    f"{solve['rate']:.0f}",
                ]
            )
    return [
        *text,
        "Whole solves by `newton` to a relative gradient of 1e-8 with the proof of the minimum, "
        f"one start each, medians of three, wall clock, {measured_with(solves)}; the rate is of "
        "square products in 1e9 operations a second, on one of two ranks at work. The way to a "
        "minimum differs with round-off, so sweeps may too:",
        table(SOLVES, lines, text=2).rstrip(),
    ]


def _shares(solve: Row) -> str:
    return "samples" if solve["groups"] > 1 else "rows"


def _choice(row: Row) -> str:
    groups = best_group_count(row["nodes"], row["samples"], 2)
    return "samples" if groups == 2 else "rows"


def _reasons(rows: list[Row]) -> list[str]:
    found = []
    first = rows[0]
    if min(_speedups(first, "width", "").values()) < WANTED:
        found.append(
            "*Rows.* Sweeps in C know one rank only (`fem_dnn.native.compiled_sweeps`); over rows "
            "they are NumPy's, and these take longer on one rank already (plain NumPy in "
            "[sweeps](sweep.md)). The exchange itself is little (below). Next: C sweeps that hand "
            "a level's block to the exchange and go on."
        )
    quicker = [
        row
        for row in rows
        if _choice(row) == "rows"
        and min(_speedups(row, "samples", "").values()) > max(_speedups(row, "width", "").values())
    ]
    if quicker:
        found.append(
            f"*The choice of `auto`.* On {'; '.join(map(size_of, quicker))} it shares rows, "
            "and samples are quicker. Next: choose by the model of the "
            "time."
        )
    return found
