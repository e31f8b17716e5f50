"""Photos and boxes -> sharded TFRecords of tf.train.Example, for training and for validation.

The records are a function of the bucket and the settings alone: the same bytes whatever the machine, the hash seed
and the number of workers.
"""

import dataclasses
import functools
import hashlib
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from entrypoint import workspace
from entrypoint.data import annotations, examples, images, quality
from entrypoint.data.annotations import Dataset, LabelledImage
from entrypoint.data.examples import Converted
from entrypoint.data.quality import Seen
from entrypoint.settings.schema import Settings
from entrypoint.system import bucket, logs, parallel
from entrypoint.system.bucket import Place
from entrypoint.system.errors import UserError
from entrypoint.workspace import Workspace
from entrypoint.zoo import input_size

logger = logging.getLogger("job")

SPLITS = ("train", "validation")
# TensorFlow's performance guide advises shards of 100 to 200 MB; as many as READERS are read at a time.
SHARD_BYTES = 150_000_000
READERS = 8
WRITERS = 4  # shards that are written at a time
SHARD_NAME = re.compile(rf"(?:{'|'.join(SPLITS)})-\d{{5}}-of-\d{{5}}\.tfrecord")
MANY_LOST = 100
NO_PHOTO = "no photo is left to train on: label more photos, or lower VALIDATION_FRACTION"


def run(work: Workspace) -> str:
    """Writes records/ with its manifest, or fetches it from RECORDS_DIR; returns a digest of the shards' SHA-256.

    Raises:
        UserError: more photos than MAX_SKIPPED cannot be read, or none is left to train on.
    """
    if work.settings.records_dir:
        return fetch(work.settings.records_dir, work)
    dataset = annotations.load(work)
    parts = split(dataset.images, work.settings.validation_fraction, work.settings.seed)
    writer = RecordWriter(dataset, work.settings)
    # Photos that are not there are known before any is read.
    refuse_losses(dataset, {}, work.settings.max_skipped)
    with workspace.new_folder(work.records) as folder:
        shards = {name: writer.write(folder, name, parts[name]) for name in SPLITS}
        judge(dataset, parts, writer.seen, work.settings.max_skipped)
        manifest = describe(dataset, parts, writer.seen, shards, work.settings)
        workspace.write_json(folder / "manifest.json", manifest)
    log_counts(manifest)
    return workspace.digest(manifest)


def outputs(work: Workspace) -> list[Path]:
    """The files that the step leaves in WORK_DIR."""
    manifest = work.records / "manifest.json"
    if not manifest.exists():
        return [manifest]
    splits = load_manifest(work)["splits"]
    return [work.records / shard["name"] for part in splits.values() for shard in part["shards"]]


def fingerprint(work: Workspace) -> str:
    """The photos' sizes and times, and how small they are stored: models of one input size can share the records."""
    if work.settings.records_dir:
        return hashlib.sha256(bucket.read(work.settings.records_dir / "manifest.json")).hexdigest()
    photos = [[image.key, image.bytes, image.version] for image in annotations.load(work).images]
    return workspace.digest([photos, repr(input_size.storage(work.settings))])


def fetch(place: Place, work: Workspace) -> str:
    """Copies the records that Beam wrote to local disk; returns a digest of them."""
    with workspace.new_folder(work.records) as folder:
        bucket.fetch(place / "manifest.json", folder / "manifest.json")
        manifest = workspace.read_json(folder / "manifest.json", "tf_record")
        refuse_strange_names(manifest, place)
        if manifest["stored_for"] != repr(input_size.storage(work.settings)):
            logger.warning(
                "the photos in RECORDS_DIR were stored for another input size than that of MODEL: %s, and not %s",
                manifest["stored_for"],
                input_size.storage(work.settings),
            )
        shards = [shard for name in SPLITS for shard in manifest["splits"][name]["shards"]]

        def copy(shard: dict[str, Any]) -> None:
            bucket.fetch(place / shard["name"], folder / shard["name"])
            shard["sha256"] = workspace.file_sha256(folder / shard["name"])

        for _ in logs.progress(parallel.map_in_order(copy, shards, READERS), len(shards), "files of records"):
            pass
        workspace.write_json(folder / "manifest.json", manifest)
    log_counts(manifest)
    return workspace.digest(manifest)


def refuse_strange_names(manifest: Any, place: Place) -> None:
    """Checks that a manifest from outside names files as this step names them: another name could lie anywhere.

    Raises:
        UserError: it does not.
    """
    try:
        names = [shard["name"] for split in SPLITS for shard in manifest["splits"][split]["shards"]]
    except (KeyError, TypeError):
        names = [None]
    strange = [name for name in names if not isinstance(name, str) or not SHARD_NAME.fullmatch(name)]
    if strange:
        raise UserError(
            f"RECORDS_DIR={place}: manifest.json names a file {strange[0]!r}, and files of records are called like "
            "train-00000-of-00008.tfrecord: convert the photos again"
        )


def load_manifest(work: Workspace) -> dict[str, Any]:
    """What the step wrote: labels, counts and shards per split, skipped and changed photos, advice."""
    return dict(workspace.read_json(work.records / "manifest.json", "tf_record"))


def describe(
    dataset: Dataset,
    parts: dict[str, list[LabelledImage]],
    seen: Seen,
    shards: dict[str, list[dict[str, Any]]],
    settings: Settings,
) -> dict[str, Any]:
    """The manifest of records that were written."""
    used = {name: [image for image in part if image.key in seen.facts] for name, part in parts.items()}
    return {
        "labels": dataset.labels,
        "splits": {name: {**count(used[name], dataset.labels), "shards": shards[name]} for name in SPLITS},
        "skipped": dict(sorted(seen.skipped.items())),
        "changed": seen.changed(),
        "advice": quality.give(parts, dataset.labels, seen, input_size.of_model(settings)),
        "stored_for": repr(input_size.storage(settings)),
        "max_boxes": max(len(image.boxes) for image in dataset.images),
    }


def count(photos: list[LabelledImage], labels: list[str]) -> dict[str, Any]:
    """Photos, those without a box, boxes, and boxes and photos by label."""
    boxes = Counter(box.label for image in photos for box in image.boxes)
    shown = Counter(label for image in photos for label in {box.label for box in image.boxes})
    return {
        "photos": len(photos),
        "empty": sum(not image.boxes for image in photos),
        "boxes": boxes.total(),
        "boxes_per_label": {label: boxes[label] for label in labels},
        "photos_per_label": {label: shown[label] for label in labels},
    }


def log_counts(manifest: dict[str, Any]) -> None:
    """Logs how many photos there are, and what a careful colleague would say of them."""
    for name, counts in manifest["splits"].items():
        logger.info(
            "%s: %d photos, %d boxes in %d shards", name, counts["photos"], counts["boxes"], len(counts["shards"])
        )
    for sentence in quality.sentences(manifest["advice"]):
        logger.warning("%s", sentence)


def judge(dataset: Dataset, parts: dict[str, list[LabelledImage]], seen: Seen, max_skipped: float) -> None:
    """Logs every photo that cannot be read; UserError where they are too many, or none is left to train on."""
    for key, reason in sorted(seen.skipped.items()):
        logger.warning("%s skipped: %s", key, reason)
    refuse_losses(dataset, seen.skipped, max_skipped)
    if not any(image.key in seen.facts for image in parts["train"]):
        raise UserError(NO_PHOTO)


def refuse_losses(dataset: Dataset, skipped: dict[str, str], max_skipped: float) -> None:
    """UserError where more photos are missing or unreadable than MAX_SKIPPED allows."""
    told = too_many_lost(dataset, len(skipped), max_skipped)
    if told:
        key, reason = min((skipped | dict.fromkeys(dataset.lost, "not in the bucket, or its annotations")).items())
        raise UserError(f"{told}; the first: {key}: {reason}. Replace them, or raise MAX_SKIPPED")


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
    """Writes the shards of a split, several at a time, and keeps what was seen."""

    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        self.dataset = dataset
        self.workers = settings.workers
        self.max_skipped = settings.max_skipped
        storage = input_size.storage(settings)
        self.convert = functools.partial(
            examples.convert,
            root=settings.data_dir,
            ids={label: index for index, label in enumerate(dataset.labels, start=1)},
            shrink=storage.shrink if storage else images.keep_size,
        )
        self.seen = Seen()

    def write(self, folder: Path, name: str, photos: list[LabelledImage]) -> list[dict[str, Any]]:
        """Writes `name`-00000-of-0000N.tfrecord, the photos in the given order, cut into N runs of equal length.

        Returns name and SHA-256 of each shard.
        """
        total = shards_for(photos)
        shards = [Shard(folder / f"{name}-{index:05d}-of-{total:05d}.tfrecord") for index in range(total)]
        cuts = [index * len(photos) // max(1, total) for index in range(total + 1)]
        with ThreadPoolExecutor(self.workers) as pool:
            runs = [
                shard.write(self.converted(photos[start:end], pool))
                for shard, start, end in zip(shards, cuts, cuts[1:], strict=False)
            ]
            for each in logs.progress(parallel.merge(runs, WRITERS), len(photos), f"{name} records"):
                self.seen.add(each)
                # A few are all told at the end; of many the rest need not be read, which can take hours.
                if each.skipped and len(self.seen.skipped) > MANY_LOST:
                    refuse_losses(self.dataset, self.seen.skipped, self.max_skipped)
        return [shard.describe() for shard in shards]

    def converted(self, photos: list[LabelledImage], pool: Executor) -> Iterator[Converted]:
        """The photos as examples, few enough of them in memory for all shards that are written at a time."""
        return parallel.map_in_order(self.convert, photos, max(1, self.workers // WRITERS), pool)


class Shard:
    """A file of records."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sha256 = ""

    def write(self, photos: Iterator[Converted]) -> Iterator[Converted]:
        """Writes the examples that there are; what became of each photo, without the example itself."""
        import tensorflow as tf

        with tf.io.TFRecordWriter(str(self.path)) as file:
            for each in photos:
                if each.example is not None:
                    file.write(each.example)
                yield dataclasses.replace(each, example=None)
        self.sha256 = workspace.file_sha256(self.path)

    def describe(self) -> dict[str, Any]:
        """Its entry in the manifest."""
        return {"name": self.path.name, "sha256": self.sha256}


def shards_for(photos: list[LabelledImage]) -> int:
    """How many shards the photos go into."""
    return shard_count(sum(image.bytes for image in photos), len(photos))


def shard_count(size: int, photos: int) -> int:
    """Shards for photos of so many bytes, of 100 to 200 MB where they are stored as they are, and smaller where not.

    As many as are read at a time, but none without a photo.
    """
    return min(photos, max(READERS, round(size / SHARD_BYTES)))
