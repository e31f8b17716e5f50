"""model_android/: model.tflite for phones, and model_raw.tflite with anchors.json for clients that decode boxes."""

import dataclasses
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entrypoint.data import annotations, examples, records
from entrypoint.engines import loading
from entrypoint.engines.engine import ClientPhoto, Normalization
from entrypoint.results import metrics_document
from entrypoint.results.export import tflite_converter, tflite_metadata
from entrypoint.results.export.export_format import ExportFormat, Found, fixed_inputs_alone
from entrypoint.settings.choices import Quantize
from entrypoint.system import documents, files
from entrypoint.training import train
from entrypoint.workspace import Workspace
from entrypoint.zoo import pipeline_config

# TensorFlow recommends a hundred to five hundred.
CALIBRATION_PHOTOS = 200
# Runs as it stands in RESULT_DIR, with a photo.
SNIPPET = """\
import json

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps

THRESHOLD = 0.5
with open("model_android/labels.json", encoding="utf-8") as file:
    labels = json.load(file)
photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")
with open("model_android/normalization.json", encoding="utf-8") as file:
    normalization = json.load(file)

interpreter = Interpreter("model_android/model.tflite")
detect = interpreter.get_signature_runner()
_, height, width, _ = detect.get_input_details()["input"]["shape"]
with open("pipeline.config", encoding="utf-8") as file:
    is_padded = "pad_to_max_dimension: true" in file.read()
# A model that keeps the shape of photos gets them in the upper left corner.
scale = min(height / photo.height, width / photo.width)
size = (round(photo.width * scale), round(photo.height * scale)) if is_padded else (width, height)
resized = np.asarray(photo.resize(size, Image.Resampling.BILINEAR), np.float32)
values = np.zeros((1, height, width, 3), np.float32)
values[0, : size[1], : size[0]] = (resized - normalization["mean"]) / normalization["std"]
found = detect(input=values)
boxes = found["detection_boxes"][0] * np.tile([height / size[1], width / size[0]], 2)
numbers, scores = found["detection_classes"][0] + 1, found["detection_scores"][0]
for corners, number, score in zip(boxes, numbers, scores):
    if score >= THRESHOLD:
        top, left, bottom, right = (corners * [photo.height, photo.width, photo.height, photo.width]).round()
        print(labels[int(number) - 1], f"{score:.2f}", left, top, right, bottom)
"""


def write(work: Workspace, folder: Path) -> None:
    """Writes model.tflite, for an SSD also model_raw.tflite (one signature each, see the engine), and JSON beside them.

    Clients that decode boxes themselves need anchors.json, and normalise photos by normalization.json.

    Raises:
        JobError: TFLite's converter failed.
    """
    engine, config = loading.load(work)
    with tempfile.TemporaryDirectory(dir=work.root) as scratch:
        checkpoint = train.chosen_checkpoint(work)
        source = engine.export_tflite_source(of_fixed_size(config), checkpoint, Path(scratch) / "source")
        plain, photos = Path(scratch) / "model.tflite", Path(scratch) / "photos"
        photos.mkdir()
        if work.settings.quantize == "int8":
            write_calibration(source.normalization, photos, work)
        targets = {"detect": plain} | ({"raw": folder / "model_raw.tflite"} if source.anchors else {})
        for signature, target in targets.items():
            tflite_converter.run(Path(scratch) / "source", signature, target, work.settings.quantize, photos)
        labels = annotations.load(work).labels
        threshold = metrics_document.recommended_score(work)
        model = tflite_metadata.add(plain.read_bytes(), labels, source.normalization, threshold)
        (folder / "model.tflite").write_bytes(model)
    if source.anchors:
        files.write_json(folder / "anchors.json", source.anchors)
    files.write_json(folder / "normalization.json", dataclasses.asdict(source.normalization))


def write_calibration(normalization: Normalization, folder: Path, work: Workspace) -> None:
    """Writes training photos as the model takes them, float32 [1, height, width, 3], for `int8` to measure ranges."""
    engine, config = loading.load(work)
    train = records.load(work).train
    step = max(1, train.photos // CALIBRATION_PHOTOS)
    encoded = (content for _, content in examples.stored_photos(train.paths(work.records)))
    chosen = itertools.islice(encoded, 0, step * CALIBRATION_PHOTOS, step)
    for index, photo in enumerate(engine.prepare_photos(config, chosen)):
        np.save(folder / f"{index:04d}.npy", normalised(photo, normalization))


def normalised(photo: ClientPhoto, normalization: Normalization) -> NDArray[np.float32]:
    """Returns a photo as the model takes it, float32 [1, height, width, 3].

    The model's own resizer pads photos after they are normalised, so the padding stays as it is.
    """
    mean, std = np.asarray(normalization.mean, np.float32), np.asarray(normalization.std, np.float32)
    values = np.array(photo.resized, np.float32)
    height, width = (round(share * side) for share, side in zip(photo.share, values.shape[:2], strict=True))
    values[:height, :width] = (values[:height, :width] - mean) / std
    return values[None]


def open_model(folder: Path) -> Callable[[ClientPhoto], Found]:
    """Opens model.tflite in LiteRT, on the CPU."""
    from ai_edge_litert.interpreter import Interpreter

    normalization = documents.read(Normalization, folder / "normalization.json")
    run = Interpreter(str(folder / "model.tflite")).get_signature_runner()

    def detect(photo: ClientPhoto) -> Found:
        outputs = run(input=normalised(photo, normalization))
        count = int(outputs["num_detections"][0])
        # Boxes are fractions of the input, of which the photo may be a part, and can reach out of it.
        boxes = np.clip(outputs["detection_boxes"][0][:count] / np.tile(photo.share, 2).astype(np.float32), 0, 1)
        return boxes, outputs["detection_classes"][0][:count].astype(int) + 1, outputs["detection_scores"][0][:count]

    return detect


def of_fixed_size(config: Any) -> Any:
    """Returns the config with an input of one size: a phone's client pads photos itself if the job does."""
    fixed = type(config)()
    fixed.CopyFrom(config)
    height, width = pipeline_config.input_size(config) or (0, 0)
    resizer = pipeline_config.architecture_of(fixed).image_resizer.fixed_shape_resizer
    resizer.height, resizer.width = height, width
    return fixed


def refusal(config: Any, quantize: Quantize) -> str | None:
    """Returns why a model cannot be exported with this QUANTIZE, or None."""
    if quantize == "int8" and config.model.HasField("center_net"):
        return "a CenterNet in 8-bit integers finds nothing; QUANTIZE=dynamic works, and is as small"
    return fixed_inputs_alone("TensorFlow Lite", {"ssd": "SSD", "center_net": "CenterNet"})(config, quantize)


FORMAT = ExportFormat(
    "tflite",
    "model_android",
    ("model.tflite", "normalization.json"),
    write,
    refusal,
    open_model,
    files_of_ssd=("model_raw.tflite", "anchors.json"),
    snippet=SNIPPET,
)
