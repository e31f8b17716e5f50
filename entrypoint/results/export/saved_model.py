"""model/: a SavedModel with the outputs of upstream's exporter, for batches of photos and of files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from entrypoint.engines import loading
from entrypoint.engines.engine import ClientPhoto
from entrypoint.results.export.export_format import ExportFormat, Found
from entrypoint.training import train
from entrypoint.workspace import Workspace

FOLDER, FILE = "model", "saved_model.pb"


def write(work: Workspace, folder: Path) -> None:
    """Writes the SavedModel, see the engines for its signatures."""
    engine, config = loading.load(work)
    engine.export(config, train.chosen_checkpoint(work), folder)


@contextmanager
def source(work: Workspace) -> Iterator[Path]:
    """Yields a SavedModel for converters: the exported one, or else one that lasts as long as the block."""
    if "saved_model" in work.settings.exports:
        # It is the first of the formats, whatever their order in EXPORTS.
        yield work.root / FOLDER
        return
    with tempfile.TemporaryDirectory(dir=work.root) as scratch:
        write(work, Path(scratch) / FOLDER)
        yield Path(scratch) / FOLDER


def open_model(folder: Path) -> Callable[[ClientPhoto], Found]:
    """Opens the model in TensorFlow."""
    import tensorflow as tf

    model = tf.saved_model.load(str(folder))

    def detect(photo: ClientPhoto) -> Found:
        return found_in({name: value.numpy() for name, value in model(photo.pixels[None]).items()})

    return detect


def found_in(outputs: Mapping[str, Any]) -> Found:
    """Returns the detections in the outputs for one photo. Empty ones, which fill the outputs, are left out."""
    is_found = outputs["detection_scores"][0] > 0
    boxes, classes = outputs["detection_boxes"][0][is_found], outputs["detection_classes"][0][is_found]
    return boxes, classes.astype(int), outputs["detection_scores"][0][is_found]


def refusal(config: Any) -> None:
    """Returns None: every model can be exported as a SavedModel."""


FORMAT = ExportFormat("saved_model", FOLDER, (FILE,), write, refusal, open_model, is_of_tensorflow=True)
