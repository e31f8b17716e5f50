"""The trained model is exported to every chosen format, each with labels.json and threshold.json."""

import logging
import shutil
from dataclasses import dataclass, fields
from pathlib import Path

from entrypoint import workspace
from entrypoint.data import annotations
from entrypoint.results import metrics_document
from entrypoint.results.analysis.document import OperatingPoint
from entrypoint.results.export import formats
from entrypoint.results.export.export_format import ExportFormat
from entrypoint.system import documents, files
from entrypoint.system.errors import JobError
from entrypoint.workspace import Workspace
from entrypoint.zoo import pipeline_config

logger = logging.getLogger("job")

LABELS, THRESHOLD = "labels.json", "threshold.json"


@dataclass(frozen=True)
class ExportedDocument:
    """The content of exported.json: the formats that were written, and why the others were not."""

    written: tuple[str, ...]
    failed: dict[str, str]


def run(work: Workspace) -> str:
    """Writes every format; returns a digest of what was exported.

    A converter that fails does not keep the job from the other formats. The job reports it at its end, and tries again
    when it is started again.
    """
    labels, point = annotations.load(work).labels, metrics_document.load(work).recommended
    chosen = formats.load(work)
    failures = {each.name: write(each, labels, point, work) for each in chosen}
    failed = {name: words for name, words in failures.items() if words}
    written = tuple(name for name, words in failures.items() if not words)
    documents.write(work.exported, ExportedDocument(written, failed))
    return files.digest([written, failed, labels, point, workspace.output_of("train", work)])


def write(each: ExportFormat, labels: list[str], point: OperatingPoint | None, work: Workspace) -> str:
    """Writes a format with its labels and the recommended score; returns why it failed, or an empty text."""
    try:
        with files.new_folder(work.root / each.folder) as folder:
            each.write(work, folder)
            # In the order of the ids, without the background, as the clients of Cloud Annotations read it.
            files.write_json(folder / LABELS, labels)
            files.write_json(folder / THRESHOLD, point or {field.name: None for field in fields(OperatingPoint)})
    except JobError as error:
        # What an earlier run wrote is of other weights.
        shutil.rmtree(work.root / each.folder, ignore_errors=True)
        logger.warning("export: %s failed: %s", each.name, error)
        return str(error)
    logger.info("export: %s in %s", each.name, each.folder)
    return ""


def outputs(work: Workspace) -> list[Path]:
    """Returns the files that the step leaves in WORK_DIR."""
    config = pipeline_config.read(work.pipeline)
    written = map(formats.format_of, load(work).written)
    return [
        work.exported,
        *(work.root / each.folder / name for each in written for name in (*each.files_for(config), LABELS, THRESHOLD)),
    ]


def load(work: Workspace) -> ExportedDocument:
    """Returns what the step wrote."""
    return documents.read(ExportedDocument, workspace.existing(work.exported, "export"))
