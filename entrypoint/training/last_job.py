"""The manifest of the last finished job in RESULT_DIR: removed when this job begins to replace its results.

The manifest lay in a bucket where anybody may write: its content can be anything.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from entrypoint.system import bucket, documents
from entrypoint.system.errors import UserError
from entrypoint.workspace import Workspace


@dataclass(frozen=True)
class Replaced:
    """The content of replaced.json: a job.json that was removed, and the RESULT_DIR in which it was."""

    results: str
    manifest: str


def retract(work: Workspace) -> None:
    """Removes the manifest from RESULT_DIR, and keeps a copy of it in WORK_DIR."""
    try:
        content = bucket.read(work.manifest).decode(errors="replace")
    except FileNotFoundError:
        return
    documents.write(work.replaced, Replaced(str(work.results), content))
    bucket.remove(work.manifest)


def load_replaced(work: Workspace) -> dict[str, Any]:
    """Returns the manifest that was removed from RESULT_DIR; empty if there was none, or if it is not an object."""
    try:
        replaced = documents.read(Replaced, work.replaced)
    except (FileNotFoundError, UserError):
        return {}
    return to_object(replaced.manifest) if replaced.results == str(work.results) else {}


def load(work: Workspace) -> dict[str, Any]:
    """Returns the manifest in RESULT_DIR, or the one that was removed from it; empty if there is none."""
    try:
        return to_object(bucket.read(work.manifest).decode(errors="replace"))
    except OSError:
        return load_replaced(work)


def to_object(text: str) -> dict[str, Any]:
    """Returns the JSON object in a text; an empty one if there is none."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
