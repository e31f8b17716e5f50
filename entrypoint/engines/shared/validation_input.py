"""Reads records for evaluation, and converts a model's outputs into the job's Detections. Both engines use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from entrypoint.engines.engine import Detections

BATCH = 8
FOUND = ("detection_boxes", "detection_classes", "detection_scores")


def batches(model: Any, records: list[str], largest: int) -> Any:
    """Returns a dataset of (keys, sizes, images, shapes) in the records' order.

    Images have the form that the model's `predict` expects. A batch has at most `largest` photos, the batch of the
    training: memory that sufficed for it may not suffice for more. If the model resizes photos to different sizes, a
    batch is one photo.
    """

    def prepare(serialized: Any) -> tuple[Any, ...]:
        key, size, image = parse(serialized)
        resized, shape = model.preprocess(tf.cast(image, tf.float32)[tf.newaxis])
        return key, size, resized[0], shape[0]

    dataset = tf.data.TFRecordDataset(records).map(prepare, tf.data.AUTOTUNE)
    size = min(BATCH, largest) if dataset.element_spec[2].shape.is_fully_defined() else 1
    return dataset.batch(size).prefetch(tf.data.AUTOTUNE)


def parse(serialized: Any) -> tuple[Any, Any, Any]:
    """Returns the key, the size and the pixels (uint8 [height, width, 3]) of a photo.

    The size is height and width (int32 [2]) before the photo was made smaller.
    """
    text, number = tf.io.FixedLenFeature([], tf.string), tf.io.FixedLenFeature([], tf.int64)
    wanted = {"image/source_id": text, "image/encoded": text}
    sides = ("image/original/height", "image/original/width")
    features = tf.io.parse_single_example(serialized, wanted | dict.fromkeys(sides, number))
    image = tf.io.decode_image(features["image/encoded"], channels=3, expand_animations=False)
    size = tf.cast(tf.stack([features[side] for side in sides]), tf.int32)
    return features["image/source_id"], size, tf.ensure_shape(image, [None, None, 3])


def detections(keys: Any, sizes: Any, found: Mapping[str, Any]) -> Iterator[Detections]:
    """Yields the detections of a batch of arrays. Upstream counts labels from 0, label maps from 1."""
    for row, key in enumerate(keys):
        height, width = map(int, sizes[row])
        yield Detections(
            key.decode(errors="surrogateescape"),
            height,
            width,
            found["detection_boxes"][row],
            found["detection_classes"][row].astype(np.int64) + 1,
            found["detection_scores"][row],
        )
