"""Photos and boxes -> sharded TFRecords of tf.train.Example, for training and for validation.

The records are a function of the bucket and the settings alone: the same bytes whatever the machine, the hash seed
and the number of workers.
"""

import functools
import hashlib
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from entrypoint import annotations, bucket, images, logs, parallel, workspace
from entrypoint.annotations import Dataset, LabelledImage
from entrypoint.bucket import Place
from entrypoint.errors import UserError
from entrypoint.workspace import Workspace

logger = logging.getLogger("job")

SPLITS = ("train", "validation")
# TensorFlow's performance guide advises shards of 100 to 200 MB; as many as READERS are read at a time.
SHARD_BYTES = 150_000_000
READERS = 8


def run(work: Workspace) -> str:
    """Writes records/ with its manifest; returns a digest of the shards' SHA-256.

    Raises:
        UserError: more photos than MAX_SKIPPED cannot be read, or none is left to train on.
    """
    dataset = annotations.load(work)
    settings = work.settings
    parts = split(dataset.images, settings.validation_fraction, settings.seed)
    ids = {label: index for index, label in enumerate(dataset.labels, start=1)}
    writer = RecordWriter(settings.data_dir, ids, settings.workers, bucket.listing(settings.data_dir, work.results))
    with workspace.new_folder(work.records) as folder:
        for name in SPLITS:
            writer.write(folder, name, parts[name])
        refuse_losses(writer, dataset, settings.max_skipped)
        manifest = {
            "labels": dataset.labels,
            "splits": writer.splits,
            "skipped": dict(sorted(writer.skipped.items())),
            "changed": dict(sorted(writer.changed.items())),
            "max_boxes": max(len(image.boxes) for image in dataset.images),
        }
        workspace.write_json(folder / "manifest.json", manifest)
    for name in SPLITS:
        counts = writer.splits[name]
        logger.info(
            "%s: %d photos, %d boxes in %d shards", name, counts["photos"], counts["boxes"], len(counts["shards"])
        )
    return workspace.digest(manifest)


def outputs(work: Workspace) -> list[Path]:
    """The files that the step leaves in WORK_DIR."""
    manifest = work.records / "manifest.json"
    if not manifest.exists():
        return [manifest]
    splits = load_manifest(work)["splits"]
    return [work.records / shard["name"] for part in splits.values() for shard in part["shards"]]


def fingerprint(work: Workspace) -> str:
    """Names, sizes and times of the photos: what tells a changed bucket without reading it."""
    listing = bucket.listing(work.settings.data_dir, work.results)
    return workspace.digest([[image.key, str(listing.get(image.key))] for image in annotations.load(work).images])


def load_manifest(work: Workspace) -> dict[str, Any]:
    """What the step wrote: labels, counts and shards per split, skipped and changed photos."""
    return dict(workspace.read_json(work.records / "manifest.json", "tf_record"))


def refuse_losses(writer: "RecordWriter", dataset: Dataset, max_skipped: float) -> None:
    """UserError where more photos are missing or unreadable than MAX_SKIPPED allows, or none is left to train on."""
    for key, reason in sorted(writer.skipped.items()):
        logger.warning("%s skipped: %s", key, reason)
    told = too_many_lost(dataset, len(writer.skipped), max_skipped)
    if told:
        key, reason = min((writer.skipped | dict.fromkeys(dataset.lost, "not in the bucket")).items())
        raise UserError(f"{told}; the first: {key}: {reason}. Replace them, or raise MAX_SKIPPED")
    if not writer.splits["train"]["photos"]:
        raise UserError("no photo is left to train on: label more photos, or lower VALIDATION_FRACTION")


def too_many_lost(dataset: Dataset, skipped: int, max_skipped: float) -> str | None:
    """That more photos are missing or unreadable than MAX_SKIPPED allows, or None."""
    lost, photos = len(dataset.lost) + skipped, len(dataset.images) + len(dataset.lost)
    if lost <= max_skipped * photos:
        return None
    return f"{lost} of {photos} photos cannot be read, more than MAX_SKIPPED={max_skipped} allows"


def split(photos: list[LabelledImage], fraction: float, seed: int) -> dict[str, list[LabelledImage]]:
    """Photos for training and for validation, each in an order that only key and seed decide.

    A photo is for validation if the hash of its key, as a number from 0 to 1, lies below the fraction, so that it
    stays where it is when photos are added, and every label comes near its fraction. A label that would have no photo
    in validation gets the one of its lowest hash, and one that would have none to train on keeps that of its highest;
    these few can change sides when photos of that label are added. A split of the bucket's own stays as it is.
    """
    ranked = sorted(photos, key=lambda image: (rank(image.key, seed), image.key))
    if any(image.part for image in ranked):
        return {name: [image for image in ranked if image.part == name] for name in SPLITS}
    chosen = {image.key for image in ranked if rank(image.key, seed) < fraction}
    by_label: dict[str, list[str]] = defaultdict(list)
    for image in ranked:
        for label in sorted({box.label for box in image.boxes}):
            by_label[label].append(image.key)
    if fraction > 0:
        for _, keys in sorted(by_label.items()):
            if len(keys) > 1 and chosen.isdisjoint(keys):
                chosen.add(keys[0])
        for _, keys in sorted(by_label.items()):
            if chosen.issuperset(keys):
                chosen.discard(keys[-1])
    return {
        "train": [image for image in ranked if image.key not in chosen],
        "validation": [image for image in ranked if image.key in chosen],
    }


def rank(key: str, seed: int) -> float:
    """A number from 0 to 1 that looks random and depends on nothing else."""
    return int.from_bytes(hashlib.sha256(f"{seed} {key}".encode()).digest()[:8], "big") / 2**64


class RecordWriter:
    """Writes the shards of one split after the other and keeps count."""

    def __init__(self, root: Place, ids: dict[str, int], workers: int, listing: dict[str, bucket.Entry]) -> None:
        self.root = root
        self.ids = ids
        self.workers = workers
        self.listing = listing
        self.splits: dict[str, dict[str, Any]] = {}
        self.skipped: dict[str, str] = {}
        self.changed: dict[str, list[str]] = {}

    def write(self, folder: Path, name: str, photos: list[LabelledImage]) -> None:
        """Writes `name`-00000-of-0000N.tfrecord, the photos in the given order, cut into N runs of equal length."""
        counts: Counter[str] = Counter()
        boxes: Counter[str] = Counter()
        shards = []
        total = shard_count(sum(self.size_of(image.key) for image in photos), len(photos))
        examples = parallel.map_in_order(self.convert, photos, self.workers)
        examples = logs.progress(examples, len(photos), f"{name} records")
        for index in range(total):
            length = (index + 1) * len(photos) // total - index * len(photos) // total
            path = folder / f"{name}-{index:05d}-of-{total:05d}.tfrecord"
            written = self.write_shard(path, (next(examples) for _ in range(length)))
            shards.append({"name": path.name, "photos": written, "sha256": workspace.file_sha256(path)})
        for image in photos:
            if image.key not in self.skipped:
                counts.update(photos=1, boxes=len(image.boxes), empty=not image.boxes)
                boxes.update(box.label for box in image.boxes)
        self.splits[name] = {**{key: counts[key] for key in ("photos", "boxes", "empty")}, "shards": shards}
        self.splits[name]["boxes_per_label"] = {label: boxes[label] for label in self.ids}

    def write_shard(self, path: Path, examples: Iterable[bytes | None]) -> int:
        """Writes the examples that there are and returns how many."""
        import tensorflow as tf

        written = 0
        with tf.io.TFRecordWriter(str(path)) as shard:
            for example in examples:
                if example is not None:
                    shard.write(example)
                    written += 1
        return written

    def convert(self, image: LabelledImage) -> bytes | None:
        """The photo as a serialized tf.train.Example; None, and a note why, where it cannot be used."""
        try:
            photo = read_photo(self.root, image.key)
        except images.UnusablePhotoError as error:
            self.skipped[image.key] = str(error)
            return None
        if not photo.changes and not is_decodable(photo):
            photo = images.encode_anew(photo)
        if photo.changes:
            self.changed[image.key] = list(photo.changes)
        return to_example(image, photo, self.ids)

    def size_of(self, key: str) -> int:
        """A photo's size in bytes; 0 where it has gone."""
        return self.listing[key].size if key in self.listing else 0


def read_photo(root: Place, key: str) -> images.Photo:
    """The photo of that key, decoded.

    Raises:
        UnusablePhotoError: it is gone, may not be read, or is no usable photo.
        OSError: the bucket itself cannot be read.
    """
    try:
        return images.load(bucket.read(root / key))
    except OSError as error:
        # Of a bucket by address only a missing file is the photo's own fault: credentials can run out in the middle.
        is_photo = isinstance(error, FileNotFoundError) or not bucket.is_remote(root)
        if error.errno not in bucket.FINAL or not is_photo:
            raise
        raise images.UnusablePhotoError(f"cannot be read ({error.strerror})") from None


def is_decodable(photo: images.Photo) -> bool:
    """Whether TensorFlow reads the photo too: its decoders refuse some damage that Pillow's pass over."""
    import tensorflow as tf

    session, encoded, pixels = decoder()
    try:
        session.run(pixels, {encoded: photo.encoded})
    except tf.errors.InvalidArgumentError:
        return False
    return True


@functools.lru_cache(maxsize=1)
def decoder() -> tuple[Any, Any, Any]:
    """A session, and the tensors of encoded bytes and of pixels in it; it leaves TensorFlow's mode to the engine."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default():
        encoded = tf.placeholder(tf.string, [])
        pixels = tf.io.decode_image(encoded, channels=3)
        # A session takes all of a GPU's memory where it is let.
        return tf.Session(config=tf.ConfigProto(device_count={"GPU": 0})), encoded, pixels.op


def shard_count(size: int, photos: int) -> int:
    """Shards for so many bytes: 100 to 200 MB each, but as many as are read at a time, and none without a photo."""
    return min(photos, max(READERS, round(size / SHARD_BYTES)))


def to_example(image: LabelledImage, photo: images.Photo, ids: dict[str, int]) -> bytes:
    """A serialized tf.train.Example with the features that upstream's TfExampleDecoder reads.

    Corners are fractions of the width and height, float32; labels come as text and as id.
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
    # The order of a map's entries is otherwise free to change between two processes.
    return bytes(example.SerializeToString(deterministic=True))
