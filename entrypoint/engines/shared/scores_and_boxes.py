"""Scores and boxes of an SSD at each anchor, before duplicates are removed. Both engines export them for browsers."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from object_detection.builders import box_coder_builder, post_processing_builder
from object_detection.core import box_list

from entrypoint.engines.shared import patches


def find(config: Any, model: Any, photo: Any) -> dict[str, Any]:
    """Returns what the model finds at each anchor on a photo, in the order that browsers expect.

    The photo is [1, height, width, 3], of any size, with values from 0 to 255. `scores` is float32 [1, anchors,
    labels], without the background. `boxes` is float32 [1, anchors, 1, 4]: ymin, xmin, ymax, xmax as fractions of the
    photo. A box can reach out of the photo, since upstream clips boxes only after duplicates are removed.
    """
    patches.resize_without_branch(model, config.model.ssd.image_resizer)
    images, shapes = model.preprocess(tf.cast(photo, tf.float32))
    predictions = model.predict(images, shapes)
    ssd = config.model.ssd
    _, to_scores = post_processing_builder.build(ssd.post_processing)
    scores = to_scores(predictions["class_predictions_with_background"])
    if ssd.add_background_class or ssd.explicit_background_class:
        scores = tf.slice(scores, [0, 0, 1], [-1, -1, -1])
    boxes = decode(ssd.box_coder, tf.reshape(predictions["box_encodings"], [-1, 4]), predictions["anchors"])
    if ssd.image_resizer.HasField("keep_aspect_ratio_resizer"):
        boxes = boxes * padding(images, shapes)
    return {
        "scores": tf.identity(scores, name="scores"),
        "boxes": tf.reshape(boxes, [1, -1, 1, 4], name="boxes"),
    }


def decode(coder: Any, encodings: Any, anchors: Any) -> Any:
    """Returns boxes as corners, in fractions of the input; encodings and anchors are float32 [anchors, 4].

    The box coder of Faster R-CNN (arXiv:1506.01497, section 3.1.2) is computed with four numbers for each anchor at
    every step. Upstream computes it with one tensor for each of the four. TensorFlow.js 1.0.0 adds and multiplies
    tensors of one dimension wrongly in WebGL if they are longer than the sides of a texture.
    """
    if not coder.HasField("faster_rcnn_box_coder"):
        return box_coder_builder.build(coder).decode(encodings, box_list.BoxList(anchors)).get()
    scales = coder.faster_rcnn_box_coder
    ymin, xmin, ymax, xmax = tf.unstack(anchors, axis=1)
    centers = tf.stack([(ymin + ymax) / 2, (xmin + xmax) / 2] * 2, axis=1)
    sides = tf.stack([ymax - ymin, xmax - xmin] * 2, axis=1)
    moves = tf.concat([tf.slice(encodings, [0, 0], [-1, 2])] * 2, axis=1) / tf.constant(
        [scales.y_scale, scales.x_scale] * 2
    )
    growth = tf.concat([tf.slice(encodings, [0, 2], [-1, 2])] * 2, axis=1) / tf.constant(
        [scales.height_scale, scales.width_scale] * 2
    )
    return centers + sides * (moves + tf.exp(growth) * tf.constant([-0.5, -0.5, 0.5, 0.5]))


def padding(images: Any, shapes: Any) -> Any:
    """Returns how much larger the padded input is than the photo in it, for the corners of a box: float32 [4]."""
    height, width = images.shape[1:3]
    padded = tf.constant([height, width, height, width], tf.float32)
    true_height, true_width, _ = tf.unstack(tf.cast(shapes[0], tf.float32))
    return padded / tf.stack([true_height, true_width, true_height, true_width])
