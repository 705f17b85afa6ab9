"""The page that `fem-dnn check --out DIR` leaves: every statement, its number, its picture.

One HTML file that needs nothing beside it: pictures are in the page.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

VERDICTS = {True: ("holds", "yes"), False: ("fails", "no"), None: ("does not apply", "none")}
"""What `holds` means, and the class that colours it."""

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .7rem .35rem 0;
         border-bottom: 1px solid #ddd; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.yes { color: #1b7837; } .no { color: #b2182b; font-weight: 600; } .none { color: #777; }
.source { color: #777; font-size: .9rem; }
figure { margin: 1.5rem 0; } img { max-width: 100%; } figcaption { color: #555; }
"""

FACTS = (
    ("objective", "objective J"),
    ("loss", "loss"),
    ("regularization", "regularization"),
    ("gradient_norm", "norm of the reduced gradient"),
    ("initial_gradient_norm", "the same at the initial guess"),
    ("iterations", "iterations"),
    ("train_accuracy", "training accuracy"),
    ("test_accuracy", "test accuracy"),
)
"""What of the result stands at the head: its key, and what to call it."""

CAPTIONS = {
    "checks.png": "Norms of state and adjoint with their bounds; the Hamiltonian, which is "
    "constant along depth at a critical point of an autonomous problem.",
    "gramian.png": "Eigenvalues of the controllability Gramian, and the directions of the outputs "
    "of all samples that the controls move least, by sample and output (neuron, or z_k).",
    "convergence.png": "Objective and reduced gradient in the course of the solve.",
    "hidden_state.png": "The hidden state of the first samples over width and depth.",
    "adjoint_state.png": "The adjoint state of the first samples.",
    "kernel.png": "The kernel at some depths.",
    "bias.png": "The bias over width and depth.",
    "confusion.png": "What the network takes which class for.",
}
"""The pictures of a result folder, and what they show."""


def report_page(title: str, result: Mapping[str, Any], pictures: Sequence[tuple[Path, str]]) -> str:
    """The page.

    Args:
        title: What was checked.
        result: The JSON result of `check`.
        pictures: Files that exist, each with a caption, in the order of the page.
    """
    checks = result["checks"]
    counts = {verdict: sum(c["holds"] is verdict for c in checks) for verdict in VERDICTS}
    summary = ", ".join(
        f'<span class="{VERDICTS[verdict][1]}">{count} {VERDICTS[verdict][0]}</span>'
        for verdict, count in counts.items()
    )
    title = escape(title)
    facts = "".join(
        f'<tr><td>{title}</td><td class="number">{_number(result[key])}</td></tr>'
        for key, title in FACTS
        if result.get(key) is not None
    )
    rows = "".join(_row(each) for each in checks)
    figures = "".join(_figure(path, caption) for path, caption in pictures)
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Theory checks: {title}</title><style>{STYLE}</style></head>
<body>
<h1>Theory checks</h1>
<p>{title}, fem-dnn {escape(str(result.get("version", "")))}: {summary}.</p>
<p>{escape(str(result.get("reason", "")))}</p>
<table>{facts}</table>
<h2>Statements</h2>
<table>
<tr><th>statement</th><th></th><th>value</th><th>bound</th><th>what it says</th></tr>
{rows}
</table>
<h2>Pictures</h2>
{figures}
</body>
</html>
"""


def pictures_in(folder: Path) -> list[tuple[Path, str]]:
    """The pictures that a folder holds, with captions, in the order of the page."""
    return [(folder / name, text) for name, text in CAPTIONS.items() if (folder / name).exists()]


def _row(check: Mapping[str, Any]) -> str:
    words, colour = VERDICTS[check["holds"]]
    return (
        f'<tr><td>{escape(check["name"])}</td><td class="{colour}">{words}</td>'
        f'<td class="number">{_number(check["value"])}</td>'
        f'<td class="number">{_number(check["bound"])}</td>'
        f"<td>{escape(check['explanation'])}<br>"
        f'<span class="source">{escape(check["source"])}</span></td></tr>\n'
    )


def _figure(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )


def _number(value: float | int | None) -> str:
    return "" if value is None else f"{value:.6g}"
