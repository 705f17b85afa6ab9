"""Orders of convergence as fitted slopes, in depth and in width, on interval, square and disc.

    environment/enter python3 benchmarks/orders.py

prints every table and writes docs/orders.md and docs/orders.json.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.closed_forms import RankOne
from benchmarks.errors import Comparison, Errors, bias_only, constant_operator, levels_of
from benchmarks.manufactured import Manufactured
from benchmarks.measure import DOMAINS, Quadrature, slope, width_space
from fem_dnn.depth import SCHEMES

DETOUR = 0.5
"""Size of delta where a gradient is measured that does not vanish."""

LAYERS = {"resnet": [16, 32, 64], "dg0": [12, 24, 48], "dg1": [8, 16, 32], "dg2": [8, 12, 16]}
FEW_NODES = {"interval": (3, 1), "square": (2, 0), "disc": (2, 0)}
"""Size and degree of the width spaces in which orders in depth are measured."""

CELLS = {
    ("interval", 0): [16, 32, 64],
    ("interval", 1): [8, 16, 32],
    ("interval", 2): [6, 8, 12],
    ("square", 0): [6, 12, 24],
    ("square", 1): [4, 8, 12],
    ("square", 2): [3, 4, 6],
    ("disc", 0): [6, 9, 12],
    ("disc", 1): [4, 6, 8],
    ("disc", 2): [4, 6, 7],
}
"""Sizes of the meshes on which orders in width are measured, by domain and degree."""


@dataclass(frozen=True)
class Row:
    """One fitted slope.

    Attributes:
        domain, method, quantity: What is measured; the method is a depth scheme or a width degree.
        expected: Order that the theory predicts.
        fitted: Slope of the logarithms.
        sizes: Layers or cells.
        errors: One for each size.
    """

    domain: str
    method: str
    quantity: str
    expected: int
    fitted: float
    sizes: list[int]
    errors: list[float]


def expected_in_depth(scheme: str, quantity: str) -> int:
    """2q + 1 for slab ends and functionals, q + 1 in L2 over the depth; 1 for resnet."""
    return SCHEMES[scheme].levels if "L2" in quantity else SCHEMES[scheme].order


def expected_in_width(degree: int, quantity: str) -> int:
    """r + 1 in L2, 2r + 2 for functionals."""
    functional = "objective" in quantity or "derivative" in quantity
    return 2 * degree + 2 if functional else degree + 1


def _rows(
    domain: str,
    method: str,
    sizes: Sequence[int],
    measure: Callable[[int], Errors],
    expected: Callable[[str], int],
) -> list[Row]:
    results = [measure(n) for n in sizes]
    rows = []
    for name in results[0]:
        errors = [each[name] for each in results]
        rows.append(
            Row(domain, method, name, expected(name), slope(sizes, errors), list(sizes), errors)
        )
    return rows


def depth_rows(
    domain: str, scheme: str, case: str, layers: Sequence[int] | None = None
) -> list[Row]:
    """Orders in depth.

    Args:
        domain: interval | square | disc.
        scheme: Depth scheme.
        case: manufactured | optimum | rank one | constant operator.
        layers: Numbers of layers.
    """
    space = width_space(domain, *FEW_NODES[domain])
    nodal = Quadrature.nodal(space)

    def measure(n: int) -> Errors:
        levels = levels_of(scheme, n)
        if case == "constant operator":
            return constant_operator(space, levels)
        if case == "rank one":
            return Comparison(RankOne(nodal), space, levels).given_control()
        if case == "optimum":
            return Comparison(Manufactured(nodal, False), space, levels).optimum()
        return Comparison(Manufactured(nodal, False, DETOUR), space, levels).given_control()

    return _rows(
        domain, scheme, layers or LAYERS[scheme], measure, lambda q: expected_in_depth(scheme, q)
    )


def width_rows(
    domain: str, degree: int, case: str, cells: Sequence[int] | None = None
) -> list[Row]:
    """Orders in width.

    Args:
        domain: interval | square | disc.
        degree: Degree of the width space.
        case: manufactured | optimum | bias only.
        cells: Sizes of the meshes, members of the domain's family.
    """

    def measure(n: int) -> Errors:
        space = width_space(domain, n, degree)
        if case == "bias only":
            return bias_only(space)
        fine, levels = Quadrature.fine(space), levels_of("dg1", 2)
        if case == "optimum":
            return Comparison(Manufactured(fine, True), space, levels).optimum()
        return Comparison(Manufactured(fine, True, DETOUR), space, levels).given_control()

    return _rows(
        domain,
        str(degree),
        cells or CELLS[domain, degree],
        measure,
        lambda q: expected_in_width(degree, q),
    )


DEPTH_CASES = {
    "manufactured": "Given controls, manufactured solution",
    "optimum": "Learned controls, manufactured optimum",
    "rank one": "Closed form: rank-one kernel, tanh (theory 9.1)",
    "constant operator": "Closed form: constant operator, linear (theory 9.4)",
}
WIDTH_CASES = {
    "manufactured": "Given controls, manufactured solution",
    "optimum": "Learned controls, manufactured optimum",
    "bias only": "Closed form: bias only, three samples (theory 9.2, 9.3)",
}


def all_tables(report: Callable[[str], None] = print) -> dict[str, dict[str, list[Row]]]:
    """Every table: depth and width, by case."""
    tables: dict[str, dict[str, list[Row]]] = {"depth": {}, "width": {}}
    for case, title in DEPTH_CASES.items():
        tables["depth"][case] = [
            row for domain in DOMAINS for s in SCHEMES for row in depth_rows(domain, s, case)
        ]
        report(f"\nDepth. {title}\n\n{as_markdown(tables['depth'][case], 'scheme')}")
    for case, title in WIDTH_CASES.items():
        tables["width"][case] = [
            row for domain, degree in CELLS for row in width_rows(domain, degree, case)
        ]
        report(f"\nWidth. {title}\n\n{as_markdown(tables['width'][case], 'degree')}")
    return tables


def as_markdown(rows: Sequence[Row], method: str) -> str:
    """One line per fitted slope."""
    lines = [
        f"| domain | {method} | quantity | expected | fitted | errors (sizes) |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        errors = ", ".join(f"{e:.1e} ({n})" for e, n in zip(row.errors, row.sizes, strict=True))
        lines.append(
            f"| {row.domain} | {row.method} | {row.quantity} | {row.expected} | "
            f"{row.fitted:.2f} | {errors} |"
        )
    return "\n".join(lines)


def summary(rows: Sequence[Row]) -> str:
    """Quantities down, methods across: the fitted slopes on the three domains."""
    methods = list(dict.fromkeys(row.method for row in rows))
    quantities = list(dict.fromkeys(row.quantity for row in rows))
    lines = [
        "| quantity | " + " | ".join(methods) + " |",
        "|---|" + "---|" * len(methods),
    ]
    for quantity in quantities:
        cells = []
        for method in methods:
            these = [r for r in rows if r.quantity == quantity and r.method == method]
            fitted = ", ".join(f"{row.fitted:.2f}" for row in these)
            cells.append(f"**{these[0].expected}**: {fitted}")
        lines.append(f"| {quantity} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print every table; write docs/orders.md and docs/orders.json."""
    from benchmarks.orders_page import page

    started = time.perf_counter()
    tables = all_tables()
    print(f"\n{time.perf_counter() - started:.0f} s")
    docs = Path(__file__).resolve().parent.parent / "docs"
    numbers = {
        axis: {case: [asdict(row) for row in rows] for case, rows in cases.items()}
        for axis, cases in tables.items()
    }
    (docs / "orders.json").write_text(json.dumps(numbers, indent=1) + "\n")
    (docs / "orders.md").write_text(page(tables))


if __name__ == "__main__":
    main()
