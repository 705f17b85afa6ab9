"""The page and the picture of `benchmarks.width`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.markdown import digits, number, table, word
from benchmarks.revision import measured_with
from benchmarks.width_aims import MEMORY, full, needed, of, reasons, step_growths, verdicts

Row = dict[str, Any]

COSTS = (
    *("nodes", "dense product", "Gram product", "growth", "solve", "processor", "Newton"),
    *("products", "step", "growth", "rate"),
)
STORAGE = (
    *("nodes", "samples", "layers", "at hand", "what", "wall clock", "processor", "q"),
    *("must store", "peak", "ratio", f"aim {MEMORY}", "rate"),
)


def page(record: Row) -> str:
    """The tables as Markdown."""
    text = [
        "# Cost against width",
        f"{record['samples']} samples, {record['layers']} layers, resnet, tanh, l2 loss, Tikhonov "
        f"weights {record['penalty']}; one thread. A product is one of the Hessian with a vector, "
        f"in processor time, the median of {record['rounds']}. The growth is per doubling of the "
        "width: two widths take turns, and it is the median of their ratios. Solves start at zero "
        f"and end at a relative gradient of {record['rtol']:g}; a step is a Newton step, with all "
        "that belongs to it, and its growth is per doubling too. The machine is shared, so that "
        "wall-clock times vary, and the processor's are given beside. The rate is that of a "
        "matrix product of order 1 500 in the same process, in 1e9 operations per second of "
        "the processor.",
        table(COSTS, _cost_lines(record)).rstrip(),
        *_beyond(record),
        *verdicts(record),
        "![Cost against width](width.png)",
        "## Memory",
        "What must be stored: as arrays of the size of q, five vectors of conjugate gradients (q, "
        "step, residual, direction, product; for a single product q and the direction, which it "
        "takes the place of), and f, sigma', sigma'', w p, df and du of the layers at hand. Where "
        "these are not all layers, f, w p and df are kept where every stretch of the depth "
        "starts, and the rest is made anew from the S x S matrices that are known. The peak is "
        "the whole process's, libraries included. Times of a row without a solve are those of a "
        f"gradient and of a product. Aimed at: a peak of at most {MEMORY} times what must be "
        "stored.",
        table(STORAGE, _memory_lines(record)).rstrip(),
        "## Where an aim is not reached, and the next ideas",
        "\n".join(f"- {reason}" for reason in reasons(record)),
        "Made by `environment/enter python3 -m benchmarks.width`, which measures what "
        "[width.json](width.json) does not have yet: nothing, where it is complete. `--anew` "
        "measures all of it again (`--anew --only solve`: the solves), `--page` only writes the "
        f"page anew. Measured with {measured_with(record['rows'])}.",
    ]
    return "\n\n".join(text) + "\n"


def _cost_lines(record: Row) -> list[list[str]]:
    dense = {row["nodes"]: row["product"] for row in of(record, "dense")}
    whole = [row for row in of(record, "solve") if full(row)]
    solves, steps = {row["nodes"]: row for row in whole}, step_growths(record)
    products = [row for row in of(record, "product") if full(row)]
    times = {row["beside"]: (row["product_beside"], "", row) for row in products[:1]}
    times |= {row["nodes"]: (row["product"], f"{row['growth']:.2f}", row) for row in products}
    lines = []
    for nodes in sorted({*dense, *times, *solves}):
        time, growth, row = times.get(nodes, (None, "", None))
        solved = solves.get(nodes)
        line = [number(nodes), f"{dense[nodes]:.3g} s" if nodes in dense else ""]
        line += [f"{time:.3g} s" if time is not None else "", growth]
        if solved is None:
            line += [""] * 6
        else:
            line += [f"{digits(solved[name])} s" for name in ("seconds", "processor_seconds")]
            line += [str(solved[name]) for name in ("iterations", "hessian_products")]
            line.append(f"{solved['processor_seconds'] / solved['iterations']:.3g} s")
            line.append(f"{steps[nodes]:.2f}" if nodes in steps else "")
        lines.append([*line, f"{(row or solved or {'gflops': 0})['gflops']:.0f}"])
    return lines


def _beyond(record: Row) -> list[str]:
    return [
        f"From {number(row['beside'])} to {number(row['nodes'])} nodes, with {row['layers']} "
        "layers (two widths at once have to fit in memory), a product grows from "
        f"{row['product_beside']:.3g} s to {row['product']:.3g} s: {row['growth']:.2f} per "
        f"doubling (rate {row['gflops']:.0f})."
        for row in of(record, "product")
        if not full(row)
    ]


def _memory_lines(record: Row) -> list[list[str]]:
    lines = []
    for row in [*of(record, "solve"), *of(record, "once")]:
        layers = row.get("layers", record["layers"])
        whole = row["measure"] == "solve"
        must = needed(record, row)
        lines.append(
            [
                number(row["nodes"]),
                str(row.get("samples", record["samples"])),
                str(layers),
                str(row.get("at_once", layers)),
                "solve" if whole else "gradient, product",
                f"{digits(row['seconds'])} s" if whole else "",
                f"{row['processor_seconds']:.3g} s"
                if whole
                else f"{row['gradient_seconds']:.3g} s, {row['product']:.3g} s",
                f"{row['control_gigabytes']:.3g} GB",
                f"{must:.3g} GB",
                f"{row['peak_gigabytes']:.3g} GB",
                f"{row['peak_gigabytes'] / must:.2f}",
                word(row["peak_gigabytes"] <= MEMORY * must),
                f"{row['gflops']:.0f}",
            ]
        )
    return lines


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
