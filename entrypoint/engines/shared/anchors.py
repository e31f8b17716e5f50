"""The anchors of an SSD and its raw outputs, for clients that decode boxes themselves; for both engines."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from object_detection.builders import post_processing_builder

# What clients divide encoded centres and sides by, as most published configs have it; the coder is that of Faster R-CNN
# (arXiv:1506.01497, section 3.1.2).
SCALES = (10.0, 10.0, 5.0, 5.0)


def raw_outputs(config: Any, predictions: Any) -> dict[str, Any]:
    """What an SSD says at each anchor, in one form for every model; float32.

    box_encodings [1, anchors, 4] are y, x, height and width, encoded with SCALES whatever those of the model are.
    class_predictions [1, anchors, 1 + labels] are scores, the background's first: zero where the model has none.
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
    """Anchors [ymin, xmin, ymax, xmax] as [ycenter, xcenter, height, width]; float32 [anchors, 4], fractions."""
    ymin, xmin, ymax, xmax = tf.unstack(corners, axis=1)
    return tf.stack([(ymin + ymax) / 2, (xmin + xmax) / 2, ymax - ymin, xmax - xmin], axis=1)


def rounded(centers: Any) -> list[list[float]]:
    """An array of anchors as lists, with the digits that float32 has."""
    return [[round(float(value), 7) for value in anchor] for anchor in centers]
