"""model_openvino/: model.xml and model.bin for OpenVINO, with the SavedModel's input and outputs.

`python -m entrypoint.results.export.openvino SAVED_MODEL FILE QUANTIZE THRESHOLD` converts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from entrypoint.engines.engine import ClientPhoto
from entrypoint.results import metrics_document
from entrypoint.results.export import converter, saved_model
from entrypoint.results.export.export_format import ExportFormat, Found, every_model
from entrypoint.workspace import Workspace

FILE = "model.xml"
# Where OpenVINO's Model API looks for the lowest score.
THRESHOLD = ["model_info", "confidence_threshold"]
# Runs as it stands in RESULT_DIR, with a photo.
SNIPPET = """\
import json

import numpy as np
import openvino
from PIL import Image, ImageOps

THRESHOLD = 0.5
with open("model_openvino/labels.json", encoding="utf-8") as file:
    labels = json.load(file)
photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")

# Without the hint, newer CPUs compute in bfloat16, which changes scores by some hundredths.
model = openvino.Core().compile_model("model_openvino/model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
found = model({"input_tensor": np.asarray(photo)[None]})
names = ("detection_boxes", "detection_classes", "detection_scores")
boxes, numbers, scores = (found[name][0] for name in names)
for corners, number, score in zip(boxes, numbers, scores):
    if score >= THRESHOLD:
        top, left, bottom, right = (corners * [photo.height, photo.width, photo.height, photo.width]).round()
        print(labels[int(number) - 1], f"{score:.2f}", left, top, right, bottom)
"""


def write(work: Workspace, folder: Path) -> None:
    """Writes the model: uint8 photos [batch, height, width, 3] of any size in.

    Raises:
        JobError: the converter failed.
    """
    options = (work.settings.quantize, metrics_document.recommended_score(work))
    with saved_model.source(work) as source:
        converter.run("entrypoint.results.export.openvino", "OpenVINO's converter", source, folder / FILE, *options)


def convert(source: str, target: str, quantize: str, threshold: str) -> None:
    """Converts in this process. The model names the recommended score, unless it is "None"."""
    import openvino

    model = openvino.convert_model(source)
    if threshold != str(None):
        model.set_rt_info(threshold, THRESHOLD)
    openvino.save_model(model, target, compress_to_fp16=quantize == "float16")


def open_model(folder: Path) -> Callable[[ClientPhoto], Found]:
    """Opens the model in OpenVINO, on the CPU, in float32: by default, newer CPUs compute in bfloat16."""
    import openvino

    model = openvino.Core().compile_model(folder / FILE, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def detect(photo: ClientPhoto) -> Found:
        outputs = model({"input_tensor": photo.pixels[None]})
        return saved_model.found_in({each.any_name: outputs[each] for each in model.outputs})

    return detect


FORMAT = ExportFormat(
    "openvino",
    "model_openvino",
    (FILE, "model.bin"),
    write,
    every_model,
    open_model,
    packages=("openvino",),
    snippet=SNIPPET,
)

if __name__ == "__main__":
    convert(*sys.argv[1:])
