"""What a case may ask for and the program cannot do yet: refused, never ignored."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fem_dnn.errors import BadInput

if TYPE_CHECKING:
    from fem_dnn.case.schema import Case

_BOUNDED = "newton, lbfgs, sweep, layerwise, gradient"

NOT_YET: list[tuple[str, Callable[[Case], bool], str]] = [
    (
        "bounds",
        lambda c: c.solver.method == "all-at-once" and c.bounds != type(c.bounds)(),
        f"with solver.method = {_BOUNDED}",
    ),
]
"""Key, whether a case asks for it, and what can be asked for instead."""


def require_supported(case: Case) -> None:
    """Refuse what the program cannot do yet.

    Raises:
        BadInput: The case asks for something in `NOT_YET`.
    """
    for key, asked, allowed in NOT_YET:
        if asked(case):
            raise BadInput(None, key, "is not supported yet", f"for now {allowed}")
