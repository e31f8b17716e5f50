"""What both engines' SavedModels share: how a file is decoded, and the names and types of the outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

SERVING = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY


def decoded(content: Any) -> Any:
    """Returns the pixels, uint8 [height, width, 3], of a JPEG, PNG, GIF or BMP file; Exif orientation is ignored."""
    image = tf.io.decode_image(content, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])


def to_outputs(found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a model's detections for clients: float32, with labels counted from 1 as in the label map."""
    counted = {**found, "detection_classes": found["detection_classes"] + 1}
    return {name: tf.cast(value, tf.float32, name=name) for name, value in counted.items() if value is not None}
