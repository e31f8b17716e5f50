"""Writes a trained slim model as a SavedModel, with the same names as the TF2 engine uses."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow as tf2
import tensorflow.compat.v1 as tf

from entrypoint.engines.engine import TFLITE_OUTPUTS, TFLiteSource
from entrypoint.engines.shared import anchors, normalization, post_processing, scores_and_boxes
from entrypoint.engines.shared.serving import SERVING, decoded, to_outputs
from entrypoint.engines.tf1 import model as models


def export(config: Any, checkpoint: Path, folder: Path) -> None:
    """Writes a SavedModel with the signatures and the outputs of tf2/exporter.py."""
    with functional_loops(), tf.Graph().as_default():
        photos = tf.placeholder(tf.uint8, [None, None, None, 3], name="input_tensor")
        model = models.build(config, is_training=False)
        images, shapes = model.preprocess(tf.cast(photos, tf.float32))
        outputs = to_outputs(model.postprocess(model.predict(images, shapes), shapes))
        with models.restored_session(checkpoint) as session, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            source = Path(scratch) / "graph"
            write_signatures(session, source, {"input_tensor": photos}, {SERVING: outputs})
            write_functions(source, folder)


@contextmanager
def functional_loops() -> Iterator[None]:
    """Makes loops of a graph operations with functions as their bodies.

    A loop of TensorFlow 1 is a ring of Enter, Switch, NextIteration and Exit, which tf2onnx and OpenVINO cannot
    convert.
    """
    was_enabled = tf.control_flow_v2_enabled()
    tf.enable_control_flow_v2()
    try:
        yield
    finally:
        if not was_enabled:
            tf.disable_control_flow_v2()


def write_functions(source: Path, folder: Path) -> None:
    """Converts a graph's SavedModel into a callable SavedModel: `tf.saved_model.load(folder)(photos)`."""
    with tf2.__internal__.eager_context.eager_mode():
        module = tf2.Module()
        module.graph = tf2.saved_model.load(str(source))
        serve = module.graph.signatures[SERVING]
        photos_spec = tf.TensorSpec([None, None, None, 3], tf.uint8, name="input_tensor")
        files_spec = tf.TensorSpec([None], tf.string, name="image_bytes")

        def of_one(content: Any) -> dict[str, Any]:
            return {name: value[0] for name, value in serve(input_tensor=decoded(content)[tf.newaxis]).items()}

        # The graph has one input, so files are taken one by one.
        one = {name: tf.TensorSpec(value.shape[1:], value.dtype) for name, value in serve.structured_outputs.items()}
        module.__call__ = tf2.function(lambda input_tensor: serve(input_tensor=input_tensor), [photos_spec])
        module.of_files = tf2.function(
            lambda image_bytes: tf2.map_fn(of_one, image_bytes, fn_output_signature=one), [files_spec]
        )
        functions = {SERVING: module.__call__, "encoded": module.of_files}
        signatures = {name: function.get_concrete_function() for name, function in functions.items()}
        tf2.saved_model.save(module, str(folder), signatures=signatures)


def export_tflite_source(config: Any, checkpoint: Path, folder: Path) -> TFLiteSource:
    """Writes a SavedModel of an SSD for TFLite's converter and returns what belongs to it, as tf2/exporter.py does."""
    module = post_processing.module(config, None)
    with tf.Graph().as_default():
        photos = tf.placeholder(tf.float32, module.input_shape(), name="input")
        model = models.build(config, is_training=False)
        predictions = model.predict(photos, None)
        raw = anchors.raw_outputs(config, predictions)
        value = tf.placeholder(tf.float32, [])
        pixel = model.preprocess(tf.fill(module.input_shape(), value))[0][0, 0, 0]
        with models.restored_session(checkpoint) as session:
            centers = session.run(anchors.to_centers(predictions["anchors"]))
            # The operation divides by the model's own scales, so its boxes are not encoded with SCALES.
            encoded = {**raw, "box_encodings": predictions["box_encodings"]}
            found = detect(module.postprocess_implements_signature(), encoded, tf.constant(centers, name="anchors"))
            write_signatures(session, folder, {"input": photos}, {"detect": found, "raw": raw})
            scaling = normalization.measure(lambda each: session.run(pixel, {value: each}))
    return TFLiteSource(anchors.rounded(centers), scaling)


def export_web_source(config: Any, checkpoint: Path, folder: Path) -> None:
    """Writes a SavedModel of an SSD for the conversion to TensorFlow.js, as tf2/exporter.py does."""
    with tf.Graph().as_default():
        photo = tf.placeholder(tf.int32, [1, None, None, 3], name="image")
        found = scores_and_boxes.find(config, models.build(config, is_training=False), photo)
        with models.restored_session(checkpoint) as session:
            write_signatures(session, folder, {"image": photo}, {"detect": found})


def detect(implements: str, raw: dict[str, Any], centers: Any) -> dict[str, Any]:
    """Returns the outputs of TFLite's operation that decodes boxes and removes duplicates.

    TFLite's converter recognises the operation by the function's `experimental_implements`.
    """

    @tf.function(experimental_implements=implements)
    def post_process(box_encodings: Any, class_predictions: Any, anchors: Any) -> tuple[Any, ...]:
        del box_encodings, class_predictions, anchors
        return tuple(tf.constant(0.0) for _ in TFLITE_OUTPUTS)

    return dict(zip(TFLITE_OUTPUTS, post_process(raw["box_encodings"], raw["class_predictions"], centers), strict=True))


def write_signatures(session: Any, folder: Path, inputs: dict[str, Any], outputs: dict[str, dict[str, Any]]) -> None:
    """Writes a SavedModel with a signature of these inputs for each set of outputs."""
    builder = tf.saved_model.Builder(str(folder))
    signatures = {name: tf.saved_model.predict_signature_def(inputs, each) for name, each in outputs.items()}
    builder.add_meta_graph_and_variables(session, [tf.saved_model.SERVING], signatures)
    builder.save()
