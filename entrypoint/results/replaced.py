"""The results of a finished job that this job replaces: which of its files are stale when this job has published."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from entrypoint.results.export import formats
from entrypoint.system import bucket, documents
from entrypoint.system.bucket import Place
from entrypoint.system.errors import UserError
from entrypoint.workspace import Workspace

# The files of a finished job, as this program names them. Checkpoints are not among them: they are removed when a newer
# one is there.
FILES = r"label_map\.pbtxt|pipeline\.config|metrics\.json|report\.html|checkpoint/events/[^/\x00]+"


@dataclass(frozen=True)
class ReplacedDocument:
    """The content of replaced.json: a job.json that was removed, and the RESULT_DIR in which it was."""

    results: str
    manifest: str


def retract(work: Workspace) -> None:
    """Removes the manifest of a job that is about to be replaced, and keeps a copy of it in WORK_DIR."""
    path = work.manifest
    try:
        content = bucket.read(path).decode(errors="replace")
    except FileNotFoundError:
        return
    documents.write(work.replaced, ReplacedDocument(str(work.results), content))
    bucket.remove(path)


def replaced_files(work: Workspace) -> list[Place]:
    """Returns the files of the replaced job in RESULT_DIR. Those that this job does not write again are stale.

    The manifest that names them lay in a bucket where anybody may write: only files below RESULT_DIR count, and only
    those that are named as this program names its own.
    """
    try:
        replaced = documents.read(ReplacedDocument, work.replaced)
        names = json.loads(replaced.manifest)["files"]
    except (FileNotFoundError, UserError, ValueError, KeyError, TypeError, RecursionError):
        return []
    if replaced.results != str(work.results) or not isinstance(names, list):
        return []
    root = work.results.resolve()
    pattern = re.compile(rf"{FILES}|(?:{'|'.join(formats.folders())})/[^\x00]+")
    paths = [work.results / name for name in names if isinstance(name, str) and pattern.fullmatch(name)]
    with bucket.named_errors(root):
        return [path for path in paths if path.resolve().is_relative_to(root) and path.is_file()]
