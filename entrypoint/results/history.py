"""history.json: the last runs in RESULT_DIR, a short record of each, so that the report compares them.

The file lies in a bucket where anybody may write: its content can be anything. It is checked when it is read, and a
file that is not a history is treated as missing. It is written anew as a whole, because bucket mounts cannot append.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from entrypoint import workspace
from entrypoint.data.annotations import Dataset, LabelledImage
from entrypoint.data.records import RecordsManifest
from entrypoint.results.metrics_document import MetricsDocument
from entrypoint.system import bucket, documents, files, version
from entrypoint.system.errors import UserError
from entrypoint.training import checkpoints, identity, train
from entrypoint.training.stored import DIGITS
from entrypoint.workspace import Workspace

logger = logging.getLogger("job")

# Raised by one if a field is removed or means something else.
Version = Literal[1]

MOST_RUNS = 50
MOST_BYTES = 1 << 20  # of the file; 50 runs take less than a tenth of it
LONGEST_TEXT, LONGEST_NAME, MOST_SETTINGS = 120, 60, 40

Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
Name = Annotated[str, Field(max_length=LONGEST_NAME)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Number = Annotated[int, Field(ge=0, le=10**12)]
Metric = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


@dataclass(frozen=True)
class Run:
    """A run whose results were published."""

    weights: Digest  # of the published checkpoint; two runs with the same weights are one
    ended: Annotated[float, Field(ge=0, lt=253402300800)]  # when the training ended, in seconds since 1970
    version: Text  # release and Git revision of the job
    model: Text  # MODEL
    steps: Number  # of the training
    kept: Number  # step of the published checkpoint
    photos: Number  # to train on
    validation_photos: Number
    labels: Number
    map: Annotated[Metric | None, Field(alias="mAP")]  # from 0 to 1; None if there was nothing to measure
    map50: Annotated[Metric | None, Field(alias="mAP@0.5")]
    minutes: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]  # of all steps of the job
    data: Digest  # of the names and the boxes of all photos, whatever size they are stored at
    validation: Digest  # of those of the validation photos; mAP of two runs can be compared if it is the same
    # What decides the training, in words, without the photos.
    settings: Annotated[dict[Name, Text], Field(max_length=MOST_SETTINGS)] = field(default_factory=dict)


@dataclass(frozen=True)
class History:
    """The content of history.json."""

    runs: tuple[Run, ...]  # in the order in which they were published
    schema_version: Version = 1

    def adding(self, run: Run) -> History:
        """Returns the history with a run as its last one, without the runs beyond the last 50.

        A run that is there already, because its job was killed while it published or was started again, stays one. It
        keeps its time and its minutes, since nothing was left to train.
        """
        for each in self.runs:
            if each.weights == run.weights:
                run = dataclasses.replace(run, ended=each.ended, minutes=each.minutes)
        others = [each for each in self.runs if each.weights != run.weights]
        return History((*others, run)[-MOST_RUNS:])

    @property
    def now(self) -> Run:
        """The run of this job."""
        return self.runs[-1]

    @property
    def earlier(self) -> tuple[Run, ...]:
        """The runs before it."""
        return self.runs[:-1]


def write(work: Workspace, dataset: Dataset, recorded: RecordsManifest, metrics: MetricsDocument) -> History:
    """Writes the history in RESULT_DIR with this run added into WORK_DIR, from where it is published; returns it."""
    history = read_published(work).adding(describe(work, dataset, recorded, metrics))
    documents.write(work.history, history)
    return history


def read_published(work: Workspace) -> History:
    """Returns the history in RESULT_DIR. It is empty, with a warning, if the file cannot be read as one."""
    try:
        return documents.parse(History, content_of(work), work.results / work.history.name)
    except FileNotFoundError:
        pass
    except (OSError, UserError) as error:
        logger.warning("%s: the report does not show earlier runs, and the file is replaced by a new history", error)
    return History(())


def content_of(work: Workspace) -> bytes:
    """Returns the content of the file in RESULT_DIR.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read, or is a link out of RESULT_DIR.
        UserError: it is empty, or larger than any history.
    """
    place, root = work.results / work.history.name, None if bucket.is_remote(work.results) else work.results
    for attempt in bucket.retrying():
        with attempt, bucket.named_errors(place):
            size = place.stat().st_size
    # S3 reports an error if a part of an empty file is asked for.
    if not 0 < size <= MOST_BYTES:
        raise UserError(f"{place} has {size:,} bytes, and a history has from 1 to {MOST_BYTES:,}")
    return bucket.read_head(place, MOST_BYTES, root)


def describe(work: Workspace, dataset: Dataset, recorded: RecordsManifest, metrics: MetricsDocument) -> Run:
    """Returns the record of this job's run."""
    measured = {photo.key for photo in metrics.analysis.per_photo} if metrics.analysis else set()
    last, mark = checkpoints.load(train.last_checkpoint(work)), workspace.read_mark("train", work)
    settings = {name: value for name, value in last.settings.items() if name != identity.PHOTOS}
    chosen = checkpoints.load(train.chosen_checkpoint(work))
    return Run(
        weights=files.digest(sorted(chosen.files.values())),
        ended=round(mark.began + mark.seconds if mark else time.time(), 3),
        version=version.describe()[:LONGEST_TEXT],
        model=work.settings.model[:LONGEST_TEXT],
        steps=last.step,
        kept=metrics.step,
        photos=recorded.train.photos,
        validation_photos=recorded.validation.photos,
        labels=len(dataset.labels),
        map=rounded(metrics.summary.map),
        map50=rounded(metrics.summary.map50),
        minutes=round(minutes(work), 2),
        data=digest_of(dataset.images),
        validation=digest_of([image for image in dataset.images if image.key in measured]),
        settings={name[:LONGEST_NAME]: value[:LONGEST_TEXT] for name, value in settings.items()},
    )


def digest_of(images: Iterable[LabelledImage]) -> str:
    """Returns a digest of the names of photos and of their boxes; their content is not read."""
    return files.digest(sorted(([image.key, image.boxes] for image in images), key=lambda row: str(row[0])))


def minutes(work: Workspace) -> float:
    """Returns the time that the finished steps took, in minutes, without that of `report` and `publish`."""
    marks = workspace.read_marks(work)
    return sum(mark.seconds for name, mark in marks.items() if name not in ("report", "publish")) / 60


def rounded(metric: float | None) -> float | None:
    """Returns a metric as the file has it, with as many digits as detections have."""
    return None if metric is None else round(metric, DIGITS)
