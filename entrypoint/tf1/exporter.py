"""The trained slim model as a SavedModel, with the names that the other engine gives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow.compat.v1 as tf
from object_detection import export_tflite_graph_lib_tf2
from object_detection.builders import post_processing_builder

from entrypoint import anchors
from entrypoint.engine import MAX_DETECTIONS
from entrypoint.tf1 import model as models

# The outputs of TFLite's operation, in its order.
POST_PROCESSED = ("detection_boxes", "detection_classes", "detection_scores", "num_detections")


def export(config: Any, checkpoint: Path, folder: Path) -> None:
    """Writes a SavedModel: uint8 photos [1, height, width, 3] of any size in, upstream's detections out."""
    with tf.Graph().as_default():
        photos = tf.placeholder(tf.uint8, [1, None, None, 3], name="input_tensor")
        model = models.build(config, is_training=False)
        images, shapes = model.preprocess(tf.cast(photos, tf.float32))
        outputs = to_outputs(model.postprocess(model.predict(images, shapes), shapes))
        with models.restored_session(checkpoint) as session:
            serving = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
            write_signatures(session, folder, {"input_tensor": photos}, {serving: outputs})


def to_outputs(found: dict[str, Any]) -> dict[str, Any]:
    """What a client gets: float32, with labels counted as in the label map, from 1."""
    found = {**found, "detection_classes": found["detection_classes"] + 1}
    return {name: tf.cast(value, tf.float32, name=name) for name, value in found.items() if value is not None}


def export_tflite_source(config: Any, checkpoint: Path, folder: Path) -> list[list[float]]:
    """Writes a SavedModel of an SSD for TFLite's converter and returns the anchors; see the other engine's."""
    module = export_tflite_graph_lib_tf2.SSDModule(config, None, MAX_DETECTIONS, use_regular_nms=True)
    with tf.Graph().as_default():
        photos = tf.placeholder(tf.float32, module.input_shape(), name="input")
        model = models.build(config, is_training=False)
        predictions = model.predict(photos, None)
        _, to_scores = post_processing_builder.build(config.model.ssd.post_processing)
        raw = {
            "box_encodings": tf.identity(predictions["box_encodings"], name="box_encodings"),
            "class_predictions": to_scores(predictions["class_predictions_with_background"]),
        }
        with models.restored_session(checkpoint) as session:
            centers = session.run(anchors.to_centers(predictions["anchors"]))
            found = detect(module.postprocess_implements_signature(), raw, tf.constant(centers, name="anchors"))
            write_signatures(session, folder, {"input": photos}, {"detect": found, "raw": raw})
    return anchors.rounded(centers)


def detect(implements: str, raw: dict[str, Any], centers: Any) -> dict[str, Any]:
    """The operation that TFLite decodes boxes and drops doubles with, known to its converter by a function's mark."""

    @tf.function(experimental_implements=implements)
    def post_process(box_encodings: Any, class_predictions: Any, anchors: Any) -> tuple[Any, ...]:
        del box_encodings, class_predictions, anchors
        return tuple(tf.constant(0.0) for _ in POST_PROCESSED)

    return dict(zip(POST_PROCESSED, post_process(raw["box_encodings"], raw["class_predictions"], centers), strict=True))


def write_signatures(session: Any, folder: Path, inputs: dict[str, Any], outputs: dict[str, dict[str, Any]]) -> None:
    """Writes a SavedModel with a signature of these inputs for each set of outputs."""
    builder = tf.saved_model.Builder(str(folder))
    signatures = {name: tf.saved_model.predict_signature_def(inputs, each) for name, each in outputs.items()}
    builder.add_meta_graph_and_variables(session, [tf.saved_model.SERVING], signatures)
    builder.save()
