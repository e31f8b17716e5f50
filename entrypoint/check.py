"""`check`: what the job would find in the bucket, told before any GPU is paid for; without TensorFlow.

It reads the annotations and decodes every photo, as the conversion does, and writes nothing.
"""

import json
from collections import Counter
from typing import Any

from entrypoint import annotations, images, logs, parallel, tf_record
from entrypoint.annotations import Dataset, LabelledImage
from entrypoint.settings import Settings

SHOWN = 5


def run(settings: Settings, *, as_json: bool) -> int:
    """Prints what was found; 0 where the job can start, 2 where it would stop.

    Raises:
        UserError: the bucket or its annotations cannot be read.
    """
    dataset = annotations.read_bucket(settings, exclude=settings.result_dir)
    facts = describe(dataset, settings)
    print(json.dumps(facts, indent=1, ensure_ascii=False) if as_json else as_text(facts))
    return 2 if facts["stops"] else 0


def describe(dataset: Dataset, settings: Settings) -> dict[str, Any]:
    """Counts, what was found in annotations and photos with the keys it was found on, and what would stop the job."""
    skipped, changed = read_photos(dataset.images, settings)
    unusable = {key for keys in skipped.values() for key in keys}
    # As the job does: photos are dealt out first, so that one that cannot be read moves no other.
    parts = {
        name: [image for image in part if image.key not in unusable]
        for name, part in tf_record.split(dataset.images, settings.validation_fraction, settings.seed).items()
    }
    boxes = {name: Counter(box.label for image in part for box in image.boxes) for name, part in parts.items()}
    told = tf_record.too_many_lost(dataset, len(unusable), settings.max_skipped)
    return {
        "photos": {
            "labelled": len(dataset.images),
            "empty": sum(not image.boxes for part in parts.values() for image in part),
            **{name: len(part) for name, part in parts.items()},
            "without annotation": dataset.unlabelled,
        },
        "labels": {label: {name: count[label] for name, count in boxes.items()} for label in dataset.labels},
        "found": dataset.findings.kinds | skipped | changed,
        "stops": ([told] if told else []) + ([] if parts["train"] else ["no photo is left to train on"]),
    }


def read_photos(photos: list[LabelledImage], settings: Settings) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Decodes every photo; what was wrong and what the job will do to it, each with the keys."""
    skipped: dict[str, list[str]] = {}
    changed: dict[str, list[str]] = {}

    def read(image: LabelledImage) -> tuple[str, tuple[str, ...], str | None]:
        try:
            return image.key, tf_record.read_photo(settings.data_dir, image.key).changes, None
        except images.UnusablePhotoError as error:
            return image.key, (), str(error)

    found = parallel.map_in_order(read, photos, settings.workers)
    for key, changes, reason in logs.progress(found, len(photos), "photos"):
        if reason:
            skipped.setdefault(f"photo skipped: {reason}", []).append(key)
        for change in changes:
            changed.setdefault(f"photo {change}", []).append(key)
    return skipped, changed


def as_text(facts: dict[str, Any]) -> str:
    """What was found, for a person."""
    photos = facts["photos"]
    lines = [
        f"{photos['labelled']} labelled photos: {photos['train']} to train on, {photos['validation']} for validation, "
        f"{photos['empty']} of them without a box",
        f"{photos['without annotation']} photos of the bucket carry no annotation and are not used",
        f"{len(facts['labels'])} labels, boxes to train on and for validation:",
        *(f"  {label}: {boxes['train']}, {boxes['validation']}" for label, boxes in facts["labels"].items()),
    ]
    for kind, keys in facts["found"].items():
        rest = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
        lines.append(f"{kind}: {len(keys)} ({', '.join(keys[:SHOWN])}{rest})")
    lines += [f"the job would stop: {reason}" for reason in facts["stops"]]
    return "\n".join(lines if facts["stops"] else [*lines, "the job can start"])
