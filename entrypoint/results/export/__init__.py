"""The trained model in the formats that were asked for: one module per format, `write(work, folder)` in each."""

import importlib
import logging
from pathlib import Path

from entrypoint import workspace
from entrypoint.data import annotations
from entrypoint.workspace import Workspace

logger = logging.getLogger("job")

FOLDERS = {"saved_model": "model", "tflite": "model_android"}


def run(work: Workspace) -> str:
    """Writes every format of EXPORTS, each with labels.json; returns what identifies them."""
    labels = annotations.load(work).labels
    formats = chosen(work)
    for name in formats:
        with workspace.new_folder(work.root / FOLDERS[name]) as folder:
            importlib.import_module(f"entrypoint.results.export.{name}").write(work, folder)
            # In the order of the ids, without the background, as the clients of Cloud Annotations read it.
            workspace.write_json(folder / "labels.json", labels)
        logger.info("export: %s in %s", name, FOLDERS[name])
    return workspace.digest([formats, labels, workspace.output_of("train", work)])


def chosen(work: Workspace) -> list[str]:
    """The formats of this job, which `pipeline` chose: not every model can be exported to every one."""
    return list(workspace.read_json(work.changes, "pipeline")["exports"])


def outputs(work: Workspace) -> list[Path]:
    """The files that the step leaves in WORK_DIR."""
    return [work.root / FOLDERS[name] / "labels.json" for name in chosen(work)]
