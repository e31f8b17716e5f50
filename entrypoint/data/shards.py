"""A shard is a file of records: which photos it has, and how it is written. One machine or many convert with this code.

The bytes of a shard depend on its photos, on the labels and on the storage alone.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path

from entrypoint.data import examples, images
from entrypoint.data.annotations import LabelledImage
from entrypoint.data.examples import Converted
from entrypoint.system import files, parallel
from entrypoint.system.bucket import Place
from entrypoint.zoo.input_size import Storage

# TensorFlow's performance guide advises shards of 100 to 200 MB. READERS shards are read at a time.
SHARD_BYTES = 150_000_000
READERS = 8
WRITERS = 4  # shards that are written at a time

Convert = Callable[[LabelledImage], Converted]


def converter(root: Place, labels: list[str], storage: Storage | None) -> Convert:
    """Returns the function that converts a photo of the bucket `root`."""
    return functools.partial(
        examples.convert,
        root=root,
        ids={label: index for index, label in enumerate(labels, start=1)},
        shrink=storage.shrink if storage else images.keep_size,
    )


def cut(parts: dict[str, list[LabelledImage]]) -> dict[str, list[LabelledImage]]:
    """Returns the photos of each shard, by the names of the shards.

    The photos of a split, in their order, are cut into N runs of equal length: SPLIT-00000-of-0000N.tfrecord and so on.
    """
    found = {}
    for split, photos in parts.items():
        total = shard_count(sum(image.bytes for image in photos), len(photos))
        cuts = [index * len(photos) // max(1, total) for index in range(total + 1)]
        for index, (start, end) in enumerate(itertools.pairwise(cuts)):
            found[f"{split}-{index:05d}-of-{total:05d}.tfrecord"] = photos[start:end]
    return found


def shard_count(size: int, photos: int) -> int:
    """Returns the number of shards for photos with `size` bytes in total.

    Shards have 100 to 200 MB if the photos are stored unchanged, and less otherwise. There are at least READERS shards,
    because READERS shards are read at a time, but never more shards than photos.
    """
    return min(photos, max(READERS, round(size / SHARD_BYTES)))


def split_of(name: str) -> str:
    """Returns the split that a shard belongs to, by the name of the shard."""
    return name.partition("-")[0]


class ShardWriter:
    """Writes a shard on local disk."""

    def __init__(self, path: Path, photos: list[LabelledImage]) -> None:
        self.path = path
        self.photos = photos
        self.sha256 = ""  # of the file, when it is written

    def write(self, convert: Convert, pool: Executor, at_a_time: int) -> Iterator[Converted]:
        """Writes the examples in the order of the photos; yields the outcome for each photo, without the example.

        Twice `at_a_time` photos are converted ahead, in the threads of the pool.
        """
        import tensorflow as tf

        with tf.io.TFRecordWriter(str(self.path)) as file:
            for each in parallel.map_in_order(convert, self.photos, at_a_time, pool):
                if each.example is not None:
                    file.write(each.example)
                yield dataclasses.replace(each, example=None)
        self.sha256 = files.file_sha256(self.path)
