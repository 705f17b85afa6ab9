"""docs/parallel.md and .png from what `parallel` has measured."""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.markdown import duration, number, span, table
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
from benchmarks.two_ranks_page import SHARED, size_of, two_ranks

Row = dict[str, Any]

PAYS = 0.05
"""Part of a sweep that overlapping has to save to be called a gain."""

SCALING = (
    *("problem", "ranks", "grid R x G", "time", "efficiency", "rate", "messages", "interpreter"),
    "rows alone",
)
"""The last table's columns."""

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
    machine, _ = fit(found)
    _, cluster = networks(found)
    picture(machine, cluster, out / "parallel.png")
    (out / "parallel.md").write_text(page(found))


def page(found: Row) -> str:
    """The page."""
    machine, misfit = fit(found)
    here, cluster = networks(found)
    text = [
        *two_ranks(found),
        *_traffic(found["rows"][0]),
        *_overlap(found["overlap"]),
        *_model(found["rows"], machine, here, misfit),
        *_scaling(machine, cluster, predicted(found["rows"], machine, here)),
    ]
    return "\n\n".join(text) + "\n"


def networks(found: Row) -> tuple[Network, Cluster]:
    """What lies between two ranks here, and what is assumed of a cluster."""
    here = Network(found["machine"]["latency"], found["machine"]["bandwidth"])
    return here, Cluster(here, OUTSIDE, PER_NODE)


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


def _traffic(row: Row) -> list[str]:
    lines = []
    for mode, counted in row["traffic"].items():
        lines.append(
            [
                SHARED[mode],
                number(counted["counted"]),
                number(counted["formula"]),
                number(counted["state"]),
                number(row["bound"]),
                f"{counted['state'] / row['bound']:.2f}",
            ]
        )
    return [
        "## What travels",
        f"Numbers that rank 0 of two receives, {number(row['nodes'])} nodes, "
        f"{number(row['samples'])} samples, {row['layers']} layers; counted at the MPI calls "
        "(`tests/test_communication_volume.py` asserts the formula to the number, on any grid). "
        "On R x G ranks, per level and gradient, 2 (1 − 1/R) N S/G for states and adjoints and "
        "2 (1 − 1/G) N²/R for the kernel and its gradient; a state alone is half of it: one "
        "product of an N x N and an N x S matrix per level, for which the least is known that "
        "some rank must receive whatever its memory, if each matrix is held once (Al Daas, "
        "Ballard, Grigori, Kumar & Rouse, SPAA 2022, theorem 1). The bound that counts memory "
        "(Irony, Toledo & Tiskin, 2004) is vacuous here: a rank has room for all matrices of a "
        "level.",
        table(
            ["two ranks share", "gradient", "by formula", "state", "bound", "state / bound"], lines
        ).rstrip(),
        "Where samples are many (S ≥ P N) groups of samples attain the bound. Elsewhere the best "
        "grid R/G = N/S moves 2 N (N S/P)^½ per level and product, up to a factor (N/S)^½ (fewer "
        "samples than nodes) or P^⅙ (as many) from it: the next ideas are blocks of the kernel "
        "over a grid, and copies of it where memory allows.",
    ]


def _overlap(found: Row) -> list[str]:
    plain, ahead = found["plain"], found["overlapped"]
    share = found["gathers"] / plain
    pays = share > PAYS and ahead < (1 - PAYS) * plain
    return [
        "## Gathering while computing",
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
    ]


Predicted = dict[tuple[str, str], list[tuple[float, float]]]
"""By mode and operation, size by size: predicted and measured processor seconds."""


def predicted(rows: list[Row], machine: Machine, here: Network) -> Predicted:
    """Two ranks, which the model has not been fitted on."""
    found: Predicted = {}
    for mode, grid in (("width", (2, 1)), ("samples", (1, 2))):
        for what in PRODUCTS:
            found[mode, what] = [
                (
                    total(
                        what,
                        Size(row["nodes"], row["samples"], row["layers"]),
                        *grid,
                        machine,
                        Cluster(here, here, 2),
                    ),
                    float(row[f"{mode} {what} processor"]),
                )
                for row in rows
            ]
    return found


def bias(pairs: Predicted, mode: str | None = None) -> list[float]:
    """Predicted over measured, of one mode or of both."""
    return [
        model / measured
        for (each, _), known in pairs.items()
        if mode in (None, each)
        for model, measured in known
    ]


def _model(rows: list[Row], machine: Machine, here: Network, misfit: float) -> list[str]:
    pairs, lines = predicted(rows, machine, here), []
    for index, row in enumerate(rows):
        for what in PRODUCTS:
            cells = [size_of(row), what, f"{row['rate one processor'] / 1e9:.1f}"]
            for mode in SHARED:
                model, measured = pairs[mode, what][index]
                times = f"{duration(model)} / {duration(measured)}"
                cells.append(f"{times} ({model / measured:.2f})")
            lines.append(cells)
    return [
        "## A model of the time",
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
        table(
            ["nodes, samples, layers", "", "rate, one", *SHARED.values()], lines, text=2
        ).rstrip(),
        _optimism(pairs),
    ]


def _optimism(pairs: Predicted) -> str:
    """How far the model is off, as a sentence."""
    every, by_rows, by_samples = (bias(pairs, mode) for mode in (None, "width", "samples"))
    side = "too short" if max(every) <= 1 else "too long" if min(every) >= 1 else "off either way"
    return (
        f"**The model's times are {side}:** {span(every, '.2f')} of what was measured, "
        f"{span(by_rows, '.2f')} by rows and {span(by_samples, '.2f')} by samples. It is fitted on "
        "one rank, whose sweeps are in C, and by rows they are NumPy's; copies into and out of "
        "what is exchanged are not in it."
    )


def _scaling(machine: Machine, cluster: Cluster, pairs: Predicted) -> list[str]:
    lines = []
    for label, size_at in {**{k: (lambda _, s=s: s) for k, s in STRONG.items()}, **WEAK}.items():
        one = best_grid(size_at(1), 1, machine, cluster)[2]
        for ranks in RANKS:
            size = size_at(ranks)
            R, G, time = best_grid(size, ranks, machine, cluster)
            parts = seconds("gradient", size, R, G, machine, cluster)
            ideal = one / ranks if label in STRONG else one
            work = 6.0 * size.nodes**2 * size.samples * size.layers / ranks
            alone = "more than rows"
            if ranks <= size.nodes:
                by_rows = total("gradient", size, ranks, 1, machine, cluster)
                alone = f"{duration(by_rows)}, {100 * ideal / by_rows:.0f} %"
            lines.append(
                [
                    label,
                    number(ranks),
                    f"{R} x {G}",
                    duration(time),
                    f"{100 * ideal / time:.0f} %",
                    f"{work / time / 1e9:.1f}",
                    f"{100 * parts['communication'] / time:.0f} %",
                    f"{100 * parts['interpreter'] / time:.0f} %",
                    alone,
                ]
            )
    return [
        "## Strong and weak scaling, predicted",
        "Not measured: there are two cores here. Assumed: ranks compute as these do with both "
        "cores busy, at any number of ranks (memory bandwidth grows with them); "
        f"{PER_NODE} ranks per node, among which messages cost what they do here; groups follow "
        f"each other, so one of up to {PER_NODE} ranks stays on a node; {LINK / 1e9:.0f}e9 bytes a "
        "second into a node, shared by its ranks evenly, all of them talking at once; "
        f"{1e6 * OUTSIDE.latency:.0f} µs a message between nodes; no contention elsewhere; nothing "
        "overlapped; the grid that the model finds fastest. Gradients; 32 layers, resnet. The rate "
        "is a rank's in all, in 1e9 operations a second, where large products run at "
        f"{machine.rate / 1e9:.1f}.",
        "*Rows alone* is what `newton` does by itself (see above). On two ranks the model's times "
        f"are {span(bias(pairs, 'width'), '.2f')} of the measured ones by rows and "
        f"{span(bias(pairs, 'samples'), '.2f')} by samples: expect these to be off by as much at "
        "the least.",
        table(
            SCALING,
            lines,
            text=1,
        ).rstrip(),
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
    for (label, size_at), colour in zip(WEAK.items(), ("tab:blue", "tab:orange"), strict=True):
        one = best_grid(size_at(1), 1, machine, cluster)[2]
        efficiency = [one / best_grid(size_at(p), p, machine, cluster)[2] for p in RANKS]
        weak.semilogx(RANKS, efficiency, "o-", color=colour, label=label)
    weak.set(xlabel="ranks", ylabel="efficiency", title="Weak scaling, predicted")
    weak.set_ylim(bottom=0)
    for axes, corner in ((strong, "upper left"), (weak, "lower left")):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8, loc=corner)
    figure.savefig(path, dpi=150)
