"""The engine of TF1 models, with the interface that the steps use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from entrypoint.engines.engine import Detections, Engine, Trainer
from entrypoint.engines.tf1 import detector, exporter, model, trainer
from entrypoint.settings.schema import Settings


class Tf1Engine(Engine):
    """Trains slim models in graph mode, on one device; see Engine for the methods."""

    def extractors(self) -> set[str]:  # noqa: D102
        return model.extractors()

    def build(self, config: Any, settings: Settings, step: int, repeats: list[float] | None) -> Trainer:  # noqa: D102
        return trainer.build(config, settings, step, repeats)

    def evaluate(self, config: Any, checkpoint: Path, records: list[str]) -> Iterator[Detections]:  # noqa: D102
        return detector.evaluate(config, checkpoint, records)

    def export(self, config: Any, checkpoint: Path, folder: Path) -> None:  # noqa: D102
        exporter.export(config, checkpoint, folder)

    def export_tflite_source(self, config: Any, checkpoint: Path, folder: Path) -> list[list[float]]:  # noqa: D102
        return exporter.export_tflite_source(config, checkpoint, folder)
