"""Records that another machine made are checked once, when they are copied: upstream trains on whatever they hold."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from entrypoint.data import images
from entrypoint.data.records import RecordsManifest
from entrypoint.system.errors import UserError

CORNERS = ("xmin", "ymin", "xmax", "ymax")
# The corners are float32.
ROUNDING = 1e-6


def check_file(path: Path, labels: int) -> int:
    """Returns the number of photos in a file of records.

    Raises:
        UserError: the file is damaged, or a photo, a label or a box in it cannot be trained on.
    """
    count = 0
    for count, serialized in enumerate(read(path), start=1):
        fault = fault_of(serialized, labels)
        if fault:
            raise UserError(f"RECORDS_DIR: {path.name}, photo {count}: {fault}: convert the photos again")
    return count


def read(path: Path) -> Iterator[bytes]:
    """Yields the serialized examples of a file; raises UserError if the file is damaged."""
    import tensorflow as tf

    try:
        # Unlike a dataset, it needs no session in graph mode.
        yield from tf.compat.v1.io.tf_record_iterator(str(path))
    except tf.errors.OpError as error:
        words = error.message.splitlines()[0]
        raise UserError(f"RECORDS_DIR: {path.name} is damaged ({words}): convert the photos again") from None


def fault_of(serialized: bytes, labels: int) -> str | None:
    """Returns why an example cannot be trained on, or None."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        feature = tf.train.Example.FromString(serialized).features.feature
    except DecodeError:
        return "it is not a tf.train.Example"
    encoded = list(feature["image/encoded"].bytes_list.value)
    frame = images.read_frame(encoded[0]) if len(encoded) == 1 else None
    if frame is None:
        return "its image/encoded is not one JPEG or PNG"
    if frame.width * frame.height > images.MAX_PIXELS:
        return f"it has {frame.width:,} x {frame.height:,} pixels"
    return fault_of_boxes(feature, labels)


def fault_of_boxes(feature: Any, labels: int) -> str | None:
    """Returns why the boxes of an example cannot be trained on, or None."""
    classes = list(feature["image/object/class/label"].int64_list.value)
    corners = [list(feature[f"image/object/bbox/{name}"].float_list.value) for name in CORNERS]
    if any(len(values) != len(classes) for values in corners):
        return "it has not as many corners as labels"
    for number, box in zip(classes, zip(*corners, strict=True), strict=True):
        if not 1 <= number <= labels:
            return f"label {number}, and the manifest has labels 1 to {labels}"
        xmin, ymin, xmax, ymax = box
        is_inside = all(math.isfinite(value) and -ROUNDING <= value <= 1 + ROUNDING for value in box)
        if not is_inside or xmin >= xmax or ymin >= ymax:
            return f"a box of {', '.join(f'{value:g}' for value in box)}, which are no corners within the photo"
    return None


def check_counts(manifest: RecordsManifest, counts: dict[str, int]) -> None:
    """Checks that the files hold the photos that the manifest counts; `counts` has the photos of each file by its name.

    Raises:
        UserError: they do not, or there is no photo to train on.
    """
    for name, part in manifest.splits.items():
        found = sum(counts[each] for each in part.names)
        if found != part.photos:
            raise UserError(
                f"RECORDS_DIR: the files for {name} hold {found} photos, and manifest.json counts {part.photos}: copy "
                "all files again, or convert the photos again"
            )
    if not manifest.train.photos:
        raise UserError("RECORDS_DIR has no photo to train on: convert photos that are labelled")
