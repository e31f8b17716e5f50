"""Writes a trained model as a SavedModel, for servers and for the conversion to TFLite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from object_detection import export_tflite_graph_lib_tf2, exporter_lib_v2

from entrypoint.engines.engine import MAX_DETECTIONS, TFLiteSource
from entrypoint.engines.shared import anchors, normalization
from entrypoint.engines.tf2 import model as models


class Exported(tf.Module):
    """Only the functions and the variables that they read.

    If the model itself were saved, Keras would trace each of its layers again, and nobody loads these traces.
    """

    def __init__(self, functions: Mapping[str, Any], model: Any) -> None:
        super().__init__()
        self.weights = [variable for _, variable in models.named_variables(model)]
        for name, function in functions.items():
            setattr(self, name, function)


def export(config: Any, checkpoint: Path, folder: Path) -> None:
    """Writes a SavedModel from uint8 photos [1, height, width, 3] of any size to upstream's detections."""
    model = models.load_trained(config, str(checkpoint))
    function = exporter_lib_v2.DetectionFromImageModule(model).__call__
    exported = Exported({"__call__": function}, model)
    # Not a concrete function: TensorFlow would trace the model once more while it saves it.
    tf.saved_model.save(exported, str(folder), signatures=function)


def export_tflite_source(config: Any, checkpoint: Path, folder: Path) -> TFLiteSource:
    """Writes a SavedModel of an SSD for TFLite's converter and returns what belongs to it.

    Both signatures take normalised photos, float32 [1, height, width, 3]. `detect` returns detection_boxes,
    detection_classes (from 0), detection_scores and num_detections; `raw` returns the result of `anchors.raw_outputs`.
    """
    model = models.load_trained(config, str(checkpoint))
    module = export_tflite_graph_lib_tf2.SSDModule(config, model, MAX_DETECTIONS, use_regular_nms=True)
    spec = tf.TensorSpec(module.input_shape(), tf.float32, name="input")

    @tf.function(input_signature=[spec], autograph=False)
    def detect(image: Any) -> dict[str, Any]:
        names = ("num_detections", "detection_scores", "detection_classes", "detection_boxes")
        return dict(zip(names, module.inference_fn(image), strict=True))

    @tf.function(input_signature=[spec], autograph=False)
    def raw(image: Any) -> dict[str, Any]:
        return anchors.raw_outputs(config, model.predict(image, None))

    functions = {"detect": detect, "raw": raw}
    tf.saved_model.save(Exported(functions, model), str(folder), signatures=functions)
    predictions = model.predict(tf.zeros(module.input_shape()), true_image_shapes=None)
    centers = anchors.rounded(anchors.to_centers(predictions["anchors"]).numpy())
    size = module.input_shape()
    scaling = normalization.measure(lambda value: model.preprocess(tf.fill(size, value))[0][0, 0, 0].numpy())
    return TFLiteSource(centers, scaling)
