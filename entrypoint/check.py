"""`check` reports what the job would find in the bucket, before a GPU is paid for, and without TensorFlow.

It reads the annotations, reports their content, decodes every photo as the conversion does, and writes a page about it.
"""

import dataclasses
import json
import logging
from pathlib import Path

from entrypoint.data import annotations, examples, frames, images, quality, records, tf_record
from entrypoint.data.annotations import Dataset, LabelledImage
from entrypoint.data.examples import Converted
from entrypoint.data.formats.source import Files
from entrypoint.data.images import Frame
from entrypoint.data.quality import Seen
from entrypoint.data.split import SPLITS, split
from entrypoint.results import check_page
from entrypoint.results.check_page import Checked
from entrypoint.results.check_report import CheckFailure, CheckReport, LabelBoxes, PhotoCounts
from entrypoint.settings.command_line import Command
from entrypoint.settings.schema import Settings
from entrypoint.system import copying, display, documents, lease, processes, streams
from entrypoint.system.errors import UserError
from entrypoint.system.printable import Lines
from entrypoint.training import length, pipeline
from entrypoint.workspace import Workspace
from entrypoint.zoo import input_size

logger = logging.getLogger("job")

MOST_LABELS = 12  # in the text


def run(command: Command) -> int:
    """Prints what was found; returns 0 if the job can start, 2 if it would stop.

    With `--json`, standard output has a JSON document whatever happens; an error is its `error`.

    Raises:
        UserError: the job would refuse the settings, or the bucket or its annotations cannot be read.
    """
    try:
        report = find(command)
    except UserError as error:
        if not command.as_json:
            raise
        put_json(CheckFailure(str(error), [str(error)]))
        return error.exit_code
    if command.as_json:
        put_json(report)
    else:
        streams.put(as_text(report))
    return 2 if report.stops else 0


def put_json(document: CheckReport | CheckFailure) -> None:
    """Prints a document."""
    streams.put(json.dumps(documents.to_plain(document), indent=1))


def find(command: Command) -> CheckReport:
    """Reads the bucket and writes the page; returns what was found.

    Raises:
        UserError: the job would refuse the settings, or the bucket or its annotations cannot be read.
    """
    settings = command.settings
    refuse_early(settings)
    size = input_size.of_model(settings)
    reader = PhotoReader(settings)
    if not command.as_json:
        logger.info("reading annotations and photos of %s", settings.data_dir)
    dataset, origin = annotations.read_with_origin(settings, settings.result_dir, reader.measure, measures_all=True)
    seen = reader.of(dataset.images)
    # As in the job, photos are split first. A photo that cannot be read does not change the split of the others.
    parts = split(dataset.images, settings.validation_fraction, settings.seed)
    usable = {name: [image for image in part if image.key not in seen.skipped] for name, part in parts.items()}
    counts = {name: records.count(part, dataset.labels) for name, part in usable.items()}
    report = CheckReport(
        annotations=origin,
        split=split_of(dataset),
        photos=PhotoCounts(
            labelled=len(dataset.images),
            empty=sum(each.empty for each in counts.values()),
            train=counts["train"].photos,
            validation=counts["validation"].photos,
            without_annotation=dataset.unlabelled,
        ),
        labels={
            label: LabelBoxes(*(counts[name].boxes_per_label[label] for name in SPLITS)) for label in dataset.labels
        },
        found=dataset.findings.kinds | seen.kinds(),
        quality=quality.assess(parts, dataset.labels, seen, size),
        stops=reasons_to_stop(dataset, counts["train"].photos, seen, settings),
        length=length.foresee(settings, counts["train"].photos),
    )
    page = write_page(Checked(settings, dataset, seen, report), command.page)
    return dataclasses.replace(report, page=page)


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


def reasons_to_stop(dataset: Dataset, trained: int, seen: Seen, settings: Settings) -> list[str]:
    """Returns the reasons for which the job would stop before the training; `trained` photos are left to train on."""
    lost = tf_record.too_many_lost(dataset, seen.skipped, settings.max_skipped)
    return ([lost] if lost else []) + ([] if trained else [tf_record.NO_PHOTO])


class PhotoReader:
    """Reads and decodes every photo once, and collects what was seen."""

    def __init__(self, settings: Settings) -> None:
        self.work = Workspace(settings)
        self.seen = Seen()
        storage = input_size.storage(settings)
        self.shrink = storage.shrink if storage else images.keep_size

    def measure(self, keys: list[str], files: Files) -> dict[str, Frame]:
        """Returns size and orientation of each photo whose header can be read. The job that follows can have them."""
        found = processes.map_in_order(lambda key: self.read(key, files), keys, files.workers, examples.share_machine)
        measured = {}
        for each, frame in display.progress(found, len(keys), "photos"):
            self.seen.add(each)
            if frame:
                measured[each.key] = frame
        frames.keep(self.work, measured, keys, files.entries)
        return measured

    def read(self, key: str, files: Files) -> tuple[Converted, Frame | None]:
        """Returns the facts and faults of a photo, and its size and orientation."""
        content = b""
        try:
            content = examples.read_content(files.root, key)
            with examples.DECODING.part(1):
                photo = images.load(content, self.shrink)
        except images.UnusablePhotoError as error:
            return Converted(key, None, str(error), None), images.read_frame(content)
        return Converted(key, None, None, photo.facts), photo.frame

    def of(self, photos: list[LabelledImage]) -> Seen:
        """Returns what was seen of these photos; a photo with too many boxes is skipped, as in the conversion."""
        seen = Seen()
        for image in photos:
            try:
                examples.refuse_crowd(image)
            except images.UnusablePhotoError as error:
                seen.skipped[image.key] = str(error)
                continue
            if image.key in self.seen.facts:
                seen.facts[image.key] = self.seen.facts[image.key]
            else:
                seen.skipped[image.key] = self.seen.skipped[image.key]
        return seen


def as_text(report: CheckReport) -> str:
    """Returns what was found as text for a person, which fits on a screen: the page and the JSON have the rest."""
    photos, labels = report.photos, list(report.labels.items())
    lines = [
        f"annotations in the format {report.annotations.format}: {report.annotations.place}",
        f"{photos.labelled} labelled photos: {photos.train} to train on, {photos.validation} for validation, "
        f"{photos.empty} of them without a box",
        f"the split is {report.split}",
        f"{photos.without_annotation} photos of the bucket carry no annotation and are not used",
        f"{len(labels)} labels, with their boxes for training and for validation:",
        *(f"  {label}: {boxes.train}, {boxes.validation}" for label, boxes in labels[:MOST_LABELS]),
        *([f"  and {len(labels) - MOST_LABELS} more"] if len(labels) > MOST_LABELS else []),
        *(f"stops: {reason}" for reason in report.stops),
        *("{severity}: {kind}: {count} ({where})".format_map(row) for row in check_page.finding_rows(report.found)),
        *check_page.sentences(report),
        *([f"photos with their boxes: {report.page}"] if report.page else []),
        "the job would stop" if report.stops else "the job can start",
    ]
    return str(Lines(lines))
