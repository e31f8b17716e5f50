"""model_onnx/: model.onnx for ONNX Runtime, with the removal of duplicates inside, and the SavedModel's outputs.

`python -m entrypoint.results.export.onnx SAVED_MODEL FILE QUANTIZE THRESHOLD` converts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from entrypoint.engines.engine import ClientPhoto
from entrypoint.results import metrics_document
from entrypoint.results.export import converter, saved_model
from entrypoint.results.export.export_format import ExportFormat, Found, every_model
from entrypoint.workspace import Workspace

# The highest that tf2onnx 1.17 writes. ONNX Runtime reads it from 1.14 on.
OPSET = 18
FILE = "model.onnx"
THRESHOLD = "threshold"  # in the model's metadata
LARGE = 256  # weights; smaller tensors are not worth a node
# Runs as it stands in RESULT_DIR, with a photo.
SNIPPET = """\
import json

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

THRESHOLD = 0.5
with open("model_onnx/labels.json", encoding="utf-8") as file:
    labels = json.load(file)
photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")

session = onnxruntime.InferenceSession("model_onnx/model.onnx", providers=["CPUExecutionProvider"])
names = ("detection_boxes", "detection_classes", "detection_scores")
found = session.run(names, {"input_tensor": np.asarray(photo)[None]})
boxes, numbers, scores = (values[0] for values in found)
for corners, number, score in zip(boxes, numbers, scores):
    if score >= THRESHOLD:
        top, left, bottom, right = (corners * [photo.height, photo.width, photo.height, photo.width]).round()
        print(labels[int(number) - 1], f"{score:.2f}", left, top, right, bottom)
"""


def write(work: Workspace, folder: Path) -> None:
    """Writes the model: uint8 photos [batch, height, width, 3] of any size in, the outputs of the SavedModel out.

    Raises:
        JobError: the converter failed, or what it wrote is no valid model.
    """
    options = (work.settings.quantize, metrics_document.recommended_score(work))
    with saved_model.source(work) as source:
        converter.run("entrypoint.results.export.onnx", "tf2onnx", source, folder / FILE, *options)


def convert(source: str, target: str, quantize: str, threshold: str) -> None:
    """Converts in this process, and has the result checked by onnx.

    The metadata of the model has the recommended score as `threshold`, unless it is "None".
    """
    import onnx
    from tf2onnx import convert as tf2onnx

    sys.argv = ["tf2onnx", "--saved-model", source, "--signature_def", "serving_default", "--output", target]
    sys.argv += ["--opset", str(OPSET)]
    tf2onnx.main()
    model = onnx.load(target)
    if quantize == "float16":
        halve(model.graph)
    if threshold != str(None):
        onnx.helper.set_model_props(model, {THRESHOLD: threshold})
    onnx.save(model, target)
    onnx.checker.check_model(target, full_check=True)


def halve(graph: Any) -> None:
    """Stores large weights as float16. The runtime casts them when it loads the model, and computes in float32.

    A graph that computes in float16 would need other operations: the removal of duplicates has none for it.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for each in graph.initializer:
        values = numpy_helper.to_array(each)
        if each.data_type == TensorProto.FLOAT and values.size >= LARGE:
            name, stored = each.name, f"{each.name} as float16"
            each.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
            casts.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def open_model(folder: Path) -> Callable[[ClientPhoto], Found]:
    """Opens the model in ONNX Runtime, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / FILE), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]

    def detect(photo: ClientPhoto) -> Found:
        outputs = session.run(names, {"input_tensor": photo.pixels[None]})
        return saved_model.found_in(dict(zip(names, outputs, strict=True)))

    return detect


FORMAT = ExportFormat(
    "onnx",
    "model_onnx",
    (FILE,),
    write,
    every_model,
    open_model,
    packages=("tf2onnx", "onnx", "onnxruntime"),
    snippet=SNIPPET,
)

if __name__ == "__main__":
    convert(*sys.argv[1:])
