"""A conversion that several processes or machines share. They meet in RECORDS_DIR, and need not know of each other.

conversion.json      what decides the records, and the list of photos of each shard by its hash
dataset.json         the checked annotations
photos/SHARD.jsonl   the photos of a shard, a line each
SHARD                the records
facts/SHARD.json     what is known about its photos; written last, so a shard with facts is done
manifest.json        written when all shards are done: the job trains on the folder

Each of these files is a function of the bucket and the settings. Whoever writes one again writes the same bytes.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_fixed

from entrypoint.data import annotations, images, records, shards, tf_record
from entrypoint.data.annotations import Dataset, LabelledImage
from entrypoint.data.examples import Converted
from entrypoint.data.quality import Seen
from entrypoint.data.shards import ShardWriter
from entrypoint.data.split import split
from entrypoint.settings.schema import Settings
from entrypoint.system import bucket, copying, documents, files, version
from entrypoint.system.bucket import Place
from entrypoint.system.errors import JobError, UserError
from entrypoint.zoo import input_size
from entrypoint.zoo.input_size import Storage

logger = logging.getLogger("job")

# The settings that decide which records are made.
DECISIVE = ("data_format", "empty_photos", "train_image_size", "validation_fraction", "seed", "max_repaired")
OTHER_PLACE = "name another RECORDS_DIR, or remove what is there"


@dataclass(frozen=True)
class ShardList:
    """The photos of a shard: how many, and the SHA-256 of their list."""

    photos: int
    sha256: str


@dataclass(frozen=True)
class Conversion:
    """What all that take part in a conversion must have in common: the content of conversion.json."""

    job: str  # release and revision of the program
    settings: dict[str, str]  # those of DECISIVE
    labels: tuple[str, ...]
    storage: Storage | None
    shards: dict[str, ShardList]


@dataclass(frozen=True)
class ShardFacts:
    """What is known about a shard that was written."""

    photos: str  # SHA-256 of the list that it was made from
    sha256: str  # of the file of records
    skipped: dict[str, str]  # photo -> why it is not in the records
    facts: dict[str, images.Facts]


@dataclass(frozen=True)
class Beginning:
    """A conversion with what was read in the bucket."""

    conversion: Conversion
    dataset: Dataset
    parts: dict[str, list[LabelledImage]]
    lists: dict[str, bytes]  # shard -> the list of its photos


class StaleListError(Exception):
    """A list of photos is not whole: another machine is writing it again."""


def records_dir(settings: Settings) -> Place:
    """Returns RECORDS_DIR; raises UserError if it is not set."""
    if settings.records_dir is None:
        raise UserError("RECORDS_DIR is missing: set it to the folder, or the address, for the records")
    return settings.records_dir


def plan(settings: Settings) -> Beginning:
    """Reads the bucket and returns the conversion of its photos, as the job's own step would convert them.

    Raises:
        UserError: the annotations cannot be used.
    """
    dataset = annotations.read_bucket(settings, exclude=settings.result_dir)
    tf_record.refuse_losses(dataset, {}, settings.max_skipped)
    parts = split(dataset.images, settings.validation_fraction, settings.seed)
    cuts = shards.cut(parts)
    lists = {name: list_of(photos) for name, photos in cuts.items()}
    conversion = Conversion(
        job=version.describe(),
        settings=decisive(settings),
        labels=tuple(dataset.labels),
        storage=input_size.storage(settings),
        shards={name: ShardList(len(cuts[name]), digest(content)) for name, content in lists.items()},
    )
    return Beginning(conversion, dataset, parts, lists)


def begin(settings: Settings) -> Beginning:
    """Plans the conversion and writes the plan into RECORDS_DIR, or checks that the plan there is the same.

    Raises:
        UserError: RECORDS_DIR holds other files, or a conversion with other settings, of another release, or of other
            photos.
    """
    place = records_dir(settings)
    found = read(place, settings)
    beginning = plan(settings)
    if found:
        refuse_other_photos(found, beginning, place)
        return beginning
    for name, content in beginning.lists.items():
        copying.write_file(place / "photos" / f"{name}.jsonl", content)
    copying.write_file(place / "dataset.json", files.to_large_json(beginning.dataset).encode())
    write(place / "conversion.json", beginning.conversion)
    return beginning


def read(place: Place, settings: Settings) -> Conversion | None:
    """Returns the conversion that was begun in RECORDS_DIR, or None.

    Raises:
        UserError: it is one with other settings or of another release, or the folder holds something else.
    """
    path = place / "conversion.json"
    if not bucket.matching(place, path.name):
        if bucket.matching(place, "manifest.json"):
            raise UserError(f"RECORDS_DIR={place} holds records that were not begun here: {OTHER_PLACE}")
        return None
    found = documents.read(Conversion, path)
    refuse_other_job(found.job, place)
    now = decisive(settings)
    changed = [name for name in DECISIVE if found.settings.get(name) != now[name]]
    differing = [f"{name.upper()} was {found.settings.get(name)} and is {now[name]}" for name in changed]
    if found.storage != input_size.storage(settings) and not differing:
        differing = [f"photos were stored for {found.storage} and are now for {input_size.storage(settings)} (MODEL)"]
    if differing:
        raise UserError(
            f"RECORDS_DIR={place} holds a conversion with other settings: {'; '.join(differing)}: give the settings "
            f"of before, or {OTHER_PLACE}"
        )
    return found


def refuse_other_job(job: str, place: Place) -> None:
    """Raises UserError if a conversion was begun by another release or revision of the program."""
    if job != version.describe():
        raise UserError(
            f"RECORDS_DIR={place} holds a conversion that {job} began, and this machine ({os.uname().nodename}) has "
            f"{version.describe()}: run the same image everywhere, or {OTHER_PLACE}"
        )


def decisive(settings: Settings) -> dict[str, str]:
    """Returns the values of the settings that decide which records are made."""
    return {name: str(getattr(settings, name)) for name in DECISIVE}


def refuse_other_photos(found: Conversion, beginning: Beginning, place: Place) -> None:
    """Raises UserError, with the first of them, if photos or boxes have changed since the conversion was begun."""
    if found == beginning.conversion:
        return
    before = {image.key: image for name in found.shards for image in photos_of(place, name, found.shards[name])}
    now = {image.key: image for photos in beginning.parts.values() for image in photos}

    def state(image: LabelledImage) -> object:
        return (image.bytes, image.version, image.boxes, image.part)

    kinds = {
        "new": sorted(now.keys() - before.keys()),
        "gone": sorted(before.keys() - now.keys()),
        "changed": sorted(key for key in now.keys() & before.keys() if state(now[key]) != state(before[key])),
    }
    words = ", ".join(f"{len(keys)} {kind} ({keys[0]})" for kind, keys in kinds.items() if keys)
    raise UserError(
        f"DATA_DIR has changed since the conversion in RECORDS_DIR={place} was begun: {words or 'the labels'}: "
        f"{OTHER_PLACE}"
    )


def list_of(photos: list[LabelledImage]) -> bytes:
    """Returns the list of photos as JSON, a line each."""
    encode = files.encoder().encode
    return "".join(f"{encode(image)}\n" for image in photos).encode()


def digest(content: bytes) -> str:
    """Returns the SHA-256 of a list of photos."""
    return hashlib.sha256(content).hexdigest()


@retry(retry=retry_if_exception_type(StaleListError), stop=stop_after_attempt(5), wait=wait_fixed(1), reraise=True)
def photos_of(place: Place, name: str, wanted: ShardList) -> list[LabelledImage]:
    """Returns the photos of a shard from their list in RECORDS_DIR.

    Raises:
        StaleListError: the list is not the one of the plan, several times in a row.
    """
    path = place / "photos" / f"{name}.jsonl"
    content = bucket.read(path)
    if digest(content) != wanted.sha256:
        raise StaleListError(f"{path} is not the list of conversion.json: {OTHER_PLACE}")
    return [annotations.of_json(line) for line in content.decode().splitlines()]


def write(place: Place, document: Conversion | ShardFacts | records.RecordsManifest) -> None:
    """Writes a document, whole or not at all, as `documents.write` does on local disk."""
    copying.write_file(place, files.to_json(documents.to_plain(document)).encode())


def facts_of(place: Place, name: str, wanted: ShardList) -> ShardFacts | None:
    """Returns the facts of a shard, or None if it is not done."""
    try:
        found = documents.read(ShardFacts, place / "facts" / f"{name}.json")
    except FileNotFoundError:
        return None
    except UserError:
        # A machine was killed while it wrote them, on a bucket mount that shows half of a file.
        return None
    return found if found.photos == wanted.sha256 else None


def done(place: Place, conversion: Conversion) -> dict[str, ShardFacts]:
    """Returns the facts of the shards that are done, in the order of the shards."""
    there = {path.name.removesuffix(".json") for path in bucket.matching(place / "facts", "*.json")}
    names = [name for name in conversion.shards if name in there]
    with ThreadPoolExecutor(shards.READERS) as pool:
        found = pool.map(lambda name: facts_of(place, name, conversion.shards[name]), names)
        return {name: facts for name, facts in zip(names, found, strict=True) if facts}


def left(place: Place, conversion: Conversion) -> list[str]:
    """Returns the shards that are not done."""
    found = done(place, conversion)
    return [name for name in conversion.shards if name not in found]


def convert(place: Place, name: str, conversion: Conversion, root: Place, workers: int) -> Iterator[Converted]:
    """Converts the photos of a shard on this machine and publishes it with its facts; yields the outcome for each.

    Raises:
        OSError: the bucket itself cannot be read, or RECORDS_DIR cannot be written to.
    """
    wanted = conversion.shards[name]
    run = shards.converter(root, list(conversion.labels), conversion.storage)
    seen = Seen()
    with tempfile.TemporaryDirectory(prefix="shard-") as folder, ThreadPoolExecutor(workers) as pool:
        writer = ShardWriter(Path(folder) / name, photos_of(place, name, wanted))
        for each in writer.write(run, pool, workers):
            seen.add(each)
            yield each
        copying.copy_file(writer.path, place / name)
    write(place / "facts" / f"{name}.json", ShardFacts(wanted.sha256, writer.sha256, seen.skipped, seen.facts))


def finish(place: Place, beginning: Beginning, settings: Settings) -> None:
    """Writes manifest.json, byte for byte that of the job's own step; every shard must be done.

    Raises:
        UserError: more photos than MAX_SKIPPED allows cannot be read, or no photo is left to train on.
        JobError: a shard is not done.
    """
    found = done(place, beginning.conversion)
    for name in beginning.conversion.shards:
        if name not in found:
            raise JobError(f"{place / name} is not done: start the conversion again, and it does what is left")
    seen = Seen()
    for facts in found.values():
        seen.skipped.update(facts.skipped)
        seen.facts.update(facts.facts)
    digests = {name: facts.sha256 for name, facts in found.items()}
    tf_record.judge(beginning.dataset, beginning.parts, seen, settings.max_skipped)
    manifest = tf_record.describe(beginning.dataset, beginning.parts, seen, digests, settings)
    write(records.manifest_in(place), manifest)
    tf_record.log_counts(manifest)
