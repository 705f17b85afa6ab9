"""The records in docs/peers.json: one per run, kept as soon as it is there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
PATH = DOCS / "peers.json"

Record = dict[str, Any]

KEY = ("table", "problem", "tool", "run", "threads")
"""What tells records apart: a new one takes the place of an old one that agrees in all of these."""


def read() -> list[Record]:
    """The records so far."""
    return json.loads(PATH.read_text()) if PATH.exists() else []


def key(record: Record) -> tuple[Any, ...]:
    """What tells a record from others."""
    return tuple(record[name] for name in KEY)


def keep(records: list[Record], record: Record) -> None:
    """Add a record in place of an older one, and write all of them, whole or not at all."""
    records[:] = [old for old in records if key(old) != key(record)] + [record]
    records.sort(key=lambda r: tuple(map(str, key(r))))
    write_whole(PATH, "[\n" + ",\n".join(map(json.dumps, records)) + "\n]\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is never seen half-written."""
    new = path.with_suffix(path.suffix + ".new")
    new.write_text(text)
    os.replace(new, path)
