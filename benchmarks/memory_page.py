"""docs/memory.md from its record."""

from __future__ import annotations

from math import comb
from typing import Any

from benchmarks.markdown import digits, number, span, table, word
from benchmarks.revision import measured_with

Row = dict[str, Any]


def revolve(steps: int, checkpoints: int) -> int:
    """Forward steps of one reversal of so many steps with so many checkpoints at the least.

    Griewank & Walther, Algorithm 799 (ACM Trans. Math. Softw. 26, 2000): r steps - C(c + r, r - 1)
    where r is the least with C(c + r, r) >= steps. The first sweep is among them.
    """
    times = 0
    while comb(checkpoints + times, times) < steps:
        times += 1
    return times * steps - comb(checkpoints + times, times - 1) if times else 0


def page(record: dict[str, Any]) -> str:
    """The page as Markdown."""
    rows: list[Row] = record["rows"]
    parts = [
        "# A memory limit, and what it costs\n",
        "`solver.memory_gb` is what a rank may take while it solves. Vectors of controls, samples "
        "and the program itself come first; what is over goes to the trajectories of the samples "
        "(f, sigma'(u), p, sigma''(u) p; df and du in a product), which can be made anew, and to "
        "what solvers remember. In dense form samples are taken a portion at a time, for given the "
        "controls they do not know of each other; some portions may stay. In Gram form, which "
        "couples samples, the depth is taken a stretch at a time. Times are processor times on one "
        f"thread, medians of {record['rounds']}, relative to those without a limit; a solve is "
        f"Newton's from zero to a relative gradient of {record['rtol']:.0e} with the proof of its "
        "minimum; the peak is the whole process's. The rate is that of a matrix product of order "
        f"{record['order']} in the row's own process, in GFLOP/s. Made by `environment/enter "
        f"python3 -m benchmarks.memory` with {measured_with(rows)}.\n",
    ]
    for form, say in (("dense", _dense), ("gram", _gram)):
        some = [row for row in rows if row["form"] == form]
        if some:
            parts.append(say(some))
    return "\n".join(parts)


def _cells(row: Row, whole: Row) -> tuple[str, ...]:
    return (
        f"{row['peak'] / 1e9:.3f} GB",
        "" if row["limit"] is None else f"{row['peak'] / row['limit']:.2f}",
        f"{row['gradient'] / whole['gradient']:.2f}",
        f"{row['product'] / whole['product']:.2f}",
        f"{digits(row['seconds'])} s, {number(row['sweeps'])}",
        f"{row['objective']:.9f}",
        f"{row['rate']:.0f}",
    )


HEAD = ("peak", "of the limit", "gradient", "product", "solve, sweeps", "objective", "rate")


def _limit(row: Row) -> str:
    return "none" if row["limit"] is None else f"{row['limit'] / 1e9:.3f} GB"


def _verdict(rows: list[Row]) -> str:
    limited = [row for row in rows if row["limit"] is not None]
    over = [row for row in limited if row["peak"] > row["limit"]]
    missed = f"{len(over)} of {len(limited)} peaks lie above" if over else ""
    objectives = [row["objective"] for row in rows]
    spread = (max(objectives) - min(objectives)) / abs(objectives[0])
    return (
        f"Every peak within its limit: {word(not over, missed)}. The objectives that the solves "
        f"end at differ by {spread:.0e}, relative.\n"
    )


def _dense(rows: list[Row]) -> str:
    whole, (nodes, samples, layers) = rows[0], rows[0]["size"]
    states = 8.0 * nodes * samples * (layers + 1)
    lines = []
    for row in rows:
        part = -(-samples // row["portions"])
        share = part * (1 + row["resident"]) / samples
        checkpoints = max(1, int(share * layers))
        again = revolve(layers, checkpoints) / layers if row["portions"] > 1 else 1.0
        lines.append(
            (
                _limit(row),
                f"{row['portions']} of {number(part)}",
                str(row["resident"]),
                *_cells(row, whole),
                f"{again:.2f}",
            )
        )
    head = ("limit", "portions", "that stay", *HEAD, "revolve")
    cut = [row for row in rows if row["portions"] > 1]
    gradients = span((row["gradient"] / whole["gradient"] for row in cut), ".2f")
    products, solves, sweeps = (
        span((row[name] / whole[name] for row in cut), ".2f")
        for name in ("product", "seconds", "sweeps")
    )
    return (
        f"## Dense form: {nodes} nodes, {number(samples)} samples, {layers} layers\n\n"
        f"A vector of controls has {whole['control'] / 1e6:.1f} MB, the states of all samples "
        f"{states / 1e6:.0f} MB.\n\n"
        + table(head, lines)
        + f"\nIn portions a gradient takes {gradients} times as long as of all samples at once, a "
        f"product {products} times: 8 sweeps instead of 6 where nothing stays. The last column is "
        "what checkpoints along the depth would do instead: how many times each layer is marched "
        "forward, at the least, for one reversal with as much memory for states (Griewank & "
        "Walther's revolve, their formula) - for a gradient too, where portions march every layer "
        "once. Nor would they come to need less in the end: the trajectories of n samples are "
        "n / nodes of a vector of controls, of which dozens have to be held anyway. That is why "
        "there are portions and no checkpoints. Where samples are in portions, the metric of "
        "Newton's steps is made of one portion, weighted as if it were all, and knows less of the "
        f"Gauss-Newton term where memory is short: a solve takes {sweeps} times the sweeps, "
        f"{solves} times as long. Next: that term by blocks of nodes, which needs less room.\n\n"
        + _verdict(rows)
    )


def _gram(rows: list[Row]) -> str:
    whole, (nodes, samples, layers) = rows[0], rows[0]["size"]
    lines = [(_limit(row), str(row["layers_at_hand"]), *_cells(row, whole)) for row in rows]
    cut = [row for row in rows if row["layers_at_hand"] < layers]
    products = span((row["product"] / whole["product"] for row in cut), ".2f")
    gradients = span((row["gradient"] / whole["gradient"] for row in cut), ".2f")
    return (
        f"## Gram form: {number(nodes)} nodes, {samples} samples, {layers} layers\n\n"
        f"q has {whole['control'] / 1e6:.0f} MB.\n\n"
        + table(("limit", "layers at hand", *HEAD), lines)
        + f"\nIn stretches a gradient takes {gradients} times as long, a product {products} times. "
        "Checkpoints stand where stretches start, and every layer is made anew once per sweep: a "
        "schedule of one level. More levels (revolve) would save starts of stretches, 3 numbers "
        "per node and sample each, while q itself has as many per layer and five vectors of it "
        "have to be held: no schedule comes below these.\n\n" + _verdict(rows)
    )
