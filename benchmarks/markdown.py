"""What the pages of measurements share: tables, numbers, verdicts. No package is needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]], text: int = 0) -> str:
    """A table; so many first columns are set flush left, the others, numbers, flush right."""
    rule = ["---"] * text + ["---:"] * (len(head) - text)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *rows)) + "\n"


def number(value: float) -> str:
    """A whole number, its thousands apart."""
    return f"{value:,.0f}".replace(",", " ")


def digits(value: float) -> str:
    """To three digits; whole from a thousand on."""
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


def duration(seconds: float) -> str:
    """In ms below a second, in s from there on."""
    return f"{digits(1e3 * seconds)} ms" if seconds < 0.9995 else f"{digits(seconds)} s"


def span(values: Iterable[float], form: str = "") -> str:
    """From the smallest to the largest of some numbers; once where both are written alike."""
    known = list(values)
    ends = [f"{end:{form}}" if form else number(end) for end in (min(known), max(known))]
    return " to ".join(dict.fromkeys(ends))


def word(reached: bool, missed: str = "") -> str:
    """Whether an aim is reached, and where not what misses it."""
    return "reached" if reached else "**not reached**" + (f": {missed}" if missed else "")
