"""`check`: what the job would find in the bucket, told before any GPU is paid for; without TensorFlow.

It reads the annotations, tells what they say, decodes every photo as the conversion does, and writes nothing.
"""

import json
from typing import Any

from entrypoint.data import annotations, examples, images, quality, tf_record
from entrypoint.data.annotations import Dataset, LabelledImage
from entrypoint.data.examples import Converted
from entrypoint.data.quality import Seen
from entrypoint.settings.schema import Settings
from entrypoint.system import logs, parallel
from entrypoint.zoo import input_size

SHOWN = 20  # names of a kind of finding; `--json` has them all


def run(settings: Settings, *, as_json: bool) -> int:
    """Prints what was found, that of the annotations at once; 0 where the job can start, 2 where it would stop.

    Raises:
        UserError: the bucket or its annotations cannot be read, or the model's input size is not known.
    """
    size = input_size.of_model(settings)
    dataset = annotations.read_bucket(settings, exclude=settings.result_dir)
    if not as_json:
        print(as_text(describe(dataset, settings)), flush=True)
    seen = read_photos(dataset.images, settings)
    facts = describe(dataset, settings, seen, size)
    print(json.dumps(facts, indent=1, ensure_ascii=False) if as_json else about_photos(facts, seen))
    return 2 if facts["stops"] else 0


def describe(
    dataset: Dataset, settings: Settings, seen: Seen | None = None, size: input_size.InputSize | None = None
) -> dict[str, Any]:
    """Counts, and what was found on which keys; with `seen`, also in the photos, and what would stop the job."""
    skipped = seen.skipped if seen else {}
    # As the job does: photos are dealt out first, so that one that cannot be read moves no other.
    parts = tf_record.split(dataset.images, settings.validation_fraction, settings.seed)
    counts = {
        name: tf_record.count([image for image in part if image.key not in skipped], dataset.labels)
        for name, part in parts.items()
    }
    facts: dict[str, Any] = {
        "photos": {
            "labelled": len(dataset.images),
            "empty": sum(each["empty"] for each in counts.values()),
            **{name: each["photos"] for name, each in counts.items()},
            "without annotation": dataset.unlabelled,
        },
        "labels": {
            label: {name: each["boxes_per_label"][label] for name, each in counts.items()} for label in dataset.labels
        },
        "found": dict(dataset.findings.kinds),
    }
    if seen:
        told = tf_record.too_many_lost(dataset, len(skipped), settings.max_skipped)
        facts["found"] |= seen.kinds()
        facts["advice"] = quality.give(parts, dataset.labels, seen, size)
        facts["stops"] = ([told] if told else []) + ([] if counts["train"]["photos"] else [tf_record.NO_PHOTO])
    return facts


def read_photos(photos: list[LabelledImage], settings: Settings) -> Seen:
    """Decodes every photo."""
    storage = input_size.storage(settings)
    shrink = storage.shrink if storage else images.keep_size

    def read(image: LabelledImage) -> Converted:
        try:
            photo = examples.read_photo(settings.data_dir, image.key, shrink)
        except images.UnusablePhotoError as error:
            return Converted(image.key, None, str(error), None)
        return Converted(image.key, None, None, photo.facts)

    seen = Seen()
    for each in logs.progress(parallel.map_in_order(read, photos, settings.workers), len(photos), "photos"):
        seen.add(each)
    return seen


def as_text(facts: dict[str, Any]) -> str:
    """What the annotations say, for a person."""
    photos = facts["photos"]
    lines = [
        f"{photos['labelled']} labelled photos: {photos['train']} to train on, {photos['validation']} for validation, "
        f"{photos['empty']} of them without a box",
        f"{photos['without annotation']} photos of the bucket carry no annotation and are not used",
        f"{len(facts['labels'])} labels, boxes to train on and for validation:",
        *(f"  {label}: {boxes['train']}, {boxes['validation']}" for label, boxes in facts["labels"].items()),
    ]
    return "\n".join(lines + as_lines(facts["found"]))


def about_photos(facts: dict[str, Any], seen: Seen) -> str:
    """What reading the photos told, for a person."""
    lines = as_lines(seen.kinds()) + quality.sizes(facts["advice"]) + quality.sentences(facts["advice"])
    lines += [f"the job would stop: {reason}" for reason in facts["stops"]]
    return "\n".join(lines if facts["stops"] else [*lines, "the job can start"])


def as_lines(found: dict[str, list[str]]) -> list[str]:
    """A line for each kind of finding."""
    return [f"{kind}: {len(keys)} ({quality.listed(keys, SHOWN)})" for kind, keys in found.items()]
