"""model/: a SavedModel with the signature of upstream's exporter."""

from __future__ import annotations

from pathlib import Path

from entrypoint.engines import engine
from entrypoint.training import train
from entrypoint.workspace import Workspace


def write(work: Workspace, folder: Path) -> None:
    """Writes the SavedModel: uint8 photos [1, height, width, 3] of any size in, upstream's detections out."""
    runner, config = engine.load(work)
    runner.export(config, train.last_checkpoint(work), folder)
