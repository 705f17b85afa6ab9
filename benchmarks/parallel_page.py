"""docs/parallel.md and .png from what `parallel` has measured."""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.parallel_model import (
    PRODUCTS,
    Cluster,
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

SHARED = {"width": "rows", "samples": "samples"}
"""What two ranks share, by the name of the mode."""

WANTED = 1.85
"""Speedup of two ranks that the project wants on the table's problem."""

PAYS = 0.05
"""Part of a sweep that overlapping has to save to be called a gain."""

RANKS = [4**k for k in range(7)]
PER_NODE = 32
LINK = 25e9
"""Assumed: bytes per second into a node, 200 Gb/s, shared by its ranks, who all talk at once."""
OUTSIDE = Network(latency=2e-6, bandwidth=LINK / PER_NODE)

STRONG = {
    "1 024 nodes, 512 samples": Size(1024, 512, 32),
    "4 096 nodes, 4 096 samples": Size(4096, 4096, 32),
}


def weak_in_samples(ranks: int) -> Size:
    """As many more samples as ranks."""
    return Size(1024, 256 * ranks, 32)


def weak_in_width(ranks: int) -> Size:
    """As many more kernel entries as ranks."""
    return Size(int(512 * sqrt(ranks)), 512, 32)


WEAK = {
    "1 024 nodes, 256 samples per rank": weak_in_samples,
    "512 samples, 512 √P nodes": weak_in_width,
}


def write(found: Row, out: Path) -> None:
    """Write the page and the picture."""
    machine, misfit = fit(found)
    here = Network(found["machine"]["latency"], found["machine"]["bandwidth"])
    cluster = Cluster(here, OUTSIDE, PER_NODE)
    picture(machine, cluster, out / "parallel.png")
    text = "\n".join(
        [
            *_two_ranks(found["rows"]),
            *_traffic(found["rows"][0]),
            *_overlap(found["overlap"]),
            *_model(found["rows"], machine, here, misfit),
            *_scaling(machine, cluster),
        ]
    )
    (out / "parallel.md").write_text(text + "\n")


def fit(found: Row) -> tuple[Machine, float]:
    """The machine's constants from runs on one rank."""
    runs = [
        {
            **{key: row[key] for key in ("nodes", "samples", "layers")},
            "gradient": row["alone gradient processor"],
            "hessian": row["alone hessian processor"],
            "rate": row["rate one processor"],
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
    size = (
        f"{_count(first['nodes'])} nodes, {_count(first['samples'])} samples, "
        f"{first['layers']} layers"
    )
    verdicts = []
    for measure, of in (("", "the wall clock"), (" processor", "processor times")):
        speedup, mode = max(
            (min(first[f"{mode} {what} speedup{measure}"] for what in PRODUCTS), mode)
            for mode in SHARED
        )
        gain = 2 * first[f"rate two{measure}"] / first[f"rate one{measure}"]
        verdicts.append(
            f"By {of}, {WANTED} on {size} is {'' if speedup >= WANTED else 'not '}reached: "
            f"{speedup:.3f} and more, sharing {SHARED[mode]}, where two ranks at the same time do "
            f"{gain:.2f} times the matrix products of one alone."
        )
    return [
        "# Two ranks, and many",
        "",
        "Objective and gradient, and a Hessian product, on one rank and on two, each with one BLAS "
        f"thread, in turns: medians of {first['rounds']} rounds, speedups medians of the rounds' "
        "ratios. Rates are of matrix products of the sweep's own shape (half the rows), in 1e9 "
        "operations a second and rank: of one rank while the other sleeps, of each of two at the "
        "same time; the gain is what two ranks can have from this machine at best. Rows: the "
        "kernel's rows over two ranks; samples: half of the samples each. Made by `python3 -m "
        "benchmarks.parallel`.",
        "",
        *_measured(rows, ""),
        f"The load was {min(row['load'] for row in rows):.1f} to "
        f"{max(row['load'] for row in rows):.1f} on {first['cores']} cores: where it is above "
        "the number of cores others were at work, and the wall clock says little. The same by "
        "processor times, the larger of the ranks'; these meet asleep before they exchange, so "
        "waiting does not count, work and copying do:",
        "",
        *_measured(rows, " processor"),
        *verdicts,
        "",
    ]


def _measured(rows: list[Row], measure: str) -> list[str]:
    lines = []
    for row in rows:
        one, two = row[f"rate one{measure}"], row[f"rate two{measure}"]
        cells = [f"{_count(row['nodes'])}, {_count(row['samples'])}, {row['layers']}"]
        cells += [f"{one / 1e9:.1f}", f"{two / 1e9:.1f}", f"{2 * two / one:.2f}"]
        for what in PRODUCTS:
            cells.append(f"{row[f'alone {what}{measure}']:.3g} s")
            for mode in SHARED:
                seconds, speedup = (
                    row[f"{mode} {what}{kind}{measure}"] for kind in ("", " speedup")
                )
                cells.append(f"{seconds:.3g} s: **{speedup:.2f}**")
        lines.append(cells)
    columns = ("", ", rows", ", samples")
    return _table(
        ["nodes, samples, layers", "rate, one", "rate, two", "gain"]
        + [name + column for name in ("gradient", "Hessian") for column in columns],
        lines,
    )


def _traffic(row: Row) -> list[str]:
    lines = []
    for mode, counted in row["traffic"].items():
        lines.append(
            [
                SHARED[mode],
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
    share = found["gathers"] / plain
    pays = share > PAYS and ahead < (1 - PAYS) * plain
    return [
        "## Gathering while computing",
        "",
        f"A forward sweep by rows on two ranks takes {plain:.3f} s (wall clock); in two blocks of "
        f"samples {found['two blocks']:.3f} s; and {ahead:.3f} s when the gather of the next block "
        f"is posted before a block's product and waited for after it. The gathers alone take "
        f"{found['gathers']:.3f} s, so no overlap can save more than {100 * share:.0f} % here. "
        + (
            "It pays, and the program's sweeps do not do it yet."
            if pays
            else "It does not pay on this machine, where a gather is a copy through shared memory, "
            "made when it is waited for: the program's sweeps do not overlap."
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
                predicted = total(what, size, *grid, machine, Cluster(here, here, 2))
                measured = row[f"{mode} {what} processor"]
                cells.append(f"{predicted:.3g} / {measured:.3g} s ({predicted / measured:.2f})")
            lines.append(cells)
    return [
        "## A model of the time",
        "",
        "`benchmarks/parallel_model.py` has the formula. Fitted on runs on one rank "
        f"(largest misfit {100 * misfit:.0f} %), and on products of thin matrices with both "
        f"ranks busy: {machine.rate / 1e9:.1f}e9 operations a second in large products, half of "
        f"it at {machine.half:.0f} rows or samples; per number of a state and level "
        f"{1e9 * machine.per_state['gradient']:.1f} ns in a gradient and "
        f"{1e9 * machine.per_state['hessian']:.1f} ns in a Hessian product, per kernel entry "
        f"{1e9 * machine.per_entry['gradient']:.1f} and {1e9 * machine.per_entry['hessian']:.1f} "
        f"ns, per level {1e6 * machine.per_level['gradient']:.0f} and "
        f"{1e6 * machine.per_level['hessian']:.0f} µs. Between the two ranks here, through shared "
        f"memory: {1e6 * here.latency:.1f} µs a message, {here.bandwidth / 1e9:.1f}e9 bytes a "
        "second. Two ranks were not fitted; predicted against the measured processor times:",
        "",
        *_table(["nodes, samples, layers", "", "rows", "samples"], lines),
    ]


def _scaling(machine: Machine, cluster: Cluster) -> list[str]:
    lines = []
    for label, size_of in {**{k: (lambda _, s=s: s) for k, s in STRONG.items()}, **WEAK}.items():
        one = best_grid(size_of(1), 1, machine, cluster)[2]
        for ranks in RANKS:
            size = size_of(ranks)
            R, G, time = best_grid(size, ranks, machine, cluster)
            parts = seconds("gradient", size, R, G, machine, cluster)
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
        "cores busy, at any number of ranks (memory bandwidth grows with them); "
        f"{PER_NODE} ranks per node, among which messages cost what they do here; groups follow "
        f"each other, so one of up to {PER_NODE} ranks stays on a node; {LINK / 1e9:.0f}e9 bytes a "
        "second into a node, shared by its ranks evenly, all of them talking at once; "
        f"{1e6 * OUTSIDE.latency:.0f} µs a message between nodes; no contention elsewhere; nothing "
        "overlapped; the grid that the model finds fastest. Gradients; 32 layers, resnet. "
        "Efficiencies above 1 are of problems whose states or control vectors grow less than "
        "their products do.",
        "",
        *_table(
            ["problem", "ranks", "grid R x G", "time", "efficiency", "messages", "interpreter"],
            lines,
        ),
        "![Predicted scaling](parallel.png)",
    ]


def picture(machine: Machine, cluster: Cluster, path: Path) -> None:
    """Speedup of fixed problems, efficiency of growing ones."""
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    strong, weak = figure.subplots(1, 2)
    strong.loglog(RANKS, RANKS, "k:", lw=0.8, label="ideal")
    for (label, size), colour in zip(STRONG.items(), ("tab:blue", "tab:green"), strict=True):
        one = best_grid(size, 1, machine, cluster)[2]
        fastest = [one / best_grid(size, p, machine, cluster)[2] for p in RANKS]
        rows = [
            one / total("gradient", size, p, 1, machine, cluster) for p in RANKS if p <= size.nodes
        ]
        strong.loglog(RANKS, fastest, "o-", color=colour, label=label)
        strong.loglog(RANKS[: len(rows)], rows, "x--", color=colour, lw=0.8)
    strong.plot([], [], "kx--", lw=0.8, label="rows alone (R = P)")
    strong.set(xlabel="ranks", ylabel="speedup of a gradient", title="Strong scaling, predicted")
    for (label, size_of), colour in zip(WEAK.items(), ("tab:blue", "tab:orange"), strict=True):
        one = best_grid(size_of(1), 1, machine, cluster)[2]
        efficiency = [one / best_grid(size_of(p), p, machine, cluster)[2] for p in RANKS]
        weak.semilogx(RANKS, efficiency, "o-", color=colour, label=label)
    weak.set(xlabel="ranks", ylabel="efficiency", title="Weak scaling, predicted")
    weak.set_ylim(bottom=0)
    for axes, corner in ((strong, "upper left"), (weak, "lower left")):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8, loc=corner)
    figure.savefig(path, dpi=150)
