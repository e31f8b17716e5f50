"""Where each file of WORK_DIR lies, the marks of finished steps, and the claim on WORK_DIR.

The steps communicate through these files. Each file is written whole or not at all.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from entrypoint.settings.schema import Settings
from entrypoint.system import documents, files
from entrypoint.system.bucket import Place
from entrypoint.system.errors import UserError


@dataclass(frozen=True)
class Workspace:
    """The settings of a job and the places of its files."""

    settings: Settings
    began: float = field(default_factory=time.monotonic, compare=False)  # when this run of the job began

    @property
    def root(self) -> Path:
        """WORK_DIR."""
        return self.settings.work_dir

    @property
    def is_chief(self) -> bool:
        """Whether this machine writes the results. In a cluster one machine does."""
        return self.settings.tf_config is None or self.settings.tf_config.is_chief

    @property
    def results(self) -> Place:
        """RESULT_DIR."""
        return self.settings.result_dir

    @property
    def manifest(self) -> Place:
        """The manifest of a finished job, in RESULT_DIR."""
        return self.results / "job.json"

    @property
    def published_checkpoints(self) -> Place:
        """The folder of checkpoints in RESULT_DIR."""
        return self.results / "checkpoint"

    @property
    def known_photos(self) -> Path:
        """The sizes of the photos, which `check` leaves there."""
        return self.root / "photos.json"

    @property
    def dataset(self) -> Path:
        """The checked annotations, which the step `annotations` writes."""
        return self.root / "dataset.json"

    @property
    def averaged(self) -> Path:
        """The prefix of the averaged weights that were evaluated last, in the form of a checkpoint."""
        return self.root / "averaged" / "weights"

    @property
    def trial(self) -> Path:
        """The folder of what a trial of BATCH_SIZE=auto writes."""
        return self.root / "trial"

    @property
    def label_map(self) -> Path:
        """The label map in upstream's text format."""
        return self.root / "label_map.pbtxt"

    @property
    def records(self) -> Path:
        """The folder of the TFRecord shards and their manifest."""
        return self.root / "records"

    @property
    def zoo(self) -> Path:
        """The folder of downloaded archives and of the files that were extracted from them."""
        return self.root / "zoo"

    @property
    def start(self) -> Path:
        """The checkpoint that training starts from, which the step `checkpoint` writes."""
        return self.root / "start.json"

    @property
    def pipeline(self) -> Path:
        """The pipeline.config that is trained."""
        return self.root / "pipeline.config"

    @property
    def plan(self) -> Path:
        """The plan of the training, which the step `pipeline` writes."""
        return self.root / "plan.json"

    @property
    def exports(self) -> Path:
        """The formats to export to, which the step `exports` writes."""
        return self.root / "exports.json"

    @property
    def exported(self) -> Path:
        """The formats that were written, which the step `export` writes."""
        return self.root / "exported.json"

    @property
    def parity(self) -> Path:
        """What the exports find compared with the model, which the step `parity` writes."""
        return self.root / "parity.json"

    @property
    def predictions(self) -> Path:
        """The folder of the validation photos' boxes and detections in COCO's format."""
        return self.root / "predictions"

    @property
    def checkpoints(self) -> Path:
        """The folder of training checkpoints and TensorBoard events."""
        return self.root / "checkpoint"

    @property
    def events(self) -> Path:
        """The folder of TensorBoard events."""
        return self.checkpoints / "events"

    @property
    def trained(self) -> Path:
        """The steps of the checkpoints with which the training ended, which the step `train` writes."""
        return self.root / "trained.json"

    @property
    def evaluated(self) -> Path:
        """The folder of what evaluations during the training found, of the best and of the last one."""
        return self.root / "evaluated"

    @property
    def table(self) -> Path:
        """The metrics of each evaluation during the training, as a table."""
        return self.root / "metrics.csv"

    @property
    def metrics(self) -> Path:
        """The metrics of the validation photos."""
        return self.root / "metrics.json"

    @property
    def detections(self) -> Path:
        """The objects that the model found on the validation photos, for the report."""
        return self.root / "detections.json"

    @property
    def report(self) -> Path:
        """The report, one HTML page."""
        return self.root / "report.html"

    @property
    def model_card(self) -> Path:
        """What the model is and how it is used, for people who did not train it."""
        return self.root / "model_card.md"

    @property
    def history(self) -> Path:
        """The last runs in RESULT_DIR, this one among them. The file has the same name there."""
        return self.root / "history.json"

    @property
    def replaced(self) -> Path:
        """The files in RESULT_DIR that belong to the finished job that this job replaces."""
        return self.root / "replaced.json"

    @property
    def marks(self) -> Path:
        """The folder of the marks of finished steps."""
        return self.root / "steps"


@dataclass(frozen=True)
class Mark:
    """The record of a finished step: digests of its input and of its output, when it began, and how long it took."""

    input: str
    output: str
    began: float  # seconds since 1970
    seconds: float


MARKER = ".training-job"


@contextmanager
def claim(work: Workspace) -> Iterator[None]:
    """Makes WORK_DIR and reserves it for this process.

    Raises:
        UserError: WORK_DIR belongs to another job or another user, or holds other files, which the steps would
            replace.
    """
    root = work.root
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UserError(f"WORK_DIR={root} cannot be made ({error.strerror}): name a folder to write to") from None
    if not os.access(root, os.W_OK | os.X_OK):
        raise UserError(f"WORK_DIR={root} cannot be written to: name another folder")
    # Anybody can make folders and links in the temporary directory, and the job trusts the content of WORK_DIR.
    owner = root.lstat().st_uid
    if root.parent == Path(tempfile.gettempdir()) and (root.is_symlink() or owner != os.getuid()):
        kind = "is a link of" if root.is_symlink() else "belongs to"
        raise UserError(f"WORK_DIR={root} {kind} user {owner}: name another folder")
    if not (root / MARKER).exists() and any(root.iterdir()):
        raise UserError(f"WORK_DIR={root} holds files that do not belong to this job: name an empty or a new folder")
    with (root / MARKER).open("a") as marker:
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"WORK_DIR={root} is in use by another job: name another folder") from None
        yield


def existing(path: Path, needed_step: str) -> Path:
    """Returns the path of an earlier step's output; raises UserError with the step's name if it is missing."""
    if not path.exists():
        raise UserError(f"{path} is missing: run the step `{needed_step}` first, or the whole job")
    return path


def mark_path(step: str, work: Workspace) -> Path:
    """Returns where the mark of a step lies."""
    return work.marks / f"{step}.json"


def write_mark(step: str, mark: Mark, work: Workspace) -> None:
    """Marks a step as finished."""
    files.write_json(mark_path(step, work), mark)


def remove_mark(step: str, work: Workspace) -> None:
    """Marks a step as not finished."""
    mark_path(step, work).unlink(missing_ok=True)


def read_marks(work: Workspace) -> dict[str, Mark]:
    """Returns the marks of the finished steps by name, in the order in which the steps began."""
    found = [(path.stem, read_mark(path.stem, work)) for path in work.marks.glob("*.json")]
    marks = [(name, mark) for name, mark in found if mark]
    return dict(sorted(marks, key=lambda item: item[1].began))


def read_mark(step: str, work: Workspace) -> Mark | None:
    """Returns the mark of a step, or None if the step has not finished."""
    try:
        return documents.read(Mark, mark_path(step, work))
    except FileNotFoundError:
        return None


def output_of(step: str, work: Workspace) -> str | None:
    """Returns the digest of a finished step's output, or None if the step has not finished."""
    mark = read_mark(step, work)
    return mark.output if mark else None
