"""The anchors and the raw outputs of an SSD, for clients that decode boxes themselves. Both engines use it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from object_detection.builders import post_processing_builder

from entrypoint.engines.engine import SCALES


def raw_outputs(config: Any, predictions: Any) -> dict[str, Any]:
    """Returns the predictions of an SSD at each anchor as float32, in the same form for every model.

    box_encodings [1, anchors, 4] are y, x, height and width. They are encoded with SCALES, even if the model's own
    scales differ. class_predictions [1, anchors, 1 + labels] are scores. The first score is that of the background: it
    is zero if the model has no class for the background.
    """
    ssd = config.model.ssd
    coder = ssd.box_coder.faster_rcnn_box_coder
    own = (coder.y_scale, coder.x_scale, coder.height_scale, coder.width_scale)
    encodings = predictions["box_encodings"]
    if own != SCALES:
        encodings = encodings * [wanted / scale for wanted, scale in zip(SCALES, own, strict=True)]
    _, to_scores = post_processing_builder.build(ssd.post_processing)
    scores = to_scores(predictions["class_predictions_with_background"])
    if not ssd.add_background_class:
        scores = tf.pad(scores, [[0, 0], [0, 0], [1, 0]])
    return {"box_encodings": tf.identity(encodings, name="box_encodings"), "class_predictions": scores}


def to_centers(corners: Any) -> Any:
    """Converts anchors from [ymin, xmin, ymax, xmax] to [ycenter, xcenter, height, width].

    Both forms are float32 [anchors, 4], as fractions of the photo.
    """
    ymin, xmin, ymax, xmax = tf.unstack(corners, axis=1)
    return tf.stack([(ymin + ymax) / 2, (xmin + xmax) / 2, ymax - ymin, xmax - xmin], axis=1)


def rounded(centers: Any) -> list[list[float]]:
    """Returns an array of anchors as lists, rounded to the digits that float32 has."""
    return [[round(float(value), 7) for value in anchor] for anchor in centers]
