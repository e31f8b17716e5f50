"""job.json: the description of a job, which is written last into RESULT_DIR. It marks a finished job."""

import contextlib
import importlib.metadata
import platform
from typing import Any

from entrypoint import workspace
from entrypoint.data import annotations, quality, records
from entrypoint.results import metrics_document
from entrypoint.system import documents, version
from entrypoint.system.printable import redact
from entrypoint.training import start_checkpoint
from entrypoint.workspace import Workspace

SHOWN = 20  # places of a finding
PACKAGES = ("tensorflow", "tensorflow-cpu", "tf-keras", "object_detection", "slim", "numpy", "protobuf", "pillow")


def describe(work: Workspace) -> dict[str, Any]:
    """Returns the settings, versions, the data's fingerprint, the steps that ran and their times, and the metrics."""
    marks = {name: mark for name, mark in workspace.read_marks(work).items() if name != "publish"}
    start = start_checkpoint.load(work)
    return {
        "version": version.describe(),
        "settings": shown_settings(work),
        "versions": versions(),
        "start": {"archive": start.archive, "archive_sha256": start.archive_sha256} if start else None,
        "data": {"sha256": marks["tf_record"].output, **describe_data(work)},
        "steps": {name: {"began": mark.began, "seconds": mark.seconds} for name, mark in marks.items()},
        "metrics": documents.to_plain(metrics_document.load(work).summary),
    }


def describe_data(work: Workspace) -> dict[str, Any]:
    """Returns counts of the data, and what was repaired or skipped, with the count and the first few places."""
    dataset, manifest = annotations.load(work), records.load(work)
    kinds = dataset.findings.kinds | manifest.kinds()
    splits: dict[str, dict[str, Any]] = documents.to_plain(manifest)["splits"]
    return {
        "splits": {
            name: {key: value for key, value in split.items() if key != "shards"} for name, split in splits.items()
        },
        "unlabelled": dataset.unlabelled,
        "found": {kind: {"count": len(where), "where": where[:SHOWN]} for kind, where in kinds.items()},
        "advice": quality.describe_problems(manifest.quality),
    }


def shown_settings(work: Workspace) -> dict[str, Any]:
    """Returns the settings in JSON's types, without the user names and passwords that an address can hold."""
    values = work.settings.model_dump(mode="json")
    return {key: redact(value) if isinstance(value, str) else value for key, value in values.items()}


def versions() -> dict[str, str]:
    """Returns Python's version and those of the packages that decide the result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
