"""Converts a photo and its boxes to a serialized tf.train.Example, or returns why the photo cannot be used.

One machine or many convert with this module.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entrypoint.data import images
from entrypoint.data.annotations import LabelledImage
from entrypoint.system import bucket, parallel
from entrypoint.system.bucket import Place
from entrypoint.system.parallel import Budget

# Decoded photos are large, and decoding more photos at a time than there are cores is not faster.
DECODING = Budget(parallel.CORES)

# Upstream pads the boxes of every photo to the largest number, and compares each box with each anchor.
MOST_BOXES = 2000


@dataclass(frozen=True, slots=True)
class Converted:
    """The result of converting a photo."""

    key: str
    example: bytes | None  # None if the photo cannot be used, or if the example is not needed
    skipped: str | None  # why the photo cannot be used, otherwise None
    photo: images.Facts | None  # the facts about the photo, None if it cannot be used


@dataclass(frozen=True, slots=True)
class BoxSizes:
    """The sizes and the labels of the boxes of a photo in a record."""

    width: int  # of the photo in pixels, as it is stored
    height: int
    boxes: tuple[tuple[float, float], ...]  # width and height of each box, as fractions of those of the photo
    labels: tuple[int, ...]  # the id of the label of each box


def photos_in(records: Iterable[str], keys: set[str]) -> Iterator[tuple[str, bytes]]:
    """Yields the photos with these keys out of files of records, as they are trained on."""
    for key, encoded in stored_photos(records):
        if key in keys:
            yield key, encoded


def stored_photos(records: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yields key and content of every photo in files of records, as they are trained on."""
    for feature in features_in(records):
        key = os.fsdecode(feature["image/source_id"].bytes_list.value[0])
        yield key, feature["image/encoded"].bytes_list.value[0]


def box_sizes_in(records: Iterable[str]) -> Iterator[BoxSizes]:
    """Yields the sizes of the boxes of each photo in files of records, in their order."""
    for feature in features_in(records):
        width, height = (feature[f"image/{side}"].int64_list.value[0] for side in ("width", "height"))
        corners = (feature[f"image/object/bbox/{name}"].float_list.value for name in ("xmin", "xmax", "ymin", "ymax"))
        boxes = tuple((xmax - xmin, ymax - ymin) for xmin, xmax, ymin, ymax in zip(*corners, strict=True))
        yield BoxSizes(width, height, boxes, tuple(feature["image/object/class/label"].int64_list.value))


def features_in(records: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    """Yields the features of each example in files of records, in their order."""
    import tensorflow as tf

    for path in records:
        # Unlike a tf.data.Dataset, this iterator needs no session, in either mode of TensorFlow.
        for serialized in tf.compat.v1.io.tf_record_iterator(path):
            yield tf.train.Example.FromString(serialized).features.feature


def convert(image: LabelledImage, root: Place, ids: dict[str, int], shrink: images.Shrink) -> Converted:
    """Converts a photo with its boxes to an example; raises OSError if the bucket itself cannot be read."""
    try:
        refuse_crowd(image)
        photo = read_photo(root, image.key, shrink, decode_as_trained)
    except images.UnusablePhotoError as error:
        return Converted(image.key, None, str(error), None)
    return Converted(image.key, to_example(image, photo, ids), None, photo.facts)


def read_photo(
    root: Place, key: str, shrink: images.Shrink = images.keep_size, as_trained: images.AsTrained | None = None
) -> images.Photo:
    """Reads and decodes the photo of that key, as `images.load` does.

    Raises:
        UnusablePhotoError: the photo is missing, may not be read, or cannot be used.
        OSError: the bucket itself cannot be read.
    """
    content = read_content(root, key)
    with DECODING.part(1):
        return images.load(content, shrink, as_trained)


def share_machine(processes: int, alone: AbstractContextManager[Any]) -> None:
    """Takes an equal part of the cores and the memory for decoding photos, in one of so many processes.

    `alone` is a lock of theirs: one of them at a time decodes a photo that takes more than its part.
    """
    DECODING.divide(processes, alone)
    images.DECODED.divide(processes, alone)


def read_content(root: Place, key: str) -> bytes:
    """Returns the content of the photo of that key.

    Raises:
        UnusablePhotoError: the photo is missing, or may not be read.
        OSError: the bucket itself cannot be read.
    """
    try:
        return bucket.read(root / key, root, images.MOST_BYTES)
    except OSError as error:
        # If the bucket is given by its address, only a missing file is a fault of the photo: credentials can expire
        # while the job runs.
        is_photo = isinstance(error, FileNotFoundError) or not bucket.is_remote(root)
        if error.errno not in bucket.FINAL or not is_photo:
            raise
        raise images.UnusablePhotoError(f"cannot be read ({error.strerror})") from None


def refuse_crowd(image: LabelledImage) -> None:
    """Raises UnusablePhotoError for a photo with more boxes than a training has memory for."""
    if len(image.boxes) > MOST_BOXES:
        raise images.UnusablePhotoError(f"{len(image.boxes):,} boxes, more than {MOST_BOXES:,}: cut it into tiles")


def decode_as_trained(content: bytes) -> NDArray[np.uint8] | None:
    """Returns the pixels of a JPEG or PNG, [height, width, 3], or None if TensorFlow refuses it.

    TensorFlow's decoders refuse some damage that those of Pillow ignore.
    """
    import tensorflow as tf

    session, encoded, pixels = decoder()
    try:
        found: NDArray[np.uint8] = session.run(pixels, {encoded: content})
    except tf.errors.InvalidArgumentError:
        return None
    return found


@functools.lru_cache(maxsize=1)
def decoder() -> tuple[Any, Any, Any]:
    """Returns a session, its tensor of encoded bytes and the tensor of their pixels.

    TensorFlow's mode stays as it is: the engine sets it.
    """
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default():
        encoded = tf.placeholder(tf.string, [])
        pixels = tf.io.decode_image(encoded, channels=3)
        # Without this limit, the session would take all of a GPU's memory.
        return tf.Session(config=tf.ConfigProto(device_count={"GPU": 0})), encoded, pixels


def to_example(image: LabelledImage, photo: images.Photo, ids: dict[str, int]) -> bytes:
    """Returns a serialized tf.train.Example with the features that upstream's TfExampleDecoder reads.

    Corners are fractions of the width and height, float32. Labels are stored as text and as id. The job adds
    `image/original/*`: the size in pixels before the photo was made smaller. COCO's metrics for small and large boxes
    need that size.
    """
    import tensorflow as tf

    def of_bytes(*values: bytes) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    def of_ints(*values: int) -> Any:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    def of_floats(*values: float) -> Any:
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    key = os.fsencode(image.key)
    feature = {
        "image/height": of_ints(photo.height),
        "image/width": of_ints(photo.width),
        "image/original/height": of_ints(photo.facts.height),
        "image/original/width": of_ints(photo.facts.width),
        "image/filename": of_bytes(key),
        "image/source_id": of_bytes(key),
        "image/key/sha256": of_bytes(photo.sha256.encode()),
        "image/encoded": of_bytes(photo.encoded),
        "image/format": of_bytes(photo.format.encode()),
        "image/object/class/text": of_bytes(*(box.label.encode() for box in image.boxes)),
        "image/object/class/label": of_ints(*(ids[box.label] for box in image.boxes)),
    }
    for corner in ("xmin", "xmax", "ymin", "ymax"):
        feature[f"image/object/bbox/{corner}"] = of_floats(*(getattr(box, corner) for box in image.boxes))
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    # Without `deterministic`, the order of a map's entries can differ between two processes.
    return bytes(example.SerializeToString(deterministic=True))
