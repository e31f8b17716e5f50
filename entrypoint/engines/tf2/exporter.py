"""Writes a trained model as a SavedModel, for servers and for the conversions to TFLite and TensorFlow.js."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from entrypoint.engines.engine import TFLITE_OUTPUTS, Normalization, TFLiteSource
from entrypoint.engines.shared import anchors, normalization, post_processing, scores_and_boxes
from entrypoint.engines.shared.serving import SERVING, decoded, to_outputs
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
    """Writes a SavedModel with upstream's detections, all float32, and labels counted from 1 as in the label map.

    The signature `serving_default` takes uint8 photos [batch, height, width, 3] of any size, and `encoded` takes the
    content of JPEG and PNG files, strings [batch]. A model that keeps the shape of photos takes a batch of one shape.
    """
    model = models.load_trained(config, str(checkpoint))

    def detect(images: Any, shapes: Any) -> dict[str, Any]:
        return to_outputs(model.postprocess(model.predict(images, shapes), shapes))

    def prepare(content: Any) -> tuple[Any, Any]:
        image, shape = model.preprocess(tf.cast(decoded(content), tf.float32)[tf.newaxis])
        return image[0], shape[0]

    photos_spec = tf.TensorSpec([None, None, None, 3], tf.uint8, name="input_tensor")
    files_spec = tf.TensorSpec([None], tf.string, name="image_bytes")

    @tf.function(input_signature=[photos_spec], autograph=False)
    def of_photos(input_tensor: Any) -> dict[str, Any]:
        return detect(*model.preprocess(tf.cast(input_tensor, tf.float32)))

    @tf.function(input_signature=[files_spec], autograph=False)
    def of_files(image_bytes: Any) -> dict[str, Any]:
        return detect(*tf.map_fn(prepare, image_bytes, fn_output_signature=prepared_spec(model)))

    # No concrete functions: TensorFlow would trace the model once more while it saves them.
    signatures = {SERVING: of_photos, "encoded": of_files}
    exported = Exported({"__call__": of_photos, "of_files": of_files}, model)
    tf.saved_model.save(exported, str(folder), signatures=signatures)


def prepared_spec(model: Any) -> tuple[Any, Any]:
    """Returns the types of a photo and its size after the model's preprocessing."""
    spec = tf.TensorSpec([1, None, None, 3], tf.float32)
    image, shape = tf.function(model.preprocess, autograph=False).get_concrete_function(spec).structured_outputs
    return tf.TensorSpec(image.shape[1:], image.dtype), tf.TensorSpec(shape.shape[1:], shape.dtype)


def save(functions: Mapping[str, Any], model: Any, folder: Path) -> None:
    """Writes a SavedModel whose signatures are these functions, by their names."""
    tf.saved_model.save(Exported(functions, model), str(folder), signatures=dict(functions))


def export_tflite_source(config: Any, checkpoint: Path, folder: Path) -> TFLiteSource:
    """Writes a SavedModel of an SSD or a CenterNet for TFLite's converter and returns what belongs to it.

    All signatures take normalised photos, float32 [1, height, width, 3]. `detect` returns detection_boxes,
    detection_classes (from 0), detection_scores and num_detections. An SSD also has `raw`, which returns the result of
    `anchors.raw_outputs`.
    """
    model = models.load_trained(config, str(checkpoint))
    export_source = export_ssd_source if config.model.HasField("ssd") else export_center_net_source
    return export_source(config, model, folder)


def export_ssd_source(config: Any, model: Any, folder: Path) -> TFLiteSource:
    """Does what `export_tflite_source` does for a model that is an SSD."""
    module = post_processing.module(config, model)
    spec = tf.TensorSpec(module.input_shape(), tf.float32, name="input")

    @tf.function(input_signature=[spec], autograph=False)
    def detect(image: Any) -> dict[str, Any]:
        # Upstream returns them the other way round.
        return dict(zip(reversed(TFLITE_OUTPUTS), module.inference_fn(image), strict=True))

    @tf.function(input_signature=[spec], autograph=False)
    def raw(image: Any) -> dict[str, Any]:
        return anchors.raw_outputs(config, model.predict(image, None))

    save({"detect": detect, "raw": raw}, model, folder)
    predictions = model.predict(tf.zeros(module.input_shape()), true_image_shapes=None)
    centers = anchors.rounded(anchors.to_centers(predictions["anchors"]).numpy())
    size = module.input_shape()
    scaling = normalization.measure(lambda value: model.preprocess(tf.fill(size, value))[0][0, 0, 0].numpy())
    return TFLiteSource(centers, scaling)


def export_center_net_source(config: Any, model: Any, folder: Path) -> TFLiteSource:
    """Does what `export_tflite_source` does for a model that is a CenterNet.

    Its own preprocessing is part of the model: some of its backbones take blue first, which no client does.
    """
    resizer = config.model.center_net.image_resizer.fixed_shape_resizer
    spec = tf.TensorSpec([1, resizer.height, resizer.width, 3], tf.float32, name="input")

    @tf.function(input_signature=[spec], autograph=False)
    def detect(image: Any) -> dict[str, Any]:
        prepared, _ = model.preprocess(image)
        # Without the size of the photo in the input, boxes are fractions of the input, as those of an SSD are.
        found = model.postprocess(model.predict(prepared, None), None)
        return {name: tf.cast(found[name], tf.float32) for name in TFLITE_OUTPUTS}

    save({"detect": detect}, model, folder)
    return TFLiteSource(None, Normalization((0.0,), (1.0,)))


def export_web_source(config: Any, checkpoint: Path, folder: Path) -> None:
    """Writes a SavedModel of an SSD for the conversion to TensorFlow.js.

    Its signature `detect` takes `image`, an int32 photo [1, height, width, 3] of any size, and returns the result of
    `scores_and_boxes.find`.
    """
    model = models.load_trained(config, str(checkpoint))
    spec = tf.TensorSpec([1, None, None, 3], tf.int32, name="image")

    @tf.function(input_signature=[spec], autograph=False)
    def detect(image: Any) -> dict[str, Any]:
        return scores_and_boxes.find(config, model, image)

    save({"detect": detect}, model, folder)
