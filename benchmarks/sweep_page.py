"""The page of `benchmarks.sweep`: the table, what is aimed at, and why a row falls short."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.markdown import duration, number, span, table, word
from benchmarks.revision import measured_with
from fem_dnn.threads import WORTH_A_THREAD

Row = dict[str, Any]

SHARE, PRODUCT, MEMORY = 0.8, 2.2, 1.3
"""Aims: a gradient's part of the machine's rate at the least; a Hessian product in gradients, and
a peak in terms of what has to be stored, at the most."""

HEAD = (
    "nodes",
    "samples",
    "threads",
    "machine, this shape",
    "machine, square",
    "gradient",
    "of this shape",
    "of square",
    "plain NumPy",
    "of this shape",
    "Hessian product",
    "in gradients",
    "memory: gradient",
    "Hessian product",
    "aims",
)


def operations(row: Row) -> float:
    """Of the matrix products of a gradient."""
    return 6.0 * float(row["nodes"]) ** 2 * row["samples"] * row["layers"]


def ratio_of_peak(row: Row, name: str) -> float:
    """A peak of memory against what has to be stored."""
    return float(row[f"{name}_peak"] / row[f"{name}_needs"])


def missed(row: Row) -> list[str]:
    """The aims that a row does not reach."""
    found = []
    if row["gradient_share"] < SHARE:
        found.append(f"rate {row['gradient_share']:.1%}")
    if row["product_to_gradient"] > PRODUCT:
        found.append(f"product {row['product_to_gradient']:.2f}")
    for name in ("gradient", "product"):
        if ratio_of_peak(row, name) > MEMORY:
            found.append(f"memory {ratio_of_peak(row, name):.2f}")
    return found


def _cells(row: Row) -> list[str]:
    square = row.get("square_gigaflops")
    gradient = operations(row) / row["gradient"] / 1e9
    memory = [
        f"{row[f'{name}_peak'] / 1e6:.0f} MB, {ratio_of_peak(row, name):.2f}"
        for name in ("gradient", "product")
    ]
    return [
        str(row["nodes"]),
        str(row["samples"]),
        str(row["threads"]),
        f"{row['gigaflops']:.1f} GFLOP/s",
        f"{square:.1f} GFLOP/s" if square else "?",
        duration(row["gradient"]),
        f"{row['gradient_share']:.1%}",
        f"{gradient / square:.1%}" if square else "?",
        duration(row["plain"]),
        f"{row['plain_share']:.1%}",
        duration(row["product"]),
        f"{row['product_to_gradient']:.2f}",
        *memory,
        word(not missed(row), ", ".join(missed(row))),
    ]


def page(record: Row) -> str:
    """The page."""
    rows = record["rows"]
    loads = [row["load"] for row in rows]
    cores = f"{record['cores']} cores" if "cores" in record else "a machine"
    text = [
        "# Sweeps against the machine's limit",
        f"{span(row['layers'] for row in rows)} layers, resnet, tanh, l2 loss, kernel and bias, "
        f"double precision, one rank. Medians of {record['rounds']} rounds, in each of which "
        "everything is measured in turn, the second of two calls, so that no thread still waits "
        "for work of what was before. On one thread times are processor times.",
        "The machine's rate is twofold. *This shape*: as many matrix products nodes x nodes x "
        "samples as a gradient (state, adjoint and gradient) consists of, which is what a sweep "
        "can have at best. *Square*: products of order 1 500, the rate that [peers](peers.md) and "
        "[width](width.md) compare with. Parts of either count the 6 nodes² samples layers "
        "operations of the products alone, so time for tanh and for everything else counts "
        "against them." + _without_square(rows),
        "Plain NumPy is a loop over layers that gives the same objective and gradient (checked to "
        f"1e-12; the largest difference here is {max(row['difference'] for row in rows):.0e}). "
        "Memory is the peak against what has to be stored: for a gradient the states, sigma'(u), "
        "control and gradient; for a Hessian product also adjoint, sigma''(u) p, direction, "
        "product, tangent and its pre-activation.",
        f"Aims: a gradient at {SHARE:.0%} of the rate of products of its shape, a Hessian product "
        f"for {PRODUCT} gradients, {MEMORY} times the memory that must be. They are meant for 512 "
        "nodes and 512 samples, on one thread and on two; all rows are held against them.",
        table(HEAD, map(_cells, rows)).rstrip(),
        "## Where an aim is not reached, and the next ideas",
        _reasons(rows),
        "Made by `environment/enter python3 -m benchmarks.sweep` (`--page`: only the page anew, "
        f"from [sweep.json](sweep.json)) on {cores}, shared with other work: the load average was "
        f"{min(loads):.1f} to {max(loads):.1f}. Measured with {measured_with(rows)}.",
    ]
    return "\n\n".join(text) + "\n"


def _without_square(rows: Iterable[Row]) -> str:
    if all("square_gigaflops" in row for row in rows):
        return ""
    return (
        " Rows with a question mark are older than the measurement of square products; the last "
        "table of [peers](peers.md) has a gradient's part of theirs, from another session: it is "
        "smaller, since square products run faster."
    )


def _named(rows: Iterable[Row]) -> str:
    return ", ".join(
        f"{row['nodes']} x {row['samples']} on {row['threads']} "
        f"thread{'s' if row['threads'] > 1 else ''}"
        for row in rows
    )


def _reasons(rows: list[Row]) -> str:
    """Why, in numbers of the record, and what might help."""
    slow = [row for row in rows if row["gradient_share"] < SHARE]
    alone = [
        row
        for row in slow
        if row["threads"] > 1 and 2.0 * row["nodes"] ** 2 * row["samples"] < WORTH_A_THREAD
    ]
    large = [row for row in rows if ratio_of_peak(row, "gradient") > MEMORY]
    found = []
    if slow:
        found.append(_passes(rows, slow))
    idle = [row for row in alone if row["gigaflops"] > 1.2 * _one_thread(rows, row)]
    if idle:
        lost = ", ".join(
            f"{row['gigaflops']:.1f} GFLOP/s against {_one_thread(rows, row):.1f} on one"
            for row in idle
        )
        found.append(
            f"*One thread where there are more* ({_named(idle)}). Below "
            f"{WORTH_A_THREAD:.0e} operations a product the program wakes no second thread, since "
            "on a machine that is busy with something else that loses more than it brings; the "
            f"machine's own products do here ({lost}), and the gradient is held against them. "
            "Next: each thread takes a share of the samples through the whole sweep, as it does "
            "where products are larger, from a smaller size on: it is then woken once a sweep."
        )
    if large:
        arrays = [
            (row["gradient_peak"] - row["gradient_needs"])
            / (8.0 * row["layers"] * row["nodes"] * row["samples"])
            for row in large
        ]
        found.append(
            f"*Memory of a gradient* ({_named(large)}). What is above the count is "
            f"{span(arrays, '.1f')} arrays of the states' size: the adjoint, which is kept at all "
            "layers for the Hessian products that follow, while a gradient alone could take it "
            "layer by layer. Controls outweigh it where nodes are more than samples. Next: the "
            "adjoint kept only where a product is to follow; sigma'(u) of tanh from the states, "
            "1 − ((f_{n+1} − f_n)/tau)²."
        )
    if [row for row in rows if row["product_to_gradient"] > PRODUCT]:
        found.append("*Hessian products*: nothing is known yet of what makes them dear here.")
    return "\n".join(f"- {text}" for text in found) or "Every aim is reached in every row."


def _passes(rows: list[Row], slow: list[Row]) -> str:
    """What a gradient takes beside its products, per number of a state and layer."""

    def beside(row: Row) -> float:
        numbers = row["layers"] * row["nodes"] * row["samples"]
        return float(1e9 * (row["gradient"] - operations(row) / row["gigaflops"] / 1e9) / numbers)

    one = [row for row in rows if row["threads"] == 1] or rows
    products = {row["nodes"]: 6 * row["nodes"] / row["gigaflops"] for row in one}
    told = ", ".join(f"{time:.0f} ns at {number(nodes)} nodes" for nodes, time in products.items())
    return (
        f"*Passes over memory* ({_named(slow)}). Beside its products a gradient takes "
        f"{span(map(beside, one), '.1f')} ns on one thread for every number of a state and layer "
        "(tanh, passes over states and sums; the more, the less of them stays in the cache), and "
        f"its products take 6 nodes / rate: {told}. Passes weigh where nodes are few. Next: "
        "sigma'(u) of tanh made from the states again instead of stored and read; samples in "
        "blocks that stay in the cache from layer to layer."
    )


def _one_thread(rows: list[Row], of: Row) -> float:
    """The rate of products of a row's shape on one thread; its own if that was not measured."""
    size = ("nodes", "samples", "layers")
    same = [row for row in rows if all(row[name] == of[name] for name in size)]
    rates = [float(row["gigaflops"]) for row in same if row["threads"] == 1]
    return rates[0] if rates else float(of["gigaflops"])
