"""Shows photos of rare labels more often than they are in the records. Both engines use it.

This is repeat factor sampling (Gupta, Dollár and Girshick 2019, arXiv:1908.03195, section 3.2). The threshold below
which labels are repeated is the share of the most common label.
"""

from __future__ import annotations

import math
from typing import Any


def factors(photos: list[int]) -> list[float]:
    """Returns for each label how often a photo with it is shown in an epoch, given the number of photos per label."""
    most = max(photos, default=0)
    return [math.sqrt(most / count) if count else 1.0 for count in photos]


def repeat(examples: Any, repeats: list[float]) -> Any:
    """Returns a dataset in which each serialized example is repeated in a row.

    On average, an example is repeated as often as the factor of the rarest of its labels.
    """
    import tensorflow as tf

    table = tf.constant([1.0, *repeats], tf.float32)

    def times(serialized: Any) -> Any:
        feature = {"image/object/class/label": tf.io.VarLenFeature(tf.int64)}
        labels = tf.io.parse_single_example(serialized, feature)["image/object/class/label"].values
        # A photo without boxes is shown once.
        wanted = tf.reduce_max(tf.gather(table, tf.concat([[tf.constant(0, tf.int64)], labels], axis=0)))
        return tf.cast(tf.floor(wanted + tf.random.uniform([])), tf.int64)

    return examples.flat_map(lambda each: tf.data.Dataset.from_tensors(each).repeat(times(each)))
