"""model/: a SavedModel with the signature of upstream's exporter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from entrypoint.engines import loading
from entrypoint.results.export.export_format import ExportFormat
from entrypoint.training import train
from entrypoint.workspace import Workspace


def write(work: Workspace, folder: Path) -> None:
    """Writes the SavedModel: uint8 photos [1, height, width, 3] of any size in, upstream's detections out."""
    engine, config = loading.load(work)
    engine.export(config, train.chosen_checkpoint(work), folder)


def refusal(config: Any) -> None:
    """Returns None: every model can be exported as a SavedModel."""


FORMAT = ExportFormat("saved_model", "model", ("saved_model.pb",), write, refusal)
