"""docs/parallel.md and .png from what `parallel` has measured."""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.parallel_model import (
    Machine,
    Network,
    Size,
    best_grid,
    fitted_machine,
    fitted_rate,
    seconds,
    total,
)

Row = dict[str, Any]

WANTED = 1.85
"""Speedup of two ranks that the project wants on the table's problem."""

RANKS = [4**k for k in range(7)]
PER_NODE = 32
CLUSTER = Network(latency=2e-6, bandwidth=12.5e9 / PER_NODE)
"""Assumed: 2 microseconds; 100 Gb/s per node, shared by its ranks, all of whom talk at once."""

STRONG = {
    "1 024 nodes, 512 samples": Size(1024, 512, 32),
    "4 096 nodes, 4 096 samples": Size(4096, 4096, 32),
}


def weak_in_samples(ranks: int) -> Size:
    """As many more samples as ranks."""
    return Size(1024, 64 * ranks, 32)


def weak_in_width(ranks: int) -> Size:
    """As many more kernel entries as ranks."""
    return Size(int(512 * sqrt(ranks)), 512, 32)


WEAK = {
    "1 024 nodes, 64 samples per rank": weak_in_samples,
    "512 samples, 512 sqrt(P) nodes": weak_in_width,
}


def write(found: Row, out: Path) -> None:
    """Write the page and the picture."""
    machine, misfit = fit(found)
    here = Network(found["machine"]["latency"], found["machine"]["bandwidth"])
    picture(machine, out / "parallel.png")
    text = "\n".join(
        [
            *_two_ranks(found["rows"]),
            *_traffic(found["rows"][0]),
            *_overlap(found["overlap"]),
            *_model(found["rows"], machine, here, misfit),
            *_scaling(machine),
        ]
    )
    (out / "parallel.md").write_text(text + "\n")


def fit(found: Row) -> tuple[Machine, float]:
    """The machine's constants from the best of each run on one rank."""
    runs = [
        {
            **{key: row[key] for key in ("nodes", "samples", "layers")},
            "gradient": row["best"]["alone gradient"],
            "hessian": row["best"]["alone hessian"],
            "rate": row["best"]["rate one"],
        }
        for row in found["rows"]
    ]
    return fitted_machine(*fitted_rate(found["machine"]["products"]), runs)


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---:|" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def _count(number: float) -> str:
    return f"{number:,.0f}".replace(",", " ")


def _two_ranks(rows: list[Row]) -> list[str]:
    first = rows[0]
    lines = []
    for row in rows:
        gain = 2 * row["rate two"] / row["rate one"]
        lines.append(
            [
                f"{_count(row['nodes'])}, {_count(row['samples'])}, {row['layers']}",
                f"{row['rate one'] / 1e9:.1f}",
                f"{row['rate two'] / 1e9:.1f}",
                f"{gain:.2f}",
                *(
                    f"{row[f'alone {what}']:.3g} s → {row[f'{mode} {what}']:.3g} s: "
                    f"**{row[f'{mode} {what} speedup']:.2f}**"
                    for what in ("gradient", "hessian")
                    for mode in ("width", "samples")
                ),
                f"{row['load']:.1f}",
            ]
        )
    best = max(
        min(first[f"{mode} {what} speedup"] for what in ("gradient", "hessian"))
        for mode in ("width", "samples")
    )
    bound = 2 * first["rate two"] / first["rate one"]
    verdict = (
        f"The wanted {WANTED} on {_count(first['nodes'])} nodes, {_count(first['samples'])} "
        f"samples, {first['layers']} layers is "
        f"{'reached' if best >= WANTED else 'not reached'}: {best:.2f} for gradient and Hessian "
        f"product alike, where two ranks at the same time do {bound:.2f} times the matrix products "
        "of one alone in the same run."
    )
    return [
        "# Two ranks, and many",
        "",
        "Objective and gradient, and a Hessian product, on one rank and on two, each with one BLAS "
        f"thread, in turns: medians of {first['rounds']} rounds, and of the ratio of each round. "
        "Rates are of matrix products of the sweep's own shape (half the rows), in 1e9 operations "
        "a second and rank: of one rank while the other sleeps, of each of two at the same time; "
        "the gain is what two ranks can have from this machine at best. Rows: the kernel's rows "
        "over two ranks; samples: half of the samples each. Load: processes that wanted a core "
        "when it was measured; above 2 the machine was shared and speedups say little. Made by "
        "`python3 -m benchmarks.parallel`.",
        "",
        *_table(
            [
                "nodes, samples, layers",
                "rate, one",
                "rate, two",
                "gain",
                "gradient, rows",
                "gradient, samples",
                "Hessian, rows",
                "Hessian, samples",
                "load",
            ],
            lines,
        ),
        verdict,
        "",
    ]


def _traffic(row: Row) -> list[str]:
    lines = []
    for mode, counted in row["traffic"].items():
        lines.append(
            [
                mode,
                _count(counted["counted"]),
                _count(counted["formula"]),
                _count(counted["state"]),
                _count(row["bound"]),
                f"{counted['state'] / row['bound']:.2f}",
            ]
        )
    return [
        "## What travels",
        "",
        f"Numbers that rank 0 of two receives, {_count(row['nodes'])} nodes, "
        f"{_count(row['samples'])} samples, {row['layers']} layers; counted at the MPI calls "
        "(`tests/test_communication_volume.py` asserts the formula to the number, on any grid). "
        "On R x G ranks, per level and gradient, 2 (1 − 1/R) N S/G for states and adjoints and "
        "2 (1 − 1/G) N²/R for the kernel and its gradient; a state alone is half of it: one "
        "product of an N x N and an N x S matrix per level, for which the least is known that "
        "some rank must receive whatever its memory, if each matrix is held once (Al Daas, "
        "Ballard, Grigori, Kumar & Rouse, SPAA 2022, theorem 1). The bound that counts memory "
        "(Irony, Toledo & Tiskin, 2004) is vacuous here: a rank has room for all matrices of a "
        "level.",
        "",
        *_table(
            ["two ranks share", "gradient", "by formula", "state", "bound", "state / bound"], lines
        ),
        "Where samples are many (S ≥ P N) groups of samples attain the bound. Elsewhere the best "
        "grid R/G = N/S moves 2 N (N S/P)^½ per level and product, up to a factor (N/S)^½ (fewer "
        "samples than nodes) or P^⅙ (as many) from it: the next ideas are blocks of the kernel "
        "over a grid, and copies of it where memory allows.",
        "",
    ]


def _overlap(found: Row) -> list[str]:
    plain, ahead = found["plain"], found["overlapped"]
    pays = ahead < 0.98 * plain
    return [
        "## Gathering while computing",
        "",
        f"A forward sweep by rows on two ranks takes {plain:.3f} s; in two blocks of samples "
        f"{found['two blocks']:.3f} s; and {ahead:.3f} s when the gather of the next block is "
        f"posted before a block's product and waited for after it, {plain / ahead:.2f} times as "
        "fast as plain. "
        + (
            "It pays on this machine."
            if pays
            else "It does not pay on this machine, where ranks share memory, a gather is a copy, "
            "and MPI copies when it is waited for: the sweeps of the program do not overlap."
        ),
        "",
    ]


def _model(rows: list[Row], machine: Machine, here: Network, misfit: float) -> list[str]:
    lines = []
    for row in rows:
        size = Size(row["nodes"], row["samples"], row["layers"])
        for what in ("gradient", "hessian"):
            cells = [f"{_count(size.nodes)}, {_count(size.samples)}, {size.layers}", what]
            for mode, grid in (("width", (2, 1)), ("samples", (1, 2))):
                predicted = total(what, size, *grid, machine, here)
                measured = row["best"][f"{mode} {what}"]
                cells.append(f"{predicted:.3g} / {measured:.3g} s ({predicted / measured:.2f})")
            lines.append(cells)
    return [
        "## A model of the time",
        "",
        "`benchmarks/parallel_model.py` has the formula. Fitted on runs on one rank, the best of "
        f"each (largest misfit {100 * misfit:.0f} %), and on products of thin matrices with both "
        f"ranks busy: {machine.rate / 1e9:.1f}e9 operations a second in large products, half of "
        f"it at {machine.half:.0f} rows or samples; per number of a state and level "
        f"{1e9 * machine.per_state['gradient']:.1f} ns in a gradient and "
        f"{1e9 * machine.per_state['hessian']:.1f} ns in a Hessian product, per kernel entry "
        f"{1e9 * machine.per_entry['gradient']:.1f} and {1e9 * machine.per_entry['hessian']:.1f} "
        f"ns, per level {1e6 * machine.per_level['gradient']:.0f} and "
        f"{1e6 * machine.per_level['hessian']:.0f} µs. Between the two ranks here, through shared "
        f"memory: {1e6 * here.latency:.1f} µs a message, {here.bandwidth / 1e9:.1f}e9 bytes a "
        "second. Two ranks were not fitted; predicted against the best measured:",
        "",
        *_table(["nodes, samples, layers", "", "rows", "samples"], lines),
    ]


def _scaling(machine: Machine) -> list[str]:
    lines = []
    for label, size_of in {**{k: (lambda _, s=s: s) for k, s in STRONG.items()}, **WEAK}.items():
        one = best_grid(size_of(1), 1, machine, CLUSTER)[2]
        for ranks in RANKS:
            size = size_of(ranks)
            R, G, time = best_grid(size, ranks, machine, CLUSTER)
            parts = seconds("gradient", size, R, G, machine, CLUSTER)
            ideal = one / ranks if label in STRONG else one
            lines.append(
                [
                    label,
                    _count(ranks),
                    f"{R} x {G}",
                    f"{time:.3g} s",
                    f"{100 * ideal / time:.0f} %",
                    f"{100 * parts['communication'] / time:.0f} %",
                    f"{100 * parts['interpreter'] / time:.0f} %",
                ]
            )
    return [
        "## Strong and weak scaling, predicted",
        "",
        "Not measured: there are two cores here. Assumed: ranks compute as these do with both "
        f"cores busy, at any number of ranks (memory bandwidth grows with them); {PER_NODE} ranks "
        f"per node, whose link of 12.5e9 bytes a second they share evenly, all of them talking at "
        f"once; {1e6 * CLUSTER.latency:.0f} µs a message; no contention elsewhere; nothing "
        "overlapped; the grid that the model finds fastest. Gradients; 32 layers, resnet.",
        "",
        *_table(
            ["problem", "ranks", "grid R x G", "time", "efficiency", "messages", "interpreter"],
            lines,
        ),
        "![Predicted scaling](parallel.png)",
    ]


def picture(machine: Machine, path: Path) -> None:
    """Speedup of fixed problems, efficiency of growing ones."""
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    strong, weak = figure.subplots(1, 2)
    strong.loglog(RANKS, RANKS, "k:", lw=0.8, label="ideal")
    for (label, size), colour in zip(STRONG.items(), ("tab:blue", "tab:green"), strict=True):
        one = best_grid(size, 1, machine, CLUSTER)[2]
        fastest = [one / best_grid(size, p, machine, CLUSTER)[2] for p in RANKS]
        rows = [
            one / total("gradient", size, p, 1, machine, CLUSTER) for p in RANKS if p <= size.nodes
        ]
        strong.loglog(RANKS, fastest, "o-", color=colour, label=label)
        strong.loglog(RANKS[: len(rows)], rows, "x--", color=colour, lw=0.8)
    strong.plot([], [], "kx--", lw=0.8, label="rows alone (R = P)")
    strong.set(xlabel="ranks", ylabel="speedup of a gradient", title="Strong scaling, predicted")
    for (label, size_of), colour in zip(WEAK.items(), ("tab:blue", "tab:orange"), strict=True):
        one = best_grid(size_of(1), 1, machine, CLUSTER)[2]
        efficiency = [one / best_grid(size_of(p), p, machine, CLUSTER)[2] for p in RANKS]
        weak.semilogx(RANKS, efficiency, "o-", color=colour, label=label)
    weak.set(xlabel="ranks", ylabel="efficiency", ylim=(0, 1.08), title="Weak scaling, predicted")
    for axes in (strong, weak):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
