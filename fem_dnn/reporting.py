"""How a command hands over its result: JSON, and the lines that end a run."""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fem_dnn.errors import BadInput
from fem_dnn.files import try_writing

MPIRUN_SECONDS = 0.5
"""How long mpirun is given to pass on standard output: Open MPI 5 drops bytes of what a rank has
printed just before it ends (seen in a quarter of the runs of 120 kB on a busy machine)."""


def require_writable(path: Path) -> None:
    """Complain about the result's file before the work, not after it.

    Raises:
        BadInput: It cannot be written.
    """
    if os.path.isdir(path):
        raise BadInput(None, "--json", f"{path} is a folder", "a file, or - for standard output")
    if not os.path.isdir(path.parent):
        raise BadInput(None, "--json", f"{path.parent} is not a folder", "an existing folder")
    try:
        try_writing(path)
    except OSError as problem:
        raise _not_writable(path, problem) from None


_stdout = 1
"""File descriptor of the standard output that the result goes to."""


def reserve_stdout() -> None:
    """Keep standard output for the result: whatever else is printed there goes to standard error.

    Also what PETSc prints (-snes_monitor), which knows nothing of Python's sys.stdout.
    """
    global _stdout
    sys.stdout.flush()
    _stdout = os.dup(1)
    os.dup2(2, 1)


def write_result(json: str, result: dict[str, Any]) -> None:
    """Write a result to a file or, for "-", to standard output."""
    from fem_dnn.results import as_json, write_json

    if json == "-":
        with os.fdopen(_stdout, "w", closefd=False) as stdout:
            stdout.write(as_json(result))
        if "OMPI_COMM_WORLD_SIZE" in os.environ:
            time.sleep(MPIRUN_SECONDS)
        return
    try:
        write_json(Path(json), result)
    except OSError as problem:
        raise _not_writable(json, problem) from None


def _not_writable(json: str | Path, problem: OSError) -> BadInput:
    return BadInput(None, "--json", f"{json} cannot be written ({problem.strerror})")


def summary(result: dict[str, Any]) -> str:
    """The lines that end a run."""
    lines = []
    if "converged" in result:
        word = "converged" if result["converged"] else "NOT CONVERGED"
        lines.append(f"{word}: {result['reason']}")
    if "samples" in result:
        lines.append(f"{result['samples']} samples predicted")
    if "objective" in result:
        parts = f"loss {result['loss']:.10g}, regularization {result['regularization']:.10g}"
        lines.append(f"objective {result['objective']:.12g} ({parts})")
    if "error_estimate" in result:
        lines += _estimate(result["error_estimate"])
    for name in ("accuracy", "train_accuracy", "test_accuracy"):
        if name in result:
            lines.append(f"{name.replace('_', ' ')} {result[name]:.2%}")
    if "iterations" in result:
        lines.append(
            f"{result['iterations']} iterations, {result['state_solves']} state solves, "
            f"{result['hessian_solves']} Hessian products, {result['seconds']:.2f} s"
        )
    return "\n".join(lines)


def checks_table(result: dict[str, Any]) -> Group:
    """The checks: what holds, what was measured against what, and below each why."""
    width = max((len(each["name"]) for each in result["checks"]), default=0)
    words = {True: ("yes", ""), False: ("NO", "bold red"), None: ("-", "dim")}
    lines: list[RenderableType] = [
        Text(f"{'check':{width}}  holds{'value':>12}{'bound':>12}", style="bold")
    ]
    for each in result["checks"]:
        word, style = words[each["holds"]]
        numbers = ("" if n is None else f"{n:.4g}" for n in (each["value"], each["bound"]))
        tail = "".join(f"{n:>12}" for n in numbers)
        lines.append(Text.assemble(f"{each['name']:{width}}  ", (f"{word:5}", style), tail))
        lines.append(Padding(Text(each["explanation"], style="dim"), (0, 0, 0, 4)))
    return Group(*lines)


def points_table(result: dict[str, Any]) -> Table:
    """The critical points: what they are, how certain that is, and whose copies they are."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    heads = ("point", "kind", "objective", "|gradient|", "neg.", "zero", "lowest eigenvalue")
    for head in (*heads, "copy of"):
        table.add_column(head, justify="left" if head == "kind" else "right", no_wrap=True)
    for each in result.get("points", ()):
        table.add_row(
            str(each["number"]),
            each["kind"],
            f"{each['objective']:.9g}",
            f"{each['gradient_norm']:.1e}",
            str(each["negative_eigenvalues"]),
            str(each["zero_eigenvalues"]),
            f"{each['lowest_eigenvalue']:.4g} ± {each['eigenvalue_bound']:.0e}",
            "" if each["copy_of"] is None else str(each["copy_of"]),
        )
    return table


def branches_table(result: dict[str, Any]) -> Table:
    """The branches of `path`: where they lead, what is on them, what they consist of."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("branch", justify="right", no_wrap=True)
    table.add_column("from", no_wrap=True)
    table.add_column("points", justify="right", no_wrap=True)
    table.add_column(result["parameter"], no_wrap=True)
    table.add_column("on the way", ratio=3, overflow="fold")
    table.add_column("end", ratio=2, overflow="fold")
    for number, branch in enumerate(result["branches"]):
        origin, ends = branch["from"], (branch["parameter"][0], branch["parameter"][-1])
        events = {event["after_points"]: event for event in branch["events"]}
        course: list[str] = []
        for position, kind in enumerate(branch["kind"]):
            if position in events:
                event = events[position]
                course.append(f"[bold]{event['kind']} {event['parameter']:.8g}[/]")
            if not course or course[-1] != kind:
                course.append(kind)
        table.add_row(
            str(number),
            "" if origin is None else str(origin["branch"]),
            str(len(branch["kind"])),
            f"{ends[0]:.6g} to {ends[1]:.6g}",
            ", ".join(course),
            escape(branch["end"]),
        )
    return table


def _estimate(estimate: dict[str, Any]) -> list[str]:
    """The estimated discretisation error, and what it leaves out."""
    parts = {name: estimate[name] for name in ("depth", "width") if estimate[name] is not None}
    words = ", ".join(f"{value:.2e} in {name}" for name, value in parts.items())
    lines = [f"estimated discretisation error of the objective: {words}"] if words else []
    return lines + [f"note: {note}" for note in estimate["notes"]]


def value_lines(result: dict[str, Any]) -> str:
    """The lines that end `fem-dnn value`."""
    word = "converged" if result["converged"] else "NOT CONVERGED"
    rows = {
        "value": result["value"],
        "between the two grids": result["error_estimate"],
        "extrapolated": result["extrapolated"],
        "optimality system's objective": result["optimal_objective"],
        "its error on the depth mesh": result["optimal_objective_error"],
        "closed loop's objective": result["closed_loop_objective"],
        "gradient of V against adjoint": result["adjoint_difference"],
    }
    lines = [f"{word}: {result['reason']}"]
    lines += [f"{name:30} {number:.10g}" for name, number in rows.items() if number is not None]
    grid, kinks = result["grid"], result["nondifferentiable"]
    lines.append(
        f"{' x '.join(map(str, grid['cells']))} cells, {grid['steps']} steps, "
        f"V not differentiable at {kinks['fraction']:.2%} of the states at t = 0, "
        f"{result['seconds']:.2f} s"
    )
    return "\n".join(lines)


def nodes_table(result: dict[str, Any]) -> str:
    """The nodes as comma-separated text."""
    head = ",".join([*(f"x{i}" for i in range(len(result["x"][0]))), "weight"])
    rows = (
        ",".join(map(repr, [*x, w]))
        for x, w in zip(result["x"], result["node_weights"], strict=True)
    )
    return "\n".join([head, *rows])


def comparison_table(result: dict[str, Any]) -> str:
    """Methods side by side, those that converged with the least work first."""
    if "methods" not in result:
        return summary(result)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("method", no_wrap=True)
    heads = ("objective", "gap", "|gradient|", "iterations", "Hessians", "sweeps", "time")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("converged")
    for one in sorted(result["methods"], key=lambda one: (not one["converged"], one["sweeps"])):
        table.add_row(
            one["method"],
            f"{one['objective']:.10g}",
            f"{one['gap']:.1e}",
            f"{one['gradient_norm']:.1e}",
            str(one["iterations"]),
            str(one["hessian_solves"]),
            f"{one['sweeps']:.0f}",
            f"{one['seconds']:.2f} s",
            "yes" if one["converged"] else "NO",
        )
    console = Console(width=200, file=io.StringIO(), color_system=None)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    failed = [
        f"{one['method']}: {one['reason']}" for one in result["methods"] if not one["converged"]
    ]
    return "\n".join([*filter(None, lines), "", *failed, result["reason"]])
