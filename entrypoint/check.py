"""`check` reports what the job would find in the bucket, before a GPU is paid for, and without TensorFlow.

It reads the annotations, reports their content, decodes every photo as the conversion does, and writes a page about it.
"""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

from entrypoint.data import annotations, examples, images, quality, records, tf_record
from entrypoint.data.annotations import Dataset, LabelledImage, Origin
from entrypoint.data.examples import Converted
from entrypoint.data.quality import DataQuality, Seen
from entrypoint.data.split import split
from entrypoint.results import check_page
from entrypoint.results.check_page import Checked
from entrypoint.settings.command_line import Command
from entrypoint.settings.schema import Settings
from entrypoint.system import copying, documents, lease, logs, parallel, streams
from entrypoint.system.errors import UserError
from entrypoint.system.printable import Lines
from entrypoint.training import pipeline
from entrypoint.zoo import input_size

logger = logging.getLogger("job")


def run(command: Command) -> int:
    """Prints what was found, first in the annotations; returns 0 if the job can start, 2 if it would stop.

    With `--json`, standard output has a JSON document whatever happens; an error is its `error`.

    Raises:
        UserError: the job would refuse the settings, or the bucket or its annotations cannot be read.
    """
    try:
        stops = find(command)
    except UserError as error:
        if not command.as_json:
            raise
        streams.put(json.dumps({"error": str(error), "stops": [str(error)]}, indent=1))
        return error.exit_code
    return 2 if stops else 0


def find(command: Command) -> list[str]:
    """Prints what was found and writes the page; returns the reasons for which the job would stop."""
    settings = command.settings
    refuse_early(settings)
    size = input_size.of_model(settings)
    dataset, origin = annotations.read_with_origin(settings, exclude=settings.result_dir)
    of_split = split_of(dataset)
    if not command.as_json:
        streams.put(as_text(describe(dataset, settings, Seen()), origin, of_split))
    seen = read_photos(dataset.images, settings)
    facts = describe(dataset, settings, seen)
    parts = split(dataset.images, settings.validation_fraction, settings.seed)
    found = quality.assess(parts, dataset.labels, seen, size)
    stops = reasons_to_stop(dataset, facts, seen, settings)
    checked = Checked(settings, origin, of_split, dataset, facts, seen, found, stops)
    page = write_page(checked, command.page)
    if command.as_json:
        facts["found"] |= seen.kinds()
        about = {"annotations": dataclasses.asdict(origin), "split": of_split, "page": page}
        streams.put(json.dumps({**about, **facts, "quality": documents.to_plain(found), "stops": stops}, indent=1))
    else:
        streams.put(about_photos(found, stops, seen, page))
    return stops


def write_page(checked: Checked, chosen: Path | None) -> str | None:
    """Writes the page to the file that was chosen, or into RESULT_DIR if that can be written to; returns its place.

    Raises:
        UserError: the chosen file cannot be written.
    """
    place = chosen or checked.settings.result_dir / "check.html"
    try:
        lease.make_writable("--page" if chosen else "RESULT_DIR", place.parent)
        copying.write_below([place.parent])
        copying.write_file(place, check_page.render(checked).encode())
    except (UserError, OSError) as error:
        if chosen:
            raise UserError(f"--page={chosen} cannot be written ({error})") from None
        logger.warning("the page check.html is not written: %s", error)
        return None
    return str(place)


def refuse_early(settings: Settings) -> None:
    """Raises UserError for what the job would refuse before it reads anything."""
    from entrypoint import job

    pipeline.find(settings)
    annotations.refuse_missing_bucket(settings.data_dir)
    job.refuse_early(settings)


def split_of(dataset: Dataset) -> str:
    """Returns where the split comes from, in words."""
    if any(image.part for image in dataset.images):
        return "the bucket's own, and VALIDATION_FRACTION is not used"
    return "by VALIDATION_FRACTION and SEED"


def describe(dataset: Dataset, settings: Settings, seen: Seen) -> dict[str, Any]:
    """Returns counts of photos and boxes, and what was found in the annotations on which keys."""
    # As in the job, photos are split first. A photo that cannot be read does not change the split of the others.
    parts = split(dataset.images, settings.validation_fraction, settings.seed)
    counts = {
        name: records.count([image for image in part if image.key not in seen.skipped], dataset.labels)
        for name, part in parts.items()
    }
    return {
        "photos": {
            "labelled": len(dataset.images),
            "empty": sum(each.empty for each in counts.values()),
            **{name: each.photos for name, each in counts.items()},
            "without annotation": dataset.unlabelled,
        },
        "labels": {
            label: {name: each.boxes_per_label[label] for name, each in counts.items()} for label in dataset.labels
        },
        "found": dict(dataset.findings.kinds),
    }


def reasons_to_stop(dataset: Dataset, facts: dict[str, Any], seen: Seen, settings: Settings) -> list[str]:
    """Returns the reasons for which the job would stop before the training; empty if it would not stop."""
    lost = tf_record.too_many_lost(dataset, seen.skipped, settings.max_skipped)
    return ([lost] if lost else []) + ([] if facts["photos"]["train"] else [tf_record.NO_PHOTO])


def read_photos(photos: list[LabelledImage], settings: Settings) -> Seen:
    """Decodes every photo; returns the facts and faults that were seen."""
    storage = input_size.storage(settings)
    shrink = storage.shrink if storage else images.keep_size

    def read(image: LabelledImage) -> Converted:
        try:
            examples.refuse_crowd(image)
            photo = examples.read_photo(settings.data_dir, image.key, shrink)
        except images.UnusablePhotoError as error:
            return Converted(image.key, None, str(error), None)
        return Converted(image.key, None, None, photo.facts)

    seen = Seen()
    for each in logs.progress(parallel.map_in_order(read, photos, settings.workers), len(photos), "photos"):
        seen.add(each)
    return seen


def as_text(facts: dict[str, Any], origin: Origin, of_split: str) -> str:
    """Returns the content of the annotations as text for a person."""
    photos = facts["photos"]
    lines = [
        f"annotations in the format {origin.format}: {origin.place}",
        f"{photos['labelled']} labelled photos: {photos['train']} to train on, {photos['validation']} for validation, "
        f"{photos['empty']} of them without a box",
        f"the split is {of_split}",
        f"{photos['without annotation']} photos of the bucket carry no annotation and are not used",
        f"{len(facts['labels'])} labels, with their boxes for training and for validation:",
        *(f"  {label}: {boxes['train']}, {boxes['validation']}" for label, boxes in facts["labels"].items()),
    ]
    return str(Lines(lines + as_lines(facts["found"])))


def about_photos(found: DataQuality, stops: list[str], seen: Seen, page: str | None) -> str:
    """Returns the results of reading the photos as text for a person."""
    lines = as_lines(seen.kinds()) + quality.describe_sizes(found) + quality.describe_problems(found)
    lines += [f"photos with their boxes: {page}"] if page else []
    lines += [f"the job would stop: {reason}" for reason in stops]
    return str(Lines(lines if stops else [*lines, "the job can start"]))


def as_lines(found: dict[str, list[str]]) -> list[str]:
    """Returns a line for each finding, the most severe first."""
    return ["{severity}: {kind}: {count} ({where})".format_map(row) for row in check_page.finding_rows(found)]
