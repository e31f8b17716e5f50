"""model/: a SavedModel with the outputs of upstream's exporter, for batches of photos and of files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from entrypoint.engines import loading
from entrypoint.engines.engine import ClientPhoto
from entrypoint.results.export.export_format import ExportFormat, Found, every_model
from entrypoint.training import train
from entrypoint.workspace import Workspace

FOLDER, FILE = "model", "saved_model.pb"
# Runs as it stands in RESULT_DIR, with a photo.
SNIPPET = """\
import json

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

THRESHOLD = 0.5
FOLDER = "model"
with open(f"{FOLDER}/labels.json", encoding="utf-8") as file:
    labels = json.load(file)
photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")

model = tf.saved_model.load(FOLDER)
found = model(np.asarray(photo)[None])
names = ("detection_boxes", "detection_classes", "detection_scores")
boxes, numbers, scores = (found[name][0].numpy() for name in names)
for corners, number, score in zip(boxes, numbers, scores):
    if score >= THRESHOLD:
        top, left, bottom, right = (corners * [photo.height, photo.width, photo.height, photo.width]).round()
        print(labels[int(number) - 1], f"{score:.2f}", left, top, right, bottom)
"""


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


FORMAT = ExportFormat(
    "saved_model",
    FOLDER,
    (FILE,),
    write,
    every_model,
    open_model,
    is_of_tensorflow=True,
    snippet=SNIPPET,
    is_versioned=True,
)
