"""The page and the picture of `benchmarks.width`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

Row = dict[str, Any]

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


def table(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> list[str]:
    """A Markdown table."""
    rows = ["| " + " | ".join(cells) + " |" for cells in (head, *lines)]
    return [rows[0], "|" + "---:|" * len(head), *rows[1:], ""]


def number(value: int) -> str:
    """Thousands apart."""
    return f"{value:,}".replace(",", " ")


def page(record: Row) -> str:
    """The tables as Markdown."""
    dense = {row["nodes"]: row["product"] for row in of(record, "dense")}
    solves = {row["nodes"]: row for row in of(record, "solve") if full(row)}
    products = [row for row in of(record, "product") if full(row)]
    times = {row["beside"]: (row["product_beside"], "", row) for row in products[:1]}
    times |= {row["nodes"]: (row["product"], f"{row['growth']:.2f}", row) for row in products}
    lines = []
    for nodes in sorted({*dense, *times, *solves}):
        time, growth, row = times.get(nodes, (None, "", None))
        solved = solves.get(nodes)
        lines.append(
            (
                number(nodes),
                f"{dense[nodes]:.3g} s" if nodes in dense else "",
                f"{time:.3g} s" if time is not None else "",
                growth,
                *(
                    (
                        f"{solved['seconds']:.3g} s",
                        f"{solved['processor_seconds']:.3g} s",
                        str(solved["iterations"]),
                        str(solved["hessian_products"]),
                    )
                    if solved
                    else ("", "", "", "")
                ),
                f"{(row or solved or {'gflops': 0})['gflops']:.0f}",
            )
        )
    beyond = [
        f"From {number(row['beside'])} to {number(row['nodes'])} nodes, with {row['layers']} "
        "layers (two widths at once have to fit in memory), a product grows from "
        f"{row['product_beside']:.3g} s to {row['product']:.3g} s: {row['growth']:.2f} per "
        "doubling."
        for row in of(record, "product")
        if not full(row)
    ]
    memory = []
    for row in [*of(record, "solve"), *of(record, "once")]:
        layers = row.get("layers", record["layers"])
        whole = row["measure"] == "solve"
        must = needed(record, row)
        memory.append(
            (
                number(row["nodes"]),
                str(row.get("samples", record["samples"])),
                str(layers),
                str(row.get("at_once", layers)),
                "solve" if whole else "gradient, product",
                f"{row['seconds']:.3g} s" if whole else "",
                f"{row['processor_seconds']:.3g} s"
                if whole
                else f"{row['gradient_seconds']:.3g} s, {row['product']:.3g} s",
                f"{row['control_gigabytes']:.3g} GB",
                f"{must:.3g} GB",
                f"{row['peak_gigabytes']:.3g} GB",
                f"{row['peak_gigabytes'] / must:.2f}",
                f"{row['gflops']:.0f}",
            )
        )
    text = [
        "# Cost against width",
        "",
        f"{record['samples']} samples, {record['layers']} layers, resnet, tanh, l2 loss, Tikhonov "
        f"weights {record['penalty']}; one thread. A product is one of the Hessian with a vector, "
        f"in processor time, the median of {record['rounds']}. The growth is per doubling of the "
        "width: two widths take turns, and it is the median of their ratios. Solves start at zero "
        f"and end at a relative gradient of {record['rtol']:g}; the machine is shared, so that "
        "wall-clock times vary, and the processor's are given beside. The rate is that of a "
        "matrix product of order 1 500 in the same process, in 1e9 operations per second of "
        "the processor.",
        "",
        *table(
            (
                "nodes",
                "dense product",
                "Gram product",
                "growth",
                "solve",
                "processor",
                "Newton",
                "products",
                "rate",
            ),
            lines,
        ),
        *beyond,
        "",
        "![Cost against width](width.png)",
        "",
        "## Memory",
        "",
        "What must be stored: as arrays of the size of q, five vectors of conjugate gradients (q, "
        "step, residual, direction, product; for a single product q and the direction, which it "
        "takes the place of), and f, sigma', sigma'', w p, df and du of the layers at hand. Where "
        "these are not all layers, f, w p and df are kept where every stretch of the depth "
        "starts, and the rest is made anew from the S x S matrices that are known. The peak is "
        "the whole process's, some 0.2 GB of libraries included. Times of a row without a solve "
        "are those of a gradient and of a product.",
        "",
        *table(
            (
                "nodes",
                "samples",
                "layers",
                "at hand",
                "what",
                "wall clock",
                "processor",
                "q",
                "must store",
                "peak",
                "ratio",
                "rate",
            ),
            memory,
        ),
        "Not done: a whole solve of a million nodes with 16 samples and 32 layers, whose five "
        "vectors alone are 20.5 GB. Next: the step's length along a direction from the tangent "
        "alone, which makes one of the five superfluous; states made anew once per product "
        "instead of twice; blocks of nodes shared by threads.",
        "",
        "Made by `python3 -m benchmarks.width`.",
        "",
    ]
    return "\n".join(text)


def picture(record: Row, path: Path) -> None:
    """Times against width, with the slopes 1 and 2 to compare with."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    solves, products = (
        [row for row in of(record, measure) if full(row)] for measure in ("solve", "product")
    )
    for rows, name, label, colour, slope in (
        (of(record, "dense"), "product", "dense: Hessian product", "tab:orange", 2),
        (products, "product", "Gram: Hessian product", "tab:blue", 1),
        (
            solves,
            "processor_seconds",
            f"Gram: Newton solve to {record['rtol']:g}",
            "tab:green",
            1,
        ),
    ):
        if not rows:
            continue
        nodes, seconds = np.array([(row["nodes"], row[name]) for row in rows]).T
        axes.loglog(nodes, seconds, "o-", color=colour, label=label)
        axes.loglog(nodes, seconds[-1] * (nodes / nodes[-1]) ** slope, "k:", lw=0.8)
    axes.plot([], [], "k:", lw=0.8, label="slopes 1 and 2")
    axes.set(xlabel="width nodes", ylabel="processor seconds", title="Cost against width")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
