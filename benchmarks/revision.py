"""Which state of our package was measured: what every record carries, and what a page says of it.

Needs git and nothing else, so that drivers outside of the environment have it too.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = "fem_dnn"


def revision(repository: Path = REPOSITORY) -> str:
    """The last commit that has changed our package, by the nearest tag; empty without git.

    "-dirty" behind it: there are changes that are not committed.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(repository), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit = git("log", "-1", "--format=%H", "--", PACKAGE)
        if not commit:
            return ""
        changed = git("status", "--porcelain", "--", PACKAGE)
        return git("describe", "--always", "--tags", commit) + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def measured_with(records: Sequence[dict[str, Any]]) -> str:
    """The versions and commits of some records, for a sentence: "fem-dnn 0.1.0 at abc1234"."""
    versions = sorted({record["version"] for record in records if "version" in record})
    commits = sorted({record["revision"] for record in records if record.get("revision")})
    unnamed = sum(not record.get("revision") for record in records)
    parts = [" ".join(["fem-dnn", ", ".join(versions)]) if versions else "fem-dnn"]
    if commits:
        parts.append("at " + ", ".join(commits))
    if unnamed and not commits:
        parts.append("at a commit that the record does not name")
    elif unnamed:
        parts.append(f"({unnamed} of {len(records)} rows are older and name no commit)")
    return " ".join(parts)
