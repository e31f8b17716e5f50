"""model_ios/: model.mlmodel for iPhones and Macs, an image in and boxes out, with Apple's removal of duplicates behind.

`python -m entrypoint.results.export.coreml SAVED_MODEL FILE FACTS` converts. FACTS is a JSON file of `Facts`.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entrypoint.data import annotations
from entrypoint.engines import loading
from entrypoint.engines.engine import SCALES, Normalization
from entrypoint.results import metrics_document
from entrypoint.results.export import converter, tflite
from entrypoint.results.export.export_format import ExportFormat, fixed_inputs_alone
from entrypoint.system import documents
from entrypoint.training import train
from entrypoint.workspace import Workspace

FILE = "model.mlmodel"
# The outputs of Apple's layer, which Vision reads as detected objects: confidence [boxes, labels], and coordinates
# [boxes, 4], which are x and y of the centre, width and height as fractions of the image.
CONFIDENCE, COORDINATES = "confidence", "coordinates"
VERSION = 5  # of the format: iOS 14
THRESHOLDS = ("iouThreshold", "confidenceThreshold")  # inputs, by which a client can give others than these
IOU_THRESHOLD, CONFIDENCE_THRESHOLD = 0.6, 0.25  # the second one if no score is recommended


@dataclass(frozen=True)
class Facts:
    """What the converter needs beside the SavedModel."""

    labels: tuple[str, ...]
    anchors: tuple[tuple[float, float, float, float], ...]  # y and x of the centre, height, width
    normalization: Normalization
    threshold: float = CONFIDENCE_THRESHOLD  # the lowest score of an object, unless a client gives another one


def write(work: Workspace, folder: Path) -> None:
    """Writes the model in float32.

    Raises:
        JobError: the converter failed.
    """
    engine, config = loading.load(work)
    recommended = metrics_document.recommended_score(work)
    threshold = CONFIDENCE_THRESHOLD if recommended is None else recommended
    with tempfile.TemporaryDirectory(dir=work.root) as scratch:
        source, facts = Path(scratch) / "source", Path(scratch) / "facts.json"
        found = engine.export_tflite_source(tflite.of_fixed_size(config), train.chosen_checkpoint(work), source)
        anchors = tuple((y, x, height, width) for y, x, height, width in found.anchors or ())
        documents.write(facts, Facts(tuple(annotations.load(work).labels), anchors, found.normalization, threshold))
        converter.run("entrypoint.results.export.coreml", "coremltools", source, folder / FILE, facts)


def convert(source: str, target: str, path: str) -> None:
    """Converts in this process, and has the result read by coremltools."""
    import coremltools

    facts = documents.read(Facts, Path(path))
    detector = to_detector(source, facts)
    names = {each.name for each in detector.description.output}
    # The converter names the outputs itself, in the order of their own names.
    for before, after in zip(sorted(names), (CONFIDENCE, COORDINATES), strict=True):
        coremltools.utils.rename_feature(detector, before, f"raw_{after}")
    model = coremltools.proto.Model_pb2.Model(specificationVersion=VERSION)
    model.description.input.extend(detector.description.input)
    add_thresholds(model)
    for name, width in ((CONFIDENCE, len(facts.labels)), (COORDINATES, 4)):
        describe(model.description.output.add(), name, width)
        shaped = next(each for each in detector.description.output if each.name == f"raw_{name}")
        describe(shaped, shaped.name, width, len(facts.anchors))
    model.description.metadata.userDefined["labels"] = "\n".join(facts.labels)
    model.pipeline.models.extend([detector, suppression(facts, detector)])
    coremltools.utils.save_spec(model, target)
    coremltools.utils.load_spec(target)


def to_detector(source: str, facts: Facts) -> Any:
    """Returns a Core ML model without removal of duplicates."""
    import coremltools
    import tensorflow as tf

    loaded = tf.saved_model.load(source)
    raw = loaded.signatures["raw"]
    spec = raw.structured_input_signature[1]["input"]

    @tf.function(input_signature=[tf.TensorSpec(spec.shape, tf.float32, name="image")], autograph=False)
    def decode(image: Any) -> dict[str, Any]:
        # The image type of Core ML has one scale, but a model can have a standard deviation for each channel.
        found = raw(input=(image - facts.normalization.mean) / facts.normalization.std)
        coordinates = to_coordinates(found["box_encodings"][0], facts.anchors)
        return {CONFIDENCE: found["class_predictions"][0][:, 1:], COORDINATES: coordinates}

    image = coremltools.ImageType(name="image", shape=tuple(spec.shape), color_layout=coremltools.colorlayout.RGB)
    functions = [decode.get_concrete_function()]
    result = coremltools.convert(functions, source="tensorflow", convert_to="neuralnetwork", inputs=[image])
    return result.get_spec()


def to_coordinates(encodings: Any, anchors: Sequence[Sequence[float]]) -> Any:
    """Returns boxes [anchors, 4], x and y of the centre, width and height, from encodings [anchors, 4].

    The encoding is that of Faster R-CNN (arXiv:1506.01497, section 3.1.2).
    """
    import numpy as np
    import tensorflow as tf

    y, x, height, width = np.array(anchors, np.float32).T
    ty, tx, th, tw = tf.unstack(encodings / SCALES, axis=1)
    return tf.stack([tx * width + x, ty * height + y, tf.exp(tw) * width, tf.exp(th) * height], axis=1)


def suppression(facts: Facts, detector: Any) -> Any:
    """Returns Apple's layer that removes duplicates, for the outputs of a detector.

    The fields are those of NonMaximumSuppression.proto in Core ML's specification.
    """
    import coremltools

    model = coremltools.proto.Model_pb2.Model(specificationVersion=VERSION)
    model.description.input.extend(detector.description.output)
    add_thresholds(model)
    layer = model.nonMaximumSuppression
    for name, width in ((CONFIDENCE, len(facts.labels)), (COORDINATES, 4)):
        describe(model.description.output.add(), name, width)
        setattr(layer, f"{name}InputFeatureName", f"raw_{name}")
        setattr(layer, f"{name}OutputFeatureName", name)
    layer.iouThreshold, layer.confidenceThreshold = IOU_THRESHOLD, facts.threshold
    layer.iouThresholdInputFeatureName, layer.confidenceThresholdInputFeatureName = THRESHOLDS
    layer.pickTop.perClass = True
    layer.stringClassLabels.vector.extend(facts.labels)
    return model


def add_thresholds(model: Any) -> None:
    """Adds the inputs for thresholds, which a client can leave out."""
    for name in THRESHOLDS:
        feature = model.description.input.add(name=name)
        feature.type.isOptional = True
        feature.type.doubleType.SetInParent()


def describe(feature: Any, name: str, width: int, boxes: int | None = None) -> None:
    """Makes a feature an array [boxes, width] of float32; None is any number of boxes."""
    feature.name = name
    array = feature.type.multiArrayType
    array.Clear()
    array.dataType = array.FLOAT32
    if boxes is not None:
        array.shape.extend([boxes, width])
        return
    for low, high in ((0, -1), (width, width)):
        array.shapeRange.sizeRanges.add(lowerBound=low, upperBound=high)


FORMAT = ExportFormat("coreml", "model_ios", (FILE,), write, fixed_inputs_alone("Core ML"), packages=("coremltools",))

if __name__ == "__main__":
    convert(*sys.argv[1:])
