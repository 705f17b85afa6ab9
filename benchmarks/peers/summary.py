"""What the records of one tool on one problem come to: medians, ratios, counts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.markdown import digits
from benchmarks.peers.records import Record

NAMES = {
    "newton": "**fem-dnn `newton`**",
    "jax_trust_ncg": "JAX + SciPy trust-ncg",
    "scipy_lbfgsb": "SciPy L-BFGS-B, NumPy gradient",
    "torch_lbfgs": "PyTorch L-BFGS",
    "torch_adam": "PyTorch Adam",
    "casadi_ipopt": "CasADi + IPOPT",
}

Tools = Mapping[str, Sequence[Record]]
"""A problem's records, by tool."""


def groups(records: Sequence[Record]) -> Iterable[tuple[str, Tools]]:
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


def of(records: Sequence[Record], name: str) -> float:
    """The median of what all records have."""
    return float(median(record[name] for record in records))


def reached(records: Sequence[Record]) -> list[Record]:
    """Those that got there."""
    return [record for record in records if record.get("reached")]


def mostly_reached(records: Sequence[Record]) -> bool:
    """Whether more than half got there: only then the median of their times is one to get there."""
    return 2 * len(reached(records)) > len(records)


def seconds(records: Sequence[Record]) -> float | None:
    """Median time of a tool, a run that did not reach the accuracy taking its limit at least."""
    times = [r["cpu_seconds"] for r in records if "cpu_seconds" in r]
    return median(times) if times and len(times) == len(records) else None


def times(mine: Sequence[Record], ours: Sequence[Record]) -> str:
    """How many times as long as ours; at least so many where the accuracy was not reached."""
    own, theirs = seconds(ours), seconds(mine)
    if own is None or theirs is None:
        return ""
    at_least = "" if mostly_reached(mine) else "> "
    same = {r["session"] for r in mine} & {r["session"] for r in ours}
    return f"{at_least}{digits(theirs / own)}{'' if same else '°'}"


def sweeps(record: Record) -> float:
    """A state or an adjoint is one. Peers do not count them: two a gradient, four a product."""
    counted = record.get("sweeps")
    return float(counted or 2 * record["evaluations"] + 4 * record["hessian_products"])


def median_sweeps(records: Sequence[Record]) -> float:
    """Of a tool's runs."""
    return float(median(map(sweeps, records)))


def rate(records: Sequence[Record]) -> str:
    """The machine's rate of matrix products in the processes of some records; empty if unknown."""
    known = [record["gflops"] for record in records if "gflops" in record]
    return f"{median(known):.0f}" if known else ""
