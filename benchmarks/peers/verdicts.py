"""What is aimed at against what the records hold, and why it falls short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.markdown import digits, duration, number, span, table, word
from benchmarks.peers.records import Record
from benchmarks.peers.summary import (
    NAMES,
    Tools,
    groups,
    median_sweeps,
    mostly_reached,
    of,
    rate,
    reached,
    seconds,
    times,
)

AIMS = {"solves": 10.0, "wide": 25.0, "tiny": 50.0}
"""How many times as long as `newton` a peer shall take."""

AGAINST = {"tiny": "casadi_ipopt"}
"""Which peer, where it is not the best of all."""

RATE, PRODUCT, SIZE = 0.8, 2.2, "512 nodes, 512 samples"
"""Of the costs: a gradient's part of the machine's rate at the least, a Hessian product in
gradients at the most, and where."""


def fastest(tools: Tools, named: str | None = None) -> str | None:
    """The peer that gets there first, in most of its runs; of one alone, if it is named."""
    done = {
        tool: seconds(mine)
        for tool, mine in tools.items()
        if tool not in ("newton", "torch_adam")
        and named in (None, tool)
        and mostly_reached(mine)
        and seconds(mine) is not None
    }
    return min(done, key=lambda tool: done[tool] or 0.0, default=None)


def ratio(tools: Tools, peer: str | None) -> float | None:
    """How many times as long as ours a peer takes; None where one of the two did not get there."""
    ours = tools.get("newton", [])
    own = seconds(ours)
    theirs = seconds(tools[peer]) if peer is not None else None
    if own is None or theirs is None or len(reached(ours)) < len(ours):
        return None
    return theirs / own


def verdict_table(records: Sequence[Record], name: str) -> str:
    """Problem by problem: the ratio that is aimed at, whether it is there, and of what it is made.

    A ratio of times is that of sweeps times that of what a sweep takes, its solver's work included.
    """
    aim, named = AIMS[name], AGAINST.get(name)
    head = ["problem", "peer" if named else "fastest peer", f"times as long as we (aim: {aim:.0f})"]
    head += ["aim", *(["fastest of all", "times"] if named else [])]
    head += ["sweeps, ours / its", "time per sweep, ours / its", "rate"]
    rows = []
    for problem, tools in groups(records):
        row = [problem, *_verdict(tools, aim, named)]
        best = fastest(tools)
        if named:
            row += [NAMES[best], times(tools[best], tools.get("newton", []))] if best else ["", ""]
        ours = tools.get("newton", [])
        rows.append([*row, *_made_of(tools, best), rate(ours)])
    return table(head, rows, text=2)


def _verdict(tools: Tools, aim: float, named: str | None) -> list[str]:
    """The peer, how many times as long as ours it takes, and whether that is aimed at."""
    ours = tools.get("newton", [])
    own = seconds(ours)
    if own is None or len(reached(ours)) < len(ours):
        return ["", "", "**not reached**: we did not get there in every run"]
    peer = fastest(tools, named)
    if peer is not None:
        return [NAMES[peer], times(tools[peer], ours), word((ratio(tools, peer) or 0.0) >= aim)]
    peers = [
        seconds(mine)
        for tool, mine in tools.items()
        if tool not in ("newton", "torch_adam") and named in (None, tool)
    ]
    least = min((each for each in peers if each), default=None)
    if least is None:
        return ["none took part", "", ""]
    verdict = "reached" if least / own >= aim else "open: the peers were stopped too early"
    return ["none got there", f"> {digits(least / own)}", verdict]


def _made_of(tools: Tools, peer: str | None) -> list[str]:
    """Sweeps, and the time of one, of both."""
    if ratio(tools, peer) is None or peer in (None, "casadi_ipopt"):
        return ["", ""]
    both = tools["newton"], tools[peer]
    counts, spent = [median_sweeps(mine) for mine in both], [seconds(mine) or 0.0 for mine in both]
    each = [duration(time / count) for time, count in zip(spent, counts, strict=True)]
    return [" / ".join(map(number, counts)), " / ".join(each)]


def cost_aim(problem: str, tool: str, share: float | None, in_gradients: float | None) -> str:
    """Whether our costs reach what is aimed at; empty where nothing is."""
    if tool != "newton" or SIZE not in problem or share is None or in_gradients is None:
        return ""
    missed = [f"rate {share:.1%}"] if share < RATE else []
    missed += [f"product {in_gradients:.2f}"] if in_gradients > PRODUCT else []
    return word(not missed, ", ".join(missed))


def reasons(known: Mapping[str, Sequence[Record]]) -> str:
    """Where the aims are not reached, in numbers of the records, and what might help."""
    found = [
        *_named_problems(known.get("solves", []), known.get("costs", [])),
        *_coarse(known.get("tiny", [])),
        *_gram(known.get("wide", [])),
        *_costs(known.get("costs", [])),
    ]
    head = "## Where an aim is not reached, and the next ideas\n\n"
    return head + "\n".join(f"- {text}" for text in found) + "\n"


def _short(records: Sequence[Record], name: str) -> dict[str, Tools]:
    """The problems whose ratio is below the aim."""
    short = {}
    for problem, tools in groups(records):
        there = ratio(tools, fastest(tools, AGAINST.get(name)))
        if there is not None and there < AIMS[name]:
            short[problem] = tools
    return short


def _named_problems(solves: Sequence[Record], costs: Sequence[Record]) -> list[str]:
    short, found = _short(solves, "solves"), []
    more, fewer = {}, {}
    for problem, tools in short.items():
        peer = fastest(tools)
        assert peer is not None
        ours, mine = tools["newton"], tools[peer]
        dearer = (seconds(ours) or 0.0) / median_sweeps(ours)
        dearer /= (seconds(mine) or 1.0) / median_sweeps(mine)
        place = fewer if median_sweeps(ours) < median_sweeps(mine) else more
        place[problem] = (median_sweeps(ours), median_sweeps(mine), dearer)
    if fewer:
        ours, theirs, dearer = zip(*fewer.values(), strict=True)
        found.append(
            f"*What is left on the named problems* ({', '.join(fewer)}). `newton` takes "
            f"{span(ours)} sweeps and the fastest peer {span(theirs)}, and one of ours takes "
            f"{span(dearer, '.1f')} times as long as one of its. {_share_of_sweeps(solves, costs)}"
            "By a profile, which is not part of the records, two fifths of the time on "
            "`circles_1e-3` are directions (the metric's inverse, and two passes over eight "
            "remembered pairs of vectors of controls, which do not fit into the cache), a tenth "
            "makes metrics, a tenth is Newton's last step. Pairs in the few coordinates that the "
            "states span do not serve, nor do more pairs or a Krylov space "
            "([more work](curved-valley.md)). Sweeps in single precision "
            "would serve until the gradient has fallen to some 1e-3, which is half of the steps: "
            "by estimate a tenth of the time. Next: the coupling of the levels in the metric; with "
            "derivatives in depth penalised, its two products along the depth in one."
        )
    for problem, (own, its, dearer_than) in more.items():
        found.append(
            f"*{problem}.* `newton` takes {number(own)} sweeps here, more than the fastest peer's "
            f"{number(its)}, of which each takes {digits(1 / dearer_than)} times as long as one of "
            "ours. Within bounds it has neither the metric of the curvature nor quasi-Newton "
            "steps. Next: both, on the controls that no bound holds."
        )
    return found


def _share_of_sweeps(solves: Sequence[Record], costs: Sequence[Record]) -> str:
    """What part of a solve's time its sweeps would take at the costs of single calls."""
    ours = dict(groups(solves)).get("circles_1e-3", {}).get("newton")
    same = [r for r in costs if r["tool"] == "newton" and "64 nodes, 32 samples" in r["problem"]]
    if not ours or not same:
        return ""
    products = of(ours, "hessian_products")
    gradients = (median_sweeps(ours) - 4 * products) / 2
    spent = gradients * of(same, "gradient") + products * of(same, "hessian")
    return (
        "At the costs of the last table the sweeps themselves are "
        f"{spent / of(ours, 'cpu_seconds'):.0%} of its time on `circles_1e-3`. "
    )


def _coarse(tiny: Sequence[Record]) -> list[str]:
    short = _short(tiny, "tiny")
    if not short:
        return []
    peer, aim = AGAINST["tiny"], AIMS["tiny"]
    told = "; ".join(
        f"{problem}: {duration(seconds(tools['newton']) or 0.0)}, where a {aim:.0f}th of CasADi's "
        f"is {duration((seconds(tools[peer]) or 0.0) / aim)}"
        for problem, tools in short.items()
    )
    return [
        f"*The coarsest networks* ({told}). The whole solve is mostly Python's own time. Next: "
        "whole stretches of steps in C."
    ]


def _gram(wide: Sequence[Record]) -> list[str]:
    ours = [tools["newton"] for _, tools in groups(wide) if "newton" in tools]
    if not ours:
        return []
    return [
        f"*Gram form* ({span(map(median_sweeps, ours))} sweeps). Where no peer got there the "
        "ratio is a bound from below. The metric is that of L2, in which quasi-Newton steps save "
        "nothing. Next: the pointwise term, K + K D K at every node, inverted there too."
    ]


def _costs(costs: Sequence[Record]) -> list[str]:
    if not any(record["tool"] == "newton" and SIZE in record["problem"] for record in costs):
        return []
    return [
        "*Costs of a gradient and of a product.* The rate here is that of square products; "
        "products of a sweep's own shape, which are what it can have at best, are in "
        "[sweeps](sweep.md), with the reasons of what is lost."
    ]
