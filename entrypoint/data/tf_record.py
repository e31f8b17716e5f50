"""Photos and boxes -> sharded TFRecords of tf.train.Example, for training and for validation.

The records depend only on the bucket and the settings: the machine, the hash seed and the number of workers do not
change a byte of them.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from entrypoint.data import annotations, examples, foreign_records, losses, quality, records, shards
from entrypoint.data.annotations import Dataset, LabelledImage
from entrypoint.data.examples import Converted
from entrypoint.data.quality import Seen
from entrypoint.data.records import RecordsManifest, Shard
from entrypoint.data.shards import ShardWriter
from entrypoint.data.split import SPLITS, split
from entrypoint.settings.schema import Settings
from entrypoint.system import bucket, display, documents, files, parallel
from entrypoint.system.bucket import Place
from entrypoint.system.errors import UserError
from entrypoint.workspace import Workspace
from entrypoint.zoo import input_size

logger = logging.getLogger("job")

MANY_LOST = 100  # photos
# Raises UserError if these photos, by their keys with the reasons, are too many to lose.
Refuse = Callable[[dict[str, str]], None]
NO_PHOTO = "no photo is left to train on: label more photos, or lower VALIDATION_FRACTION"


def run(work: Workspace) -> str:
    """Writes records/ with its manifest, or copies them from RECORDS_DIR; returns a digest of the manifest.

    Raises:
        UserError: more photos than MAX_SKIPPED allows cannot be read, or no photo is left to train on.
    """
    if work.settings.records_dir:
        return fetch(work.settings.records_dir, work)
    dataset, settings = annotations.load(work), work.settings
    parts = split(dataset.images, settings.validation_fraction, settings.seed)
    # Photos that are missing in the bucket are known before any photo is read.
    refuse_losses(dataset, {}, settings.max_skipped)
    convert = shards.converter(settings.data_dir, dataset.labels, input_size.storage(settings))
    with files.new_folder(work.records) as folder, ThreadPoolExecutor(settings.workers) as pool:
        writers = [ShardWriter(folder / name, photos) for name, photos in shards.cut(parts).items()]
        # WRITERS shards are written at a time, so each has few examples in memory.
        runs = [writer.write(convert, pool, max(1, settings.workers // shards.WRITERS)) for writer in writers]
        photos = sum(map(len, parts.values()))
        seen = collect(runs, photos, lambda skipped: refuse_losses(dataset, skipped, settings.max_skipped))
        judge(dataset, parts, seen, settings.max_skipped)
        manifest = describe(dataset, parts, seen, {each.path.name: each.sha256 for each in writers}, settings)
        documents.write(records.manifest_in(folder), manifest)
    log_counts(manifest)
    return manifest.digest()


def collect(runs: list[Iterator[Converted]], photos: int, refuse: Refuse) -> Seen:
    """Writes WRITERS shards at a time and returns the facts and faults of their photos.

    `refuse` raises UserError if the photos that are lost so far are so many that the rest need not be read.
    """
    seen = Seen()
    for each in display.progress(parallel.merge(runs, shards.WRITERS), photos, "records"):
        seen.add(each)
        # A few lost photos are all reported at the end. Many are checked at once, because reading the other photos can
        # take hours.
        if each.skipped and len(seen.skipped) > MANY_LOST:
            refuse(seen.skipped)
    return seen


def outputs(work: Workspace) -> list[Path]:
    """Returns the files that the step leaves in WORK_DIR."""
    manifest = records.manifest_in(work.records)
    return [work.records / shard.name for shard in records.load(work).shards] if manifest.exists() else [manifest]


def fingerprint(work: Workspace) -> str:
    """Returns a digest of the photos' sizes and versions, and of the size at which they are stored.

    Models with the same input size can share the records.
    """
    if work.settings.records_dir:
        return hashlib.sha256(bucket.read(records.manifest_in(work.settings.records_dir))).hexdigest()
    photos = [[image.key, image.bytes, image.version] for image in annotations.load(work).images]
    return files.digest([photos, repr(input_size.storage(work.settings))])


def fetch(place: Place, work: Workspace) -> str:
    """Copies the records that `convert` wrote to local disk, and checks them; returns a digest of their manifest.

    Raises:
        UserError: the manifest or a file of records is damaged, or holds something that cannot be trained on.
    """
    manifest = documents.read(RecordsManifest, records.manifest_in(place))
    storage = input_size.storage(work.settings)
    if manifest.stored_for != repr(storage):
        logger.warning(
            "the photos in RECORDS_DIR were stored for another input size than that of MODEL: %s, and not %s",
            manifest.stored_for,
            storage,
        )
    found, labels = list(manifest.shards), len(manifest.labels)
    with files.new_folder(work.records) as folder:

        def copy(shard: Shard) -> tuple[Shard, int]:
            path = folder / shard.name
            bucket.fetch(place / shard.name, path)
            count = foreign_records.check_file(path, labels)
            return dataclasses.replace(shard, sha256=files.file_sha256(path)), count

        copies = display.progress(parallel.map_in_order(copy, found, shards.READERS), len(found), "files of records")
        copied = {shard.name: (shard, count) for shard, count in copies}
        foreign_records.check_counts(manifest, {name: count for name, (_, count) in copied.items()})
        splits = {
            name: dataclasses.replace(part, shards=tuple(copied[each][0] for each in part.names))
            for name, part in manifest.splits.items()
        }
        manifest = dataclasses.replace(manifest, splits=splits)
        documents.write(records.manifest_in(folder), manifest)
    log_counts(manifest)
    return manifest.digest()


def describe(
    dataset: Dataset,
    parts: dict[str, list[LabelledImage]],
    seen: Seen,
    digests: dict[str, str],
    settings: Settings,
) -> RecordsManifest:
    """Returns the manifest of the records that were written; `digests` has the SHA-256 of each shard by its name."""
    written = {
        split: tuple(Shard(name, sha256) for name, sha256 in digests.items() if shards.split_of(name) == split)
        for split in SPLITS
    }
    used = {name: [image for image in part if image.key in seen.facts] for name, part in parts.items()}
    counts = {name: records.count(used[name], dataset.labels) for name in SPLITS}
    counts_of_boxes = (len(image.boxes) for image in dataset.images)
    return RecordsManifest(
        labels=tuple(dataset.labels),
        splits={name: dataclasses.replace(counts[name], shards=written[name]) for name in SPLITS},
        skipped=dict(sorted(seen.skipped.items())),
        changed=seen.changed(),
        quality=quality.assess(parts, dataset.labels, seen, input_size.of_model(settings)),
        stored_for=repr(input_size.storage(settings)),
        max_boxes=max((count for count in counts_of_boxes if count <= examples.MOST_BOXES), default=0),
    )


def log_counts(manifest: RecordsManifest) -> None:
    """Logs the numbers of photos and boxes, and the problems of the data."""
    for name in SPLITS:
        part = manifest.splits[name]
        logger.info("%s: %d photos, %d boxes in %d shards", name, part.photos, part.boxes, len(part.shards))
    for sentence in quality.describe_problems(manifest.quality):
        logger.warning("%s", sentence)


def judge(dataset: Dataset, parts: dict[str, list[LabelledImage]], seen: Seen, max_skipped: float) -> None:
    """Logs every photo that cannot be read; raises UserError if they are too many, or no photo is left to train on."""
    for key, reason in sorted(seen.skipped.items()):
        logger.warning("%s skipped: %s", key, reason)
    refuse_losses(dataset, seen.skipped, max_skipped)
    if not any(image.key in seen.facts for image in parts["train"]):
        raise UserError(NO_PHOTO)


def refuse_losses(dataset: Dataset, skipped: dict[str, str], max_skipped: float) -> None:
    """Raises UserError if more photos are lost than MAX_SKIPPED allows."""
    told = too_many_lost(dataset, skipped, max_skipped)
    if told:
        raise UserError(told)


def too_many_lost(dataset: Dataset, skipped: dict[str, str], max_skipped: float) -> str | None:
    """Returns a message if more photos are lost than MAX_SKIPPED allows, otherwise None.

    `skipped` are photos that cannot be read, by their keys, with the reasons.
    """
    lost, photos = len(dataset.lost) + len(skipped), len(dataset.images) + len(dataset.lost)
    if lost <= max_skipped * photos:
        return None
    reasons = {kind: where for kind, where in dataset.findings.kinds.items() if kind in losses.MENDS}
    return tell_losses(lost, photos, reasons, skipped, max_skipped)


def tell_losses(
    lost: int, photos: int, reasons: dict[str, list[str]], skipped: dict[str, str], max_skipped: float
) -> str:
    """Returns the message about lost photos: `reasons` for those that annotations lose, `skipped` for unreadable ones.

    The most frequent reason comes first.
    """
    reasons = dict(reasons)
    for key, reason in sorted(skipped.items()):
        reasons.setdefault(f"photo skipped, {reason}", []).append(key)
    ranked = sorted(reasons.items(), key=lambda pair: -len(pair[1]))
    words = "; ".join(
        f"{kind}: {len(where)} (the first: {where[0]}): {losses.MENDS.get(kind, 'replace the photos')}"
        for kind, where in ranked
    )
    return f"{lost} of {photos} photos cannot be used, more than MAX_SKIPPED={max_skipped} allows: {words}"
