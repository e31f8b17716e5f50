"""What a trained model finds on photos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from entrypoint.engine import Detections
from entrypoint.tf2 import model as models

BATCH = 8


def evaluate(config: Any, checkpoint: Path, records: list[str]) -> Iterator[Detections]:
    """The detections on every photo of the records, in their order."""
    model = models.load_trained(config, str(checkpoint))

    @tf.function(autograph=False)
    def detect(images: Any, shapes: Any) -> dict[str, Any]:
        found = model.postprocess(model.predict(images, shapes), shapes)
        return {name: found[name] for name in ("detection_boxes", "detection_classes", "detection_scores")}

    def prepare(serialized: Any) -> tuple[Any, ...]:
        key, image = parse(serialized)
        resized, shape = model.preprocess(tf.cast(image, tf.float32)[tf.newaxis])
        return key, tf.shape(image)[:2], resized[0], shape[0]

    dataset = tf.data.TFRecordDataset(records).map(prepare, tf.data.AUTOTUNE)
    size = BATCH if dataset.element_spec[2].shape.is_fully_defined() else 1
    for keys, sizes, images, shapes in dataset.batch(size).prefetch(tf.data.AUTOTUNE):
        found = {name: value.numpy() for name, value in detect(images, shapes).items()}
        for row, key in enumerate(keys.numpy()):
            height, width = map(int, sizes[row])
            yield Detections(
                key.decode(errors="surrogateescape"),
                height,
                width,
                found["detection_boxes"][row],
                found["detection_classes"][row].astype(np.int64) + 1,
                found["detection_scores"][row],
            )


def parse(serialized: Any) -> tuple[Any, Any]:
    """Key and pixels (uint8 [height, width, 3]) of a record."""
    text = tf.io.FixedLenFeature([], tf.string)
    features = tf.io.parse_single_example(serialized, {"image/source_id": text, "image/encoded": text})
    image = tf.io.decode_image(features["image/encoded"], channels=3, expand_animations=False)
    return features["image/source_id"], tf.ensure_shape(image, [None, None, 3])
