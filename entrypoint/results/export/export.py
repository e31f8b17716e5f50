"""The trained model is exported to every chosen format, each with labels.json."""

import logging
from pathlib import Path

from entrypoint import workspace
from entrypoint.data import annotations
from entrypoint.results.export import formats
from entrypoint.system import files
from entrypoint.workspace import Workspace

logger = logging.getLogger("job")

LABELS = "labels.json"


def run(work: Workspace) -> str:
    """Writes every format; returns a digest of what was exported."""
    labels = annotations.load(work).labels
    chosen = formats.load(work)
    for each in chosen:
        with files.new_folder(work.root / each.folder) as folder:
            each.write(work, folder)
            # In the order of the ids, without the background, as the clients of Cloud Annotations read it.
            files.write_json(folder / LABELS, labels)
        logger.info("export: %s in %s", each.name, each.folder)
    return files.digest([[each.name for each in chosen], labels, workspace.output_of("train", work)])


def outputs(work: Workspace) -> list[Path]:
    """Returns the files that the step leaves in WORK_DIR."""
    return [work.root / each.folder / name for each in formats.load(work) for name in (*each.files, LABELS)]
