"""Photos of rare labels more often than they are in the records; for both engines.

Repeat factor sampling (Gupta, Dollár and Girshick 2019, arXiv:1908.03195, section 3.2), with the share of the most
common label as the threshold below which labels are repeated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def factors(photos: list[int]) -> list[float]:
    """How often a photo with the label is shown in an epoch, out of the number of photos of each label."""
    most = max(photos, default=0)
    return [math.sqrt(most / count) if count else 1.0 for count in photos]


@contextmanager
def reading(repeats: list[float] | None) -> Iterator[None]:
    """While upstream builds its input, it repeats what it reads, before it shuffles; by label, the first of id 1.

    Upstream has no setting for it: the function by which it reads a file is the place before its shuffling.
    """
    if repeats is None:
        yield
        return
    from object_detection.builders import dataset_builder

    plain = dataset_builder.read_dataset

    def read(read_file: Callable[[Any], Any], *arguments: Any, **options: Any) -> Any:
        return plain(lambda files: repeat(read_file(files), repeats), *arguments, **options)

    dataset_builder.read_dataset = read
    try:
        yield
    finally:
        dataset_builder.read_dataset = plain


def repeat(examples: Any, repeats: list[float]) -> Any:
    """A dataset of serialized examples, each as often in a row as the rarest of its labels asks for, on average."""
    import tensorflow as tf

    table = tf.constant([1.0, *repeats], tf.float32)

    def times(serialized: Any) -> Any:
        feature = {"image/object/class/label": tf.io.VarLenFeature(tf.int64)}
        labels = tf.io.parse_single_example(serialized, feature)["image/object/class/label"].values
        # A photo without boxes is shown once.
        wanted = tf.reduce_max(tf.gather(table, tf.concat([[tf.constant(0, tf.int64)], labels], axis=0)))
        return tf.cast(tf.floor(wanted + tf.random.uniform([])), tf.int64)

    return examples.flat_map(lambda each: tf.data.Dataset.from_tensors(each).repeat(times(each)))
